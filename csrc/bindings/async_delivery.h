// Finished submissions on their way to Python callbacks and event loops.

#ifndef MODELSAT_BINDINGS_ASYNC_DELIVERY_H_
#define MODELSAT_BINDINGS_ASYNC_DELIVERY_H_

#include <pybind11/pybind11.h>

#include <memory>
#include <thread>
#include <vector>

#include "modelsat/fork_guard.h"
#include "modelsat/mutex.h"
#include "modelsat/scheduler.h"

namespace modelsat {

// A submission that Python made. The references are empty for a blocking caller.
class PythonSubmission final : public Submission {
 public:
  using Submission::Submission;

  std::weak_ptr<BatchScheduler> scheduler;
  // Set before it is submitted, emptied when it is delivered.
  std::shared_ptr<const void> callback;  // callback(submission), on the delivery thread; or
  std::shared_ptr<const void> loop;      // an asyncio event loop
  std::shared_ptr<const void> future;    // and a future of it
};

// Takes the GIL on a thread of its own, so that the scheduler's threads never wait for it, and
// wakes each event loop once for everything that finished together.
class AsyncDelivery final : public CompletionSink,
                            public std::enable_shared_from_this<AsyncDelivery> {
 public:
  ~AsyncDelivery() override;

  void Start();
  // Delivers what is left and ends the thread; waits for that unless called on it. Call without
  // the GIL.
  void Stop();

  void Deliver(std::vector<std::shared_ptr<Submission>> finished) noexcept override;

 private:
  void Run();

  const ForkGuard fork_guard_;
  Mutex mutex_;
  CondVar condition_;
  std::vector<std::shared_ptr<Submission>> finished_ MODELSAT_GUARDED_BY(mutex_);
  bool stopped_ MODELSAT_GUARDED_BY(mutex_) = false;

  Mutex join_mutex_;
  std::thread thread_ MODELSAT_GUARDED_BY(join_mutex_);
  std::thread::id thread_id_;  // constant after Start
};

// Settles the futures of (future, submission) pairs; runs in their event loop.
void SettleFutures(const pybind11::list& pairs);

}  // namespace modelsat

#endif  // MODELSAT_BINDINGS_ASYNC_DELIVERY_H_
