// A clock that stands still until a test advances it.

#ifndef MODELSAT_TESTS_FAKE_CLOCK_H_
#define MODELSAT_TESTS_FAKE_CLOCK_H_

#include <cstdint>
#include <list>
#include <vector>

#include "modelsat/clock.h"

namespace modelsat {

class FakeClock final : public Clock {
 public:
  std::int64_t NowUs() override {
    MutexLock lock(&mutex_);
    return now_us_;
  }

  void WaitUntil(CondVar* condition, Mutex* mutex, std::int64_t time_us) override
      MODELSAT_REQUIRES(mutex) {
    std::list<Waiter>::iterator waiter;
    {
      MutexLock lock(&mutex_);
      if (now_us_ >= time_us) return;
      waiter = waiters_.insert(waiters_.end(), Waiter{condition, mutex, time_us});
    }
    condition->Wait(mutex);
    MutexLock lock(&mutex_);
    waiters_.erase(waiter);
  }

  // Wakes every thread whose time has come. The objects that wait must outlive the call.
  void AdvanceUs(std::int64_t us) {
    std::vector<Waiter> due;
    {
      MutexLock lock(&mutex_);
      now_us_ += us;
      for (const Waiter& waiter : waiters_) {
        if (waiter.time_us <= now_us_) due.push_back(waiter);
      }
    }
    for (const Waiter& waiter : due) {
      // A registered waiter holds its mutex until it really waits.
      waiter.mutex->Lock();
      waiter.condition->NotifyAll();
      waiter.mutex->Unlock();
    }
  }

 private:
  struct Waiter {
    CondVar* condition;
    Mutex* mutex;
    std::int64_t time_us;
  };

  Mutex mutex_;
  std::int64_t now_us_ MODELSAT_GUARDED_BY(mutex_) = 1'000'000;
  std::list<Waiter> waiters_ MODELSAT_GUARDED_BY(mutex_);
};

}  // namespace modelsat

#endif  // MODELSAT_TESTS_FAKE_CLOCK_H_
