#include "cpu/thread_pool.h"

namespace modelsat {

ThreadPool::ThreadPool(int threads) {
  for (int worker = 1; worker < threads; ++worker) {
    threads_.emplace_back([this, worker] { Work(worker); });
  }
}

ThreadPool::~ThreadPool() {
  if (fork_guard_.forked()) {  // the threads stayed in the parent
    for (std::thread& thread : threads_) thread.detach();
    return;
  }
  {
    MutexLock lock(&mutex_);
    closing_ = true;
  }
  wake_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::Run(int tasks, Function function, void* context) {
  if (tasks > 1 && !threads_.empty() && !fork_guard_.forked()) {
    MutexLock lock(&mutex_);
    if (function_ == nullptr) {
      function_ = function;
      context_ = context;
      next_task_ = 0;
      tasks_ = tasks;
      unfinished_ = tasks;
      wake_.NotifyAll();
      TakeTasks(0);
      while (unfinished_ > 0) finished_.Wait(&mutex_);
      function_ = nullptr;
      return;
    }
  }
  for (int task = 0; task < tasks; ++task) function(context, task, 0);
}

void ThreadPool::Work(int worker) {
  MutexLock lock(&mutex_);
  while (!closing_) {
    if (function_ != nullptr) TakeTasks(worker);
    if (!closing_) wake_.Wait(&mutex_);
  }
}

void ThreadPool::TakeTasks(int worker) {
  while (next_task_ < tasks_) {
    const int task = next_task_++;
    const Function function = function_;
    void* const context = context_;
    mutex_.Unlock();
    function(context, task, worker);
    mutex_.Lock();
    if (--unfinished_ == 0) finished_.NotifyOne();
  }
}

}  // namespace modelsat
