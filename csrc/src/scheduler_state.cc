// Answers without an executor (deadline, cancel, close), life cycle.

#include "scheduler_state.h"

#include <algorithm>
#include <string>
#include <utility>

namespace modelsat {
namespace {

ExecutorLimits Tighter(const SchedulerOptions& options, ExecutorLimits limits) {
  if (options.max_batch_requests > 0) {
    limits.max_batch_requests = std::min(limits.max_batch_requests, options.max_batch_requests);
  }
  if (options.max_batch_tokens > 0) {
    limits.max_batch_tokens = std::min(limits.max_batch_tokens, options.max_batch_tokens);
  }
  limits.max_instruction_tokens = std::min(limits.max_instruction_tokens, limits.max_batch_tokens);
  return limits;
}

}  // namespace

Status ShuttingDown() {
  return Status(StatusCode::kShuttingDown,
                "the scheduler is shutting down; no request is accepted");
}

SchedulerState::SchedulerState(std::shared_ptr<Executor> executor, const SchedulerOptions& options,
                               Clock* clock)
    : executor_(std::move(executor)),
      options_(options),
      limits_(Tighter(options, executor_->limits())),
      clock_(clock),
      queue_(options.ageing_us) {}

SchedulerState::~SchedulerState() {
  // Still joinable only if the last owner was one of these threads: they are at their ends.
  MutexLock lock(&join_mutex_);
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.detach();
  }
}

void SchedulerState::Start() {
  MutexLock lock(&join_mutex_);
  const auto self = shared_from_this();
  // Reserved, so that a started thread is never lost to a failing allocation.
  threads_.reserve(3);
  thread_ids_.reserve(3);
  try {
    threads_.emplace_back([self] { self->RunExecutor(); });
    threads_.emplace_back([self] { self->RunAssistant(); });
    threads_.emplace_back([self] { self->RunTimekeeper(); });
  } catch (...) {
    lock.Unlock();
    Close();
    throw;
  }
  for (const std::thread& thread : threads_) thread_ids_.push_back(thread.get_id());
}

// ------------------------------------------------------------------------------------ Answers

bool SchedulerState::Cancel(const std::shared_ptr<Submission>& submission) {
  if (fork_guard_.forked()) return false;
  MutexLock lock(&mutex_);
  Submission* const s = submission.get();
  if (s->sequence_ == 0 || s->resolved_ >= s->tail_begin_) return false;
  Fail(s, s->resolved_, Status(StatusCode::kCancelled, "the request was cancelled"),
       clock_->NowUs());
  return true;
}

void SchedulerState::Expire(std::int64_t now_us) {
  while (DeadlineNode* node = wheel_.PopExpired(now_us)) {
    Submission* const s = static_cast<Submission*>(node);
    const bool in_execution = s->taken_ > s->resolved_;
    Fail(s, s->resolved_,
         Status(StatusCode::kDeadlineExceeded,
                in_execution ? "the deadline passed during execution"
                             : "the deadline passed in the queue; allow more time or less load"),
         now_us);
  }
}

// Answers requests [begin, tail_begin_) of the submission, where begin is resolved_ (everything
// that is unanswered) or taken_ (everything that no executor has seen). Frees their queue places.
void SchedulerState::Fail(Submission* s, std::int32_t begin, const Status& status,
                          std::int64_t now_us) {
  const std::int32_t end = s->tail_begin_;
  const std::int32_t waiting = std::max(end - s->taken_, 0);
  if (waiting > 0) {
    stats_.queued_requests -= waiting;
    stats_.queued_tokens -= s->requests().TokensOf(s->taken_, waiting);
    stats_.prefetched_requests -= s->selected_ - s->taken_;
    queue_.Remove(s);
  }
  const std::int32_t count = end - begin;
  if (count <= 0) return;  // all of it was answered while a batch held it
  stats_.answered[static_cast<int>(status.code())] += count;
  if (status.code() == StatusCode::kDeadlineExceeded) {
    stats_.late_in_queue += waiting;
    stats_.late_in_execution += count - waiting;
  }
  const Answer answer{status.code(), now_us - s->admitted_us_, 0};
  if (end == s->num_requests()) {
    s->tail_ = answer;
    s->tail_begin_ = begin;
  } else {  // the tail is answered already (Close), what is left is at the executor
    std::fill(s->answers_.begin() + begin, s->answers_.begin() + end, answer);
    s->resolved_ = end;
  }
  if (s->resolved_ >= s->tail_begin_) wheel_.Remove(s);
  if (s->status_.ok()) s->status_ = status;
  if (s->unwritten_.fetch_sub(count, std::memory_order_acq_rel) == count) {
    HandOver(std::move(s->self_));
  }
}

void SchedulerState::HandOver(std::shared_ptr<Submission> finished) {
  handed_over_.push_back(std::move(finished));
  WakeAssistant();
}

void SchedulerState::Deliver(Finished finished) {
  const std::int64_t count = static_cast<std::int64_t>(finished.size());
  for (const auto& submission : finished) submission->MarkDone();
  // One call per sink; order within a sink is kept.
  const auto sink_of = [](const std::shared_ptr<Submission>& submission) {
    return submission->options().sink.get();
  };
  std::stable_sort(finished.begin(), finished.end(), [&](const auto& a, const auto& b) {
    return std::less<CompletionSink*>()(sink_of(a), sink_of(b));
  });
  for (auto begin = finished.begin(); begin != finished.end();) {
    const std::shared_ptr<CompletionSink> sink = (*begin)->options().sink;
    const auto end = std::find_if(begin, finished.end(),
                                  [&](const auto& other) { return sink_of(other) != sink.get(); });
    if (sink != nullptr) {
      sink->Deliver(Finished(std::make_move_iterator(begin), std::make_move_iterator(end)));
    }
    begin = end;
  }
  MutexLock lock(&mutex_);
  stats_.unanswered_submissions -= count;
  if (stats_.unanswered_submissions == 0) idle_condition_.NotifyAll();
}

void SchedulerState::WakeAssistant() {
  if (!assistant_waits_) return;
  assistant_waits_ = false;
  assistant_condition_.NotifyOne();
}

// --------------------------------------------------------------------------------- Life cycle

bool SchedulerState::Drain(std::int64_t time_us) {
  if (fork_guard_.forked()) return false;
  MutexLock lock(&mutex_);
  draining_ = true;
  while (stats_.unanswered_submissions > 0 && clock_->NowUs() < time_us) {
    clock_->WaitUntil(&idle_condition_, &mutex_, time_us);
  }
  return stats_.unanswered_submissions == 0;
}

void SchedulerState::Close() {
  if (fork_guard_.forked()) return;
  {
    MutexLock lock(&mutex_);
    if (!closed_) {
      closed_ = true;
      const std::int64_t now_us = clock_->NowUs();
      // What is selected for the prefetched batch but no longer in the queue comes first.
      for (const Slice& slice : prefetched_.slices) {
        Fail(slice.submission.get(), slice.submission->taken_, ShuttingDown(), now_us);
      }
      while (Submission* s = queue_.Front()) Fail(s, s->taken_, ShuttingDown(), now_us);
      executor_condition_.NotifyOne();
    }
  }
  const auto this_thread = std::this_thread::get_id();
  if (std::find(thread_ids_.begin(), thread_ids_.end(), this_thread) != thread_ids_.end()) return;
  MutexLock lock(&join_mutex_);
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

SchedulerStats SchedulerState::Stats() {
  if (fork_guard_.forked()) return SchedulerStats();
  MutexLock lock(&mutex_);
  return stats_;
}

}  // namespace modelsat
