// Tells an object with threads that it woke up in a forked child, where those threads do not exist.

#ifndef MODELSAT_FORK_GUARD_H_
#define MODELSAT_FORK_GUARD_H_

#include <cstdint>

namespace modelsat {

// Remembers the process it was made in. In a child the locks of the object may be held for ever, so
// its methods must ask before they take one.
class ForkGuard {
 public:
  ForkGuard();

  // One atomic read; always false on systems without fork.
  bool forked() const;

 private:
  const std::uint64_t generation_;
};

}  // namespace modelsat

#endif  // MODELSAT_FORK_GUARD_H_
