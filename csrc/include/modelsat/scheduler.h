// Collects requests from many threads into batches for one executor.

#ifndef MODELSAT_SCHEDULER_H_
#define MODELSAT_SCHEDULER_H_

#include <cstdint>
#include <memory>

#include "modelsat/clock.h"
#include "modelsat/executor.h"
#include "modelsat/stats.h"
#include "modelsat/status.h"
#include "modelsat/submission.h"

namespace modelsat {

struct SchedulerOptions {
  // Bounds of what waits, the prefetched batch included. A request frees its place when the
  // executor takes it, or at the moment it is cancelled or its deadline passes.
  std::int32_t max_queue_requests = 4096;
  std::int64_t max_queue_tokens = std::int64_t{1} << 21;

  // Hard bounds of a batch; 0 takes the executor's, which no value can exceed.
  std::int32_t max_batch_requests = 0;
  std::int32_t max_batch_tokens = 0;

  // What one level of priority is worth in waiting time; 0 makes every priority equal.
  std::int64_t ageing_us = 100'000;

  // A deadline is taken on only if the estimated time of the work ahead and of the request itself,
  // so many times over, fits into it (ServiceEstimate; kOverloaded otherwise). The more, the more a
  // machine may slow down before an accepted request is late. 0 takes on every deadline, and then
  // no request is given up before its deadline has passed.
  double deadline_margin = 1.5;
};

class SchedulerState;

// Work-conserving: a batch starts as soon as the executor is free and something waits; no timer
// delays it. While the executor works, exactly one more batch is formed ahead; requests that come
// before it starts still join it if they fit. Requests are served FIFO within a priority,
// priorities age (RequestQueue), and a batch holds requests of one candidate table only.
//
// Deadlines shape batches: a batch grows no further than its most urgent request can afford, and a
// request whose deadline cannot be met any more is answered as late instead of executed.
//
// Every accepted request is answered exactly once, whatever happens: with probabilities, by its
// deadline (also while the executor is busy with it: its result is dropped then), by Cancel, by
// Close, or with the error of its own batch. Every method may be called from any thread.
//
// After a fork the child has no threads to serve requests: there Submit answers kForked and every
// other method does nothing.
class BatchScheduler {
 public:
  // `clock` must outlive the scheduler and its threads (see the destructor).
  BatchScheduler(std::shared_ptr<Executor> executor, const SchedulerOptions& options,
                 Clock* clock = RealClock::Get());

  // Closes. On one of the scheduler's own threads (a sink that drops the last reference) it does
  // not wait for them; they end by themselves.
  ~BatchScheduler();

  BatchScheduler(const BatchScheduler&) = delete;
  BatchScheduler& operator=(const BatchScheduler&) = delete;

  // Admits all requests of the submission or none; never blocks. On Ok each of them will be
  // answered and the submission will be delivered to its sink, possibly before Submit returns. On
  // anything else nothing happened and the sink hears nothing: kOverloaded, kDeadlineExceeded,
  // kTooLarge (an instruction over the limits, or a list over the bounds of the queue),
  // kShuttingDown, kInvalidArgument, kForked.
  // A submission can be submitted once.
  Status Submit(const std::shared_ptr<Submission>& submission);

  // What Submit would answer now to `num_requests` requests of the length usual so far, for callers
  // who want to know before they tokenise. Wants a third more time than Submit for a deadline, so
  // that whoever is let through here is seldom refused there. Admits nothing; counts a refusal
  // among the rejected.
  Status Ask(std::int32_t num_requests, std::int32_t num_candidates, int priority = 0,
             std::int64_t deadline_us = kNever);

  // Answers what is not answered yet of an accepted submission with kCancelled, in constant time.
  // Queue places are free when it returns. False if there was nothing left to cancel.
  bool Cancel(const std::shared_ptr<Submission>& submission);

  // Refuses new requests (kShuttingDown) and waits until all accepted ones are answered and
  // delivered, or until `time_us` of the clock; returns whether they are. Not for sinks.
  bool Drain(std::int64_t time_us = kNever);

  // Refuses new requests, answers waiting ones with kShuttingDown at once, lets the running batch
  // finish, and returns when every answer is delivered and every thread has ended.
  void Close();

  SchedulerStats Stats() const;

  // The limits in force: the tighter of options and executor.
  const ExecutorLimits& limits() const;

  Clock* clock() const;

 private:
  const std::shared_ptr<SchedulerState> state_;  // shared with the scheduler's threads
};

}  // namespace modelsat

#endif  // MODELSAT_SCHEDULER_H_
