#include "modelsat/fork_guard.h"

#include <atomic>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace modelsat {
namespace {

// How many forks lie between the first process that loaded this library and the running one.
std::atomic<std::uint64_t> fork_generation{0};

void CountForksFromNowOn() {
#if defined(__unix__) || defined(__APPLE__)
  static const int registered = pthread_atfork(nullptr, nullptr, [] { ++fork_generation; });
  static_cast<void>(registered);
#endif
}

std::uint64_t CurrentGeneration() {
  CountForksFromNowOn();
  return fork_generation.load(std::memory_order_relaxed);
}

}  // namespace

ForkGuard::ForkGuard() : generation_(CurrentGeneration()) {}

bool ForkGuard::forked() const {
  return fork_generation.load(std::memory_order_relaxed) != generation_;
}

}  // namespace modelsat
