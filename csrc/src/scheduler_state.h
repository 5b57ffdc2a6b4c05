// What BatchScheduler and its three threads share. Internal to src/.

#ifndef MODELSAT_SRC_SCHEDULER_STATE_H_
#define MODELSAT_SRC_SCHEDULER_STATE_H_

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "modelsat/fork_guard.h"
#include "modelsat/request_queue.h"
#include "modelsat/scheduler.h"
#include "modelsat/service_estimate.h"

namespace modelsat {

// Neighbouring requests of one submission in a batch.
struct Slice {
  std::shared_ptr<Submission> submission;
  std::int32_t first;
  std::int32_t count;
};

// A batch on its way to the executor: selected under the lock, packed outside it.
struct FormingBatch {
  std::shared_ptr<const CandidateTable> table;
  std::vector<Slice> slices;
  std::int32_t num_requests = 0;
  std::int32_t num_tokens = 0;
  std::int64_t deadline_us = kNever;  // of its most urgent request
  std::shared_ptr<Batch> packed;      // holds the first num_packed_slices slices
  std::size_t num_packed_slices = 0;

  // Tokens, and one inquiry row per request and candidate: the unit of ServiceEstimate.
  std::int64_t num_rows() const;

  void Add(Slice slice);
  void Pack();
};

// What a caller asks for: so many requests, all of them or none.
struct Demand {
  std::int32_t requests;
  std::int64_t tokens;
  std::int32_t candidates;
  int priority;
  std::int64_t deadline_us;
};

// What a request is answered after Close and Drain.
Status ShuttingDown();

// Three threads work here, each with one job:
//   executor    takes batches and scores them; forms a batch itself when none is prefetched
//   assistant   forms the next batch while the executor works, and delivers finished submissions
//               when the executor has better to do
//   timekeeper  answers requests whose deadline passes
// Each holds a shared_ptr to this, so in a forked child, where they never end, it is never
// destroyed.
class SchedulerState : public std::enable_shared_from_this<SchedulerState> {
 public:
  SchedulerState(std::shared_ptr<Executor> executor, const SchedulerOptions& options, Clock* clock);
  ~SchedulerState();

  void Start();
  Status Submit(const std::shared_ptr<Submission>& submission) MODELSAT_EXCLUDES(mutex_);
  Status Ask(Demand demand) MODELSAT_EXCLUDES(mutex_);  // demand.tokens are not known yet
  bool Cancel(const std::shared_ptr<Submission>& submission) MODELSAT_EXCLUDES(mutex_);
  bool Drain(std::int64_t time_us) MODELSAT_EXCLUDES(mutex_);
  void Close() MODELSAT_EXCLUDES(mutex_);
  SchedulerStats Stats() MODELSAT_EXCLUDES(mutex_);
  const ExecutorLimits& limits() const { return limits_; }
  Clock* clock() const { return clock_; }

 private:
  using Finished = std::vector<std::shared_ptr<Submission>>;

  enum class Prefetch { kNone, kPacking, kReady };

  void RunExecutor() MODELSAT_EXCLUDES(mutex_);
  void RunAssistant() MODELSAT_EXCLUDES(mutex_);
  void RunTimekeeper() MODELSAT_EXCLUDES(mutex_);

  // Admission.
  Status CheckForm(const Submission& submission) const;
  Status CheckRoom(const Demand& demand, std::int64_t now_us) MODELSAT_REQUIRES(mutex_);
  Status CheckTime(const Demand& demand, std::int64_t now_us, double margin)
      MODELSAT_REQUIRES(mutex_);
  std::int64_t NumBatches(std::int64_t requests, std::int64_t tokens) const;
  std::int64_t RunningForUs(std::int64_t now_us) const MODELSAT_REQUIRES(mutex_);
  void Admit(const std::shared_ptr<Submission>& submission, std::int64_t now_us)
      MODELSAT_REQUIRES(mutex_);

  // Batches.
  void Select(FormingBatch* batch, std::int64_t now_us, std::int64_t start_us)
      MODELSAT_REQUIRES(mutex_);
  bool DropIfHopeless(Submission* submission, std::int32_t first, std::int64_t now_us)
      MODELSAT_REQUIRES(mutex_);
  void Take(FormingBatch* batch, std::int64_t now_us) MODELSAT_REQUIRES(mutex_);
  void Execute(FormingBatch* batch) MODELSAT_EXCLUDES(mutex_);
  Status Score(FormingBatch* batch);

  // Answers.
  void Fail(Submission* submission, std::int32_t begin, const Status& status, std::int64_t now_us)
      MODELSAT_REQUIRES(mutex_);
  void Expire(std::int64_t now_us) MODELSAT_REQUIRES(mutex_);
  void HandOver(std::shared_ptr<Submission> finished) MODELSAT_REQUIRES(mutex_);
  void Deliver(Finished finished) MODELSAT_EXCLUDES(mutex_);

  void WakeAssistant() MODELSAT_REQUIRES(mutex_);

  const std::shared_ptr<Executor> executor_;
  const SchedulerOptions options_;
  const ExecutorLimits limits_;
  Clock* const clock_;
  const ForkGuard fork_guard_;

  Mutex mutex_;
  RequestQueue queue_ MODELSAT_GUARDED_BY(mutex_);
  DeadlineWheel wheel_ MODELSAT_GUARDED_BY(mutex_);
  ServiceEstimate estimate_ MODELSAT_GUARDED_BY(mutex_);
  std::int64_t running_until_us_ MODELSAT_GUARDED_BY(mutex_) = 0;  // of the running batch, expected
  FormingBatch prefetched_ MODELSAT_GUARDED_BY(mutex_);
  Prefetch prefetch_ MODELSAT_GUARDED_BY(mutex_) = Prefetch::kNone;
  Finished handed_over_ MODELSAT_GUARDED_BY(mutex_);  // for the assistant to deliver
  SchedulerStats stats_ MODELSAT_GUARDED_BY(mutex_);
  std::uint64_t next_sequence_ MODELSAT_GUARDED_BY(mutex_) = 1;
  bool draining_ MODELSAT_GUARDED_BY(mutex_) = false;
  bool closed_ MODELSAT_GUARDED_BY(mutex_) = false;
  bool executor_ended_ MODELSAT_GUARDED_BY(mutex_) = false;

  // A thread is notified only when it waits, and once: a notification costs a system call.
  bool executor_waits_ MODELSAT_GUARDED_BY(mutex_) = false;
  bool assistant_waits_ MODELSAT_GUARDED_BY(mutex_) = false;
  std::int64_t timekeeper_wakes_us_ MODELSAT_GUARDED_BY(mutex_) = 0;
  CondVar executor_condition_;
  CondVar assistant_condition_;
  CondVar timekeeper_condition_;
  CondVar idle_condition_;

  std::vector<float> probabilities_;  // [B, M] of the running batch; only the executor thread's

  Mutex join_mutex_;
  std::vector<std::thread> threads_ MODELSAT_GUARDED_BY(join_mutex_);
  std::vector<std::thread::id> thread_ids_;  // constant after Start
};

}  // namespace modelsat

#endif  // MODELSAT_SRC_SCHEDULER_STATE_H_
