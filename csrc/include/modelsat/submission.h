// A list of requests that is admitted whole or not at all, and the place of their answers.

#ifndef MODELSAT_SUBMISSION_H_
#define MODELSAT_SUBMISSION_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "modelsat/batch.h"
#include "modelsat/candidate_table.h"
#include "modelsat/clock.h"
#include "modelsat/deadline_wheel.h"
#include "modelsat/mutex.h"
#include "modelsat/status.h"

namespace modelsat {

class Submission;

// Where finished submissions go. One sink serves many submissions.
class CompletionSink {
 public:
  virtual ~CompletionSink() = default;

  // Receives everything of this sink that finished together, at most once per batch. Runs on a
  // thread of the scheduler or on the one that called Cancel or Close, with no lock held. Must
  // return quickly and not throw.
  virtual void Deliver(std::vector<std::shared_ptr<Submission>> finished) noexcept = 0;
};

inline constexpr int kMinPriority = -3;
inline constexpr int kMaxPriority = 3;

struct SubmitOptions {
  int priority = 0;                   // kMinPriority .. kMaxPriority; higher is served earlier
  std::int64_t deadline_us = kNever;  // in the scheduler's clock; covers every request of the list
  std::shared_ptr<CompletionSink> sink;  // may be empty: then poll done() or call Wait()
};

// The outcome of one request.
struct Answer {
  StatusCode code = StatusCode::kOk;
  std::int64_t queue_us = 0;  // from admission to the start of its batch, or to its end without one
  std::int64_t execute_us = 0;  // of its batch; 0 when it was in none
};

// Created by the caller, answered by a scheduler. The results may be read once done() is true.
class Submission : private DeadlineNode {
 public:
  // The requests are the instructions of `requests`; `table` must not be null.
  Submission(Batch requests, std::shared_ptr<const CandidateTable> table, SubmitOptions options);
  virtual ~Submission() = default;
  Submission(const Submission&) = delete;
  Submission& operator=(const Submission&) = delete;

  const Batch& requests() const { return requests_; }
  std::int32_t num_requests() const { return num_requests_; }  // N
  const std::shared_ptr<const CandidateTable>& table() const { return table_; }
  const SubmitOptions& options() const { return options_; }

  // True when every request is answered.
  bool done() const { return done_.load(std::memory_order_acquire); }

  // Blocks until done(). Only for a submission that a scheduler accepted.
  void Wait();

  // The same for at most `timeout_us` of real time; returns done().
  bool WaitForUs(std::int64_t timeout_us);

  // Probabilities float32 [N, M], row-major; the row of a request that failed is zero.
  const std::vector<float>& probabilities() const { return probabilities_; }
  Answer answer(std::int32_t request) const {
    return request < tail_begin_ ? answers_[request] : tail_;
  }
  // Ok when every request is, otherwise the first failure with its message.
  const Status& status() const { return status_; }

 private:
  friend class SchedulerState;
  friend class RequestQueue;

  void MarkDone();

  const Batch requests_;
  const std::int32_t num_requests_;
  const std::shared_ptr<const CandidateTable> table_;
  const SubmitOptions options_;

  // Guarded by the scheduler's mutex until done. Requests are answered in order:
  //   [0, resolved) answered one by one, [resolved, taken) at the executor,
  //   [taken, selected) in the prefetched batch, [selected, tail_begin) in the queue,
  //   [tail_begin, N) answered together by tail_ (cancelled, late or shut down).
  std::int32_t resolved_ = 0;
  std::int32_t taken_ = 0;
  std::int32_t selected_ = 0;
  std::int32_t tail_begin_;
  std::int64_t admitted_us_ = 0;
  std::uint64_t sequence_ = 0;
  Submission* queue_previous_ = nullptr;
  Submission* queue_next_ = nullptr;
  bool in_queue_ = false;
  std::shared_ptr<Submission> self_;  // set while the scheduler owes answers

  // Written by the thread that resolved the request, read after done().
  std::vector<float> probabilities_;  // [N, M]
  std::vector<Answer> answers_;       // [N]
  Answer tail_;
  Status status_;

  // Requests whose answer is not completely written; the thread that brings it to 0 delivers.
  std::atomic<std::int32_t> unwritten_;
  std::atomic<bool> done_{false};
  Mutex done_mutex_;
  CondVar done_condition_;
};

}  // namespace modelsat

#endif  // MODELSAT_SUBMISSION_H_
