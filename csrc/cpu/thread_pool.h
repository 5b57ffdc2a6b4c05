// A few threads that share out the tasks of one call, and sleep between calls.

#ifndef MODELSAT_CPU_THREAD_POOL_H_
#define MODELSAT_CPU_THREAD_POOL_H_

#include <thread>
#include <vector>

#include "modelsat/fork_guard.h"
#include "modelsat/mutex.h"
#include "modelsat/thread_annotations.h"

namespace modelsat {

// Tasks are taken under a lock: they should last a millisecond, not a microsecond.
class ThreadPool {
 public:
  // Called as function(context, task, worker), worker in [0, threads). Must not throw.
  using Function = void (*)(void* context, int task, int worker);

  // Starts threads - 1 threads: the caller of Run is the remaining one.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(threads_.size()) + 1; }

  // Runs tasks 0 .. tasks - 1 and returns when all are done. While another call is running, and in
  // a forked child, the caller does all of its tasks itself, as worker 0.
  void Run(int tasks, Function function, void* context);

 private:
  void Work(int worker);
  void TakeTasks(int worker) MODELSAT_REQUIRES(mutex_);

  Mutex mutex_;
  CondVar wake_;                                             // there are tasks, or closing_
  CondVar finished_;                                         // unfinished_ is 0
  Function function_ MODELSAT_GUARDED_BY(mutex_) = nullptr;  // not null while a call runs
  void* context_ MODELSAT_GUARDED_BY(mutex_) = nullptr;
  int next_task_ MODELSAT_GUARDED_BY(mutex_) = 0;
  int tasks_ MODELSAT_GUARDED_BY(mutex_) = 0;
  int unfinished_ MODELSAT_GUARDED_BY(mutex_) = 0;
  bool closing_ MODELSAT_GUARDED_BY(mutex_) = false;
  const ForkGuard fork_guard_;
  std::vector<std::thread> threads_;
};

}  // namespace modelsat

#endif  // MODELSAT_CPU_THREAD_POOL_H_
