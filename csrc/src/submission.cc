#include "modelsat/submission.h"

#include <chrono>
#include <utility>

namespace modelsat {

Submission::Submission(Batch requests, std::shared_ptr<const CandidateTable> table,
                       SubmitOptions options)
    : DeadlineNode(options.deadline_us),
      requests_(std::move(requests)),
      num_requests_(requests_.num_requests()),
      table_(std::move(table)),
      options_(std::move(options)),
      tail_begin_(num_requests_),
      probabilities_(static_cast<std::size_t>(num_requests_) * table_->num_candidates()),
      answers_(num_requests_),
      unwritten_(num_requests_) {}

void Submission::MarkDone() {
  MutexLock lock(&done_mutex_);
  done_.store(true, std::memory_order_release);
  done_condition_.NotifyAll();
}

void Submission::Wait() {
  MutexLock lock(&done_mutex_);
  while (!done()) done_condition_.Wait(&done_mutex_);
}

bool Submission::WaitForUs(std::int64_t timeout_us) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(timeout_us);
  MutexLock lock(&done_mutex_);
  while (!done() && std::chrono::steady_clock::now() < end) {
    done_condition_.WaitUntil(&done_mutex_, end);
  }
  return done();
}

}  // namespace modelsat
