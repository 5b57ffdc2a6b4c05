#include "modelsat/request_queue.h"

namespace modelsat {

void RequestQueue::PushBack(Submission* submission) {
  List& list = lists_[submission->options_.priority - kMinPriority];
  submission->queue_previous_ = list.last;
  submission->queue_next_ = nullptr;
  (list.last != nullptr ? list.last->queue_next_ : list.first) = submission;
  list.last = submission;
  submission->in_queue_ = true;
  ++num_submissions_;
}

void RequestQueue::Remove(Submission* submission) {
  if (!submission->in_queue_) return;
  List& list = lists_[submission->options_.priority - kMinPriority];
  Submission* const previous = submission->queue_previous_;
  Submission* const next = submission->queue_next_;
  (previous != nullptr ? previous->queue_next_ : list.first) = next;
  (next != nullptr ? next->queue_previous_ : list.last) = previous;
  submission->in_queue_ = false;
  --num_submissions_;
}

bool RequestQueue::ServedBefore(const Submission& a, const Submission& b) const {
  const std::int64_t a_time_us = a.admitted_us_ - a.options_.priority * ageing_us_;
  const std::int64_t b_time_us = b.admitted_us_ - b.options_.priority * ageing_us_;
  return a_time_us != b_time_us ? a_time_us < b_time_us : a.sequence_ < b.sequence_;
}

Submission* RequestQueue::Front() const {
  Submission* front = nullptr;
  for (const List& list : lists_) {
    if (list.first != nullptr && (front == nullptr || ServedBefore(*list.first, *front))) {
      front = list.first;
    }
  }
  return front;
}

}  // namespace modelsat
