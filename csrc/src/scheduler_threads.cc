// The three threads of a scheduler: executor, assistant, timekeeper.

#include <algorithm>
#include <exception>
#include <string>
#include <utility>
#if defined(__GLIBCXX__)
#include <cxxabi.h>
#endif

#include "scheduler_state.h"

namespace modelsat {

// ----------------------------------------------------------------------------------- Executor

void SchedulerState::RunExecutor() {
  for (;;) {
    FormingBatch batch;
    {
      MutexLock lock(&mutex_);
      for (;;) {
        if (prefetch_ != Prefetch::kPacking) {
          const std::int64_t now_us = clock_->NowUs();
          Expire(now_us);
          Take(&batch, now_us);
          if (!batch.slices.empty()) break;
          if (closed_) {
            executor_ended_ = true;
            assistant_condition_.NotifyOne();
            timekeeper_condition_.NotifyOne();
            return;
          }
        }
        executor_waits_ = true;
        executor_condition_.Wait(&mutex_);
        executor_waits_ = false;
      }
    }
    Execute(&batch);
  }
}

// Adds waiting requests to the batch in the order of service, until the next one does not fit or
// has another candidate table: overtaking would break FIFO. `start_us` is when the batch is
// expected to start.
void SchedulerState::Select(FormingBatch* batch, std::int64_t now_us, std::int64_t start_us) {
  while (Submission* s = queue_.Front()) {
    // Unless a part of it stands in a batch that has not started.
    if (s->selected_ == s->taken_ && DropIfHopeless(s, s->selected_, now_us)) continue;
    if (batch->table != nullptr && batch->table != s->table()) return;
    const std::vector<std::int32_t>& cu_seqlens = s->requests().cu_seqlens();
    const std::int64_t last_token =
        std::int64_t{cu_seqlens[s->selected_]} + limits_.max_batch_tokens - batch->num_tokens;
    const auto fits_end =
        std::upper_bound(cu_seqlens.begin() + s->selected_ + 1, cu_seqlens.end(), last_token);
    const std::int32_t fits = std::min<std::int32_t>(
        static_cast<std::int32_t>(fits_end - cu_seqlens.begin()) - 1 - s->selected_,
        limits_.max_batch_requests - batch->num_requests);
    if (fits == 0) return;
    if (batch->deadline_us != kNever && options_.deadline_margin > 0) {
      const std::int64_t rows = batch->num_rows() + s->requests().TokensOf(s->selected_, fits) +
                                std::int64_t{fits} * s->table()->num_candidates();
      if (start_us + estimate_.CautiousUs(1, rows) > batch->deadline_us) return;
    }
    batch->Add({s->self_, s->selected_, fits});
    queue_.Select(s, fits);
  }
}

// Answers what no executor has seen of a submission as late if even a fast one would not finish its
// requests from `first` on by its deadline, were they to start now; returns whether it did.
bool SchedulerState::DropIfHopeless(Submission* s, std::int32_t first, std::int64_t now_us) {
  if (s->deadline_us() == kNever || options_.deadline_margin <= 0) return false;
  const std::int32_t count = s->num_requests() - first;
  const std::int64_t tokens = s->requests().TokensOf(first, count);
  const std::int64_t rows = tokens + std::int64_t{count} * s->table()->num_candidates();
  if (now_us + estimate_.FastestUs(NumBatches(count, tokens), rows) <= s->deadline_us()) {
    return false;
  }
  if (stats_.executing_requests == 0) estimate_.Doubt();
  Fail(s, s->taken_,
       Status(StatusCode::kDeadlineExceeded,
              "the deadline can no longer be met; allow more time or less load"),
       now_us);
  return true;
}

// Moves the prefetched batch, less what was answered meanwhile and plus what came meanwhile, to the
// executor. Leaves `batch` empty when nothing waits.
void SchedulerState::Take(FormingBatch* batch, std::int64_t now_us) {
  const auto answered = [](const Slice& slice) {
    return slice.first >= slice.submission->tail_begin_;
  };
  for (const Slice& slice : prefetched_.slices) {
    if (!answered(slice)) DropIfHopeless(slice.submission.get(), slice.first, now_us);
  }
  FormingBatch prefetched = std::exchange(prefetched_, FormingBatch());
  prefetch_ = Prefetch::kNone;
  stats_.prefetched_requests = 0;
  if (std::none_of(prefetched.slices.begin(), prefetched.slices.end(), answered)) {
    *batch = std::move(prefetched);
  } else {  // packed again without them, so that the executor does no work that nobody wants
    for (Slice& slice : prefetched.slices) {
      if (!answered(slice)) batch->Add(std::move(slice));
    }
  }

  Select(batch, now_us, now_us);
  running_until_us_ = now_us + estimate_.TypicalUs(1, batch->num_rows());
  for (const Slice& slice : batch->slices) slice.submission->taken_ = slice.first + slice.count;
  stats_.queued_requests -= batch->num_requests;
  stats_.queued_tokens -= batch->num_tokens;
  stats_.executing_requests = batch->num_requests;
  if (batch->num_requests > 0 && !queue_.empty()) WakeAssistant();
}

Status SchedulerState::Score(FormingBatch* batch) {
  const auto failed = [](const char* what) {
    return Status(StatusCode::kExecutorError, std::string("the executor failed: ") + what);
  };
  try {
    batch->Pack();
    const std::size_t num_candidates = batch->table->num_candidates();
    probabilities_.resize(batch->num_requests * num_candidates);
    return executor_->Score(*batch->packed, *batch->table, probabilities_.data());
  } catch (const std::exception& error) {
    return failed(error.what());
#if defined(__GLIBCXX__)
  } catch (const abi::__forced_unwind&) {  // the thread is being ended; glibc wants it passed on
    throw;
#endif
  } catch (...) {
    return failed("it threw something that is no std::exception");
  }
}

void SchedulerState::Execute(FormingBatch* batch) {
  const std::int64_t start_us = clock_->NowUs();
  const Status status = Score(batch);
  const std::int64_t end_us = clock_->NowUs();
  const std::int64_t execute_us = end_us - start_us;
  const StatusCode code = status.code();

  // Decide under the lock which requests this batch answers; the others were answered meanwhile,
  // and late ones are answered as such here if the timekeeper has not come to it.
  std::vector<Slice> resolved;
  std::vector<std::int32_t> rows;
  bool busy;
  {
    MutexLock lock(&mutex_);
    Expire(end_us);
    std::int32_t row = 0;
    for (Slice& slice : batch->slices) {
      Submission* const s = slice.submission.get();
      const std::int32_t first_row = std::exchange(row, row + slice.count);
      if (s->resolved_ != slice.first || slice.first >= s->tail_begin_) continue;
      s->resolved_ += slice.count;
      const Answer answer{code, start_us - s->admitted_us_, execute_us};
      std::fill_n(s->answers_.begin() + slice.first, slice.count, answer);
      if (!status.ok() && s->status_.ok()) s->status_ = status;
      if (s->resolved_ >= s->tail_begin_) wheel_.Remove(s);
      stats_.answered[static_cast<int>(code)] += slice.count;
      stats_.queue_us.Record(answer.queue_us, slice.count);
      rows.push_back(first_row);
      resolved.push_back(std::move(slice));
    }
    ++stats_.batches;
    if (!status.ok()) ++stats_.failed_batches;
    stats_.executing_requests = 0;
    if (status.ok()) estimate_.Record(batch->num_rows(), execute_us);
    stats_.execute_us.Record(execute_us);
    stats_.batch_requests.Record(batch->num_requests);
    stats_.batch_tokens.Record(batch->num_tokens);
    stats_.batch_fill_percent.Record(
        std::max(std::int64_t{100} * batch->num_tokens / limits_.max_batch_tokens,
                 std::int64_t{100} * batch->num_requests / limits_.max_batch_requests));
    busy = prefetch_ != Prefetch::kNone || !queue_.empty();
  }

  Finished finished;
  for (std::size_t i = 0; i < resolved.size(); ++i) {
    Submission* const s = resolved[i].submission.get();
    const std::size_t num_candidates = batch->table->num_candidates();
    if (status.ok()) {
      std::copy_n(probabilities_.data() + rows[i] * num_candidates,
                  resolved[i].count * num_candidates,
                  s->probabilities_.data() + resolved[i].first * num_candidates);
    }
    if (s->unwritten_.fetch_sub(resolved[i].count, std::memory_order_acq_rel) ==
        resolved[i].count) {
      finished.push_back(std::move(s->self_));
    }
  }
  if (finished.empty()) return;
  if (!busy) {
    Deliver(std::move(finished));
    return;
  }
  // With work waiting the executor should be in Score, not waking clients.
  MutexLock lock(&mutex_);
  for (auto& submission : finished) HandOver(std::move(submission));
}

// ---------------------------------------------------------------------------------- Assistant

void SchedulerState::RunAssistant() {
  MutexLock lock(&mutex_);
  for (;;) {
    if (!handed_over_.empty()) {
      Finished finished = std::exchange(handed_over_, Finished());
      lock.Unlock();
      Deliver(std::move(finished));
      lock.Lock();
    } else if (stats_.executing_requests > 0 && prefetch_ == Prefetch::kNone && !queue_.empty()) {
      FormingBatch batch;
      const std::int64_t now_us = clock_->NowUs();
      Select(&batch, now_us, std::max(now_us, running_until_us_));
      stats_.prefetched_requests = batch.num_requests;
      // Kept here too while it is packed, so that Close finds what left the queue.
      prefetched_.slices = batch.slices;
      prefetch_ = Prefetch::kPacking;
      lock.Unlock();
      batch.Pack();
      lock.Lock();
      prefetched_ = std::move(batch);
      prefetch_ = Prefetch::kReady;
      if (executor_waits_) executor_condition_.NotifyOne();
    } else if (executor_ended_) {
      return;
    } else {
      assistant_waits_ = true;
      assistant_condition_.Wait(&mutex_);
      assistant_waits_ = false;
    }
  }
}

// --------------------------------------------------------------------------------- Timekeeper

void SchedulerState::RunTimekeeper() {
  MutexLock lock(&mutex_);
  while (!executor_ended_) {
    Expire(clock_->NowUs());
    timekeeper_wakes_us_ = wheel_.NextWakeUs();
    clock_->WaitUntil(&timekeeper_condition_, &mutex_, timekeeper_wakes_us_);
  }
}

}  // namespace modelsat
