#include "modelsat/request_queue.h"

namespace modelsat {

void RequestQueue::PushBack(Submission* submission) {
  List& list = lists_[submission->options_.priority - kMinPriority];
  submission->queue_previous_ = list.last;
  submission->queue_next_ = nullptr;
  (list.last != nullptr ? list.last->queue_next_ : list.first) = submission;
  list.last = submission;
  list.work.requests += submission->num_requests();
  list.work.tokens += submission->requests().num_tokens();
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
  const std::int32_t left = submission->num_requests() - submission->selected_;
  list.work.requests -= left;
  list.work.tokens -= submission->requests().TokensOf(submission->selected_, left);
  submission->in_queue_ = false;
  --num_submissions_;
}

void RequestQueue::Select(Submission* submission, std::int32_t count) {
  List& list = lists_[submission->options_.priority - kMinPriority];
  list.work.requests -= count;
  list.work.tokens -= submission->requests().TokensOf(submission->selected_, count);
  submission->selected_ += count;
  if (submission->selected_ == submission->num_requests()) Remove(submission);
}

bool RequestQueue::ServedBefore(const Submission& a, const Submission& b) const {
  const std::int64_t a_time_us = EffectiveTimeUs(a.admitted_us_, a.options_.priority);
  const std::int64_t b_time_us = EffectiveTimeUs(b.admitted_us_, b.options_.priority);
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

RequestQueue::Work RequestQueue::Behind(int priority, std::int64_t now_us) const {
  Work behind;
  for (const List& list : lists_) {
    if (list.first == nullptr) continue;
    const std::int64_t first_us =
        EffectiveTimeUs(list.first->admitted_us_, list.first->options_.priority);
    if (first_us <= EffectiveTimeUs(now_us, priority)) continue;
    behind.requests += list.work.requests;
    behind.tokens += list.work.tokens;
  }
  return behind;
}

}  // namespace modelsat
