// std::mutex and std::condition_variable in a form that clang's thread-safety analysis can follow.

#ifndef MODELSAT_MUTEX_H_
#define MODELSAT_MUTEX_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "modelsat/thread_annotations.h"

namespace modelsat {

class CondVar;

class MODELSAT_CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() MODELSAT_ACQUIRE() { mutex_.lock(); }
  void Unlock() MODELSAT_RELEASE() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

// Holds a Mutex for a scope; may be released early and taken again.
class MODELSAT_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) MODELSAT_ACQUIRE(mutex) : mutex_(mutex) { mutex_->Lock(); }
  ~MutexLock() MODELSAT_RELEASE() {
    if (held_) mutex_->Unlock();
  }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  void Unlock() MODELSAT_RELEASE() {
    mutex_->Unlock();
    held_ = false;
  }
  void Lock() MODELSAT_ACQUIRE() {
    mutex_->Lock();
    held_ = true;
  }

 private:
  Mutex* const mutex_;
  bool held_ = true;
};

// A condition variable for Mutex. Wakes may be spurious: wait in a loop on the condition.
class CondVar {
 public:
  CondVar() = default;
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;

  void Wait(Mutex* mutex) MODELSAT_REQUIRES(mutex) MODELSAT_NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }

  void WaitUntil(Mutex* mutex, std::chrono::steady_clock::time_point time)
      MODELSAT_REQUIRES(mutex) MODELSAT_NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
    condition_.wait_until(lock, time);
    lock.release();
  }

  void NotifyOne() { condition_.notify_one(); }
  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace modelsat

#endif  // MODELSAT_MUTEX_H_
