// Time as the scheduler sees it, injected so that its tests advance time instead of sleeping.

#ifndef MODELSAT_CLOCK_H_
#define MODELSAT_CLOCK_H_

#include <cstdint>
#include <limits>

#include "modelsat/mutex.h"

namespace modelsat {

// A time that never comes.
inline constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

class Clock {
 public:
  virtual ~Clock() = default;

  // Monotonic microseconds since an arbitrary start, never negative.
  virtual std::int64_t NowUs() = 0;

  // Releases `mutex`, blocks until `condition` is notified or NowUs() >= time_us, and takes `mutex`
  // again. May return early; returns at once when the time has come already.
  virtual void WaitUntil(CondVar* condition, Mutex* mutex, std::int64_t time_us)
      MODELSAT_REQUIRES(mutex) = 0;
};

// std::chrono::steady_clock.
class RealClock final : public Clock {
 public:
  // The one instance; it is never destroyed, so threads may use it until the process ends.
  static RealClock* Get();

  std::int64_t NowUs() override;
  void WaitUntil(CondVar* condition, Mutex* mutex, std::int64_t time_us) override
      MODELSAT_REQUIRES(mutex);
};

}  // namespace modelsat

#endif  // MODELSAT_CLOCK_H_
