#include "modelsat/clock.h"

#include <chrono>

namespace modelsat {

RealClock* RealClock::Get() {
  static RealClock clock;  // has no state, so threads may still read it while the process exits
  return &clock;
}

std::int64_t RealClock::NowUs() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void RealClock::WaitUntil(CondVar* condition, Mutex* mutex, std::int64_t time_us) {
  if (time_us == kNever) {
    condition->Wait(mutex);
    return;
  }
  condition->WaitUntil(mutex,
                       std::chrono::steady_clock::time_point(std::chrono::microseconds(time_us)));
}

}  // namespace modelsat
