// What is let in: size, room, and whether the deadline can be kept.

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#include "scheduler_state.h"

namespace modelsat {
namespace {

// Ask wants so much more time than Submit, since the request may be longer than usual and time goes
// by until it is tokenised.
constexpr double kAskMargin = 4.0 / 3;

Status Forked() {
  return Status(StatusCode::kForked,
                "this process was forked from the one that started the scheduler, whose threads "
                "stayed there; start a scheduler after the fork, or use the spawn start method");
}

std::string Milliseconds(std::int64_t us) {
  return us < 10'000 ? std::to_string(us) + " us" : std::to_string(us / 1000) + " ms";
}

}  // namespace

Status SchedulerState::Submit(const std::shared_ptr<Submission>& submission) {
  if (fork_guard_.forked()) return Forked();
  const SubmitOptions& options = submission->options();
  const Demand demand{submission->num_requests(), submission->requests().num_tokens(),
                      submission->table()->num_candidates(), options.priority, options.deadline_us};
  Status status = CheckForm(*submission);
  bool wake_executor = false;
  {
    MutexLock lock(&mutex_);
    const std::int64_t now_us = clock_->NowUs();
    if (status.ok() && submission->sequence_ != 0) {
      status = Status(StatusCode::kInvalidArgument,
                      "this submission was submitted before; make another");
    }
    if (status.ok()) status = CheckRoom(demand, now_us);
    if (status.ok()) status = CheckTime(demand, now_us, options_.deadline_margin);
    if (!status.ok()) {
      stats_.rejected[static_cast<int>(status.code())] += demand.requests;
      return status;
    }
    Admit(submission, now_us);
    if (executor_waits_) {
      wake_executor = true;
      executor_waits_ = false;
    } else if (stats_.executing_requests > 0 && prefetch_ == Prefetch::kNone) {
      WakeAssistant();
    }
  }
  if (wake_executor) executor_condition_.NotifyOne();
  return status;
}

Status SchedulerState::Ask(Demand demand) {
  if (fork_guard_.forked()) return Forked();
  MutexLock lock(&mutex_);
  const std::int64_t now_us = clock_->NowUs();
  demand.tokens = demand.requests;  // what the shortest requests would take
  Status status = CheckRoom(demand, now_us);
  if (status.ok() && stats_.accepted > 0) {
    demand.tokens = demand.requests * stats_.accepted_tokens / stats_.accepted;
    status = CheckTime(demand, now_us, kAskMargin * options_.deadline_margin);
  }
  if (!status.ok()) stats_.rejected[static_cast<int>(status.code())] += demand.requests;
  return status;
}

Status SchedulerState::CheckForm(const Submission& submission) const {
  const Batch& requests = submission.requests();
  Status status = requests.Validate();
  if (!status.ok()) return status;
  if (submission.table()->num_candidates() < 1) {
    return Status(StatusCode::kInvalidArgument,
                  "the candidate table is empty: add a candidate before scoring");
  }
  const int priority = submission.options().priority;
  if (priority < kMinPriority || priority > kMaxPriority) {
    return Status(StatusCode::kInvalidArgument, "priority " + std::to_string(priority) +
                                                    " is outside " + std::to_string(kMinPriority) +
                                                    " .. " + std::to_string(kMaxPriority));
  }
  for (std::int32_t i = 0; i < requests.num_requests(); ++i) {
    const std::int32_t num_tokens = requests.TokensOf(i, 1);
    if (num_tokens > limits_.max_instruction_tokens) {
      return Status(StatusCode::kTooLarge, "instruction " + std::to_string(i) + " has " +
                                               std::to_string(num_tokens) + " tokens, at most " +
                                               std::to_string(limits_.max_instruction_tokens) +
                                               " fit; shorten it");
    }
  }
  return Status();
}

Status SchedulerState::CheckRoom(const Demand& demand, std::int64_t now_us) {
  if (closed_ || draining_) return ShuttingDown();
  if (demand.requests > options_.max_queue_requests || demand.tokens > options_.max_queue_tokens) {
    return Status(StatusCode::kTooLarge,
                  "a list of " + std::to_string(demand.requests) + " requests with " +
                      std::to_string(demand.tokens) + " tokens exceeds the whole queue (" +
                      std::to_string(options_.max_queue_requests) + " requests, " +
                      std::to_string(options_.max_queue_tokens) +
                      " tokens); submit it in parts or enlarge the queue");
  }
  if (demand.deadline_us <= now_us) {
    return Status(StatusCode::kDeadlineExceeded, "the deadline had passed before the request came");
  }
  const auto has_room = [&]() MODELSAT_REQUIRES(mutex_) {
    return stats_.queued_requests + demand.requests <= options_.max_queue_requests &&
           stats_.queued_tokens + demand.tokens <= options_.max_queue_tokens;
  };
  if (!has_room()) Expire(now_us);  // the timekeeper may be about to make room
  if (!has_room()) {
    return Status(StatusCode::kOverloaded,
                  std::to_string(stats_.queued_requests) + " requests with " +
                      std::to_string(stats_.queued_tokens) +
                      " tokens are waiting; try again later or send fewer requests");
  }
  return Status();
}

Status SchedulerState::CheckTime(const Demand& demand, std::int64_t now_us, double margin) {
  if (demand.deadline_us == kNever || margin <= 0 || !estimate_.known()) {
    return Status();
  }
  const std::int64_t left_us = demand.deadline_us - now_us;
  if (stats_.executing_requests == 0 && stats_.queued_requests == 0) {
    // Nothing runs that could correct an estimate which is too high: be sure before refusing.
    const std::int64_t need_us =
        estimate_.FastestUs(NumBatches(demand.requests, demand.tokens),
                            demand.tokens + std::int64_t{demand.requests} * demand.candidates);
    if (need_us <= left_us) return Status();
    estimate_.Doubt();
    return Status(StatusCode::kDeadlineExceeded,
                  "this takes " + Milliseconds(need_us) + " and the deadline leaves " +
                      Milliseconds(left_us) + "; allow more time or send fewer requests at once");
  }
  const RequestQueue::Work behind = queue_.Behind(demand.priority, now_us);
  const std::int64_t requests = stats_.queued_requests - behind.requests + demand.requests;
  const std::int64_t tokens = stats_.queued_tokens - behind.tokens + demand.tokens;
  const std::int64_t work_us =
      RunningForUs(now_us) +
      estimate_.CautiousUs(NumBatches(requests, tokens), tokens + requests * demand.candidates);
  if (margin * static_cast<double>(work_us) <= static_cast<double>(left_us)) {
    return Status();
  }
  return Status(StatusCode::kOverloaded,
                "with " + std::to_string(requests - demand.requests) +
                    " requests ahead the answer would take up to " + Milliseconds(work_us) +
                    ", too much for a deadline in " + Milliseconds(left_us) +
                    "; try again later or allow more time");
}

// Batches that so much work fills.
std::int64_t SchedulerState::NumBatches(std::int64_t requests, std::int64_t tokens) const {
  const auto filled = [](std::int64_t amount, std::int64_t bound) {
    return (amount + bound - 1) / bound;
  };
  return std::max(filled(requests, limits_.max_batch_requests),
                  filled(tokens, limits_.max_batch_tokens));
}

// How much longer the executor will be busy. One that is overdue is taken to need as long again as
// it is overdue.
std::int64_t SchedulerState::RunningForUs(std::int64_t now_us) const {
  return stats_.executing_requests > 0 ? std::abs(running_until_us_ - now_us) : 0;
}

void SchedulerState::Admit(const std::shared_ptr<Submission>& submission, std::int64_t now_us) {
  Submission* const s = submission.get();
  s->sequence_ = next_sequence_++;
  s->admitted_us_ = now_us;
  s->self_ = submission;
  ++stats_.unanswered_submissions;
  if (s->num_requests() == 0) {
    HandOver(std::move(s->self_));
    return;
  }
  queue_.PushBack(s);
  stats_.accepted += s->num_requests();
  stats_.accepted_tokens += s->requests().num_tokens();
  stats_.queued_requests += s->num_requests();
  stats_.queued_tokens += s->requests().num_tokens();
  if (s->deadline_us() != kNever) {
    wheel_.Insert(s, now_us);
    if (s->deadline_us() < timekeeper_wakes_us_) {
      timekeeper_wakes_us_ = s->deadline_us();
      timekeeper_condition_.NotifyOne();
    }
  }
}

}  // namespace modelsat
