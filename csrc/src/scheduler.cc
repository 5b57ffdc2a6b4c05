#include "modelsat/scheduler.h"

#include <utility>

#include "scheduler_state.h"

namespace modelsat {

BatchScheduler::BatchScheduler(std::shared_ptr<Executor> executor, const SchedulerOptions& options,
                               Clock* clock)
    : state_(std::make_shared<SchedulerState>(std::move(executor), options, clock)) {
  state_->Start();
}

BatchScheduler::~BatchScheduler() { state_->Close(); }

Status BatchScheduler::Submit(const std::shared_ptr<Submission>& submission) {
  return state_->Submit(submission);
}

Status BatchScheduler::Ask(std::int32_t num_requests, std::int32_t num_candidates, int priority,
                           std::int64_t deadline_us) {
  return state_->Ask({num_requests, 0, num_candidates, priority, deadline_us});
}

bool BatchScheduler::Cancel(const std::shared_ptr<Submission>& submission) {
  return state_->Cancel(submission);
}

bool BatchScheduler::Drain(std::int64_t time_us) { return state_->Drain(time_us); }

void BatchScheduler::Close() { state_->Close(); }

SchedulerStats BatchScheduler::Stats() const { return state_->Stats(); }

const ExecutorLimits& BatchScheduler::limits() const { return state_->limits(); }

Clock* BatchScheduler::clock() const { return state_->clock(); }

}  // namespace modelsat
