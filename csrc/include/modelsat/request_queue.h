// The waiting submissions: FIFO within a priority, and an order between priorities that ages.

#ifndef MODELSAT_REQUEST_QUEUE_H_
#define MODELSAT_REQUEST_QUEUE_H_

#include <array>
#include <cstdint>

#include "modelsat/submission.h"

namespace modelsat {

// A submission of priority p is served as if it had come p * ageing_us earlier than it did. So one
// level of priority is worth ageing_us of waiting, nothing starves, and since every submission ages
// at the same pace the order never has to be computed again: comparing the heads of the priority
// lists is enough. Every operation takes constant time. Nodes are not owned. Not thread-safe.
class RequestQueue {
 public:
  struct Work {
    std::int64_t requests = 0;
    std::int64_t tokens = 0;
  };

  explicit RequestQueue(std::int64_t ageing_us) : ageing_us_(ageing_us) {}

  bool empty() const { return num_submissions_ == 0; }
  void PushBack(Submission* submission);

  // Does nothing for a submission that is not in the queue.
  void Remove(Submission* submission);

  // Counts the next `count` requests of a submission in the queue as selected for a batch, and
  // removes it with its last one.
  void Select(Submission* submission, std::int32_t count);

  // The next one to serve; nullptr when the queue is empty.
  Submission* Front() const;

  // What would be served after a submission of `priority` that comes at `now_us`: never more than
  // that. A priority list counts as a whole, by its oldest submission.
  Work Behind(int priority, std::int64_t now_us) const;

 private:
  static constexpr int kNumPriorities = kMaxPriority - kMinPriority + 1;

  struct List {
    Submission* first = nullptr;
    Submission* last = nullptr;
    Work work;  // not selected yet
  };

  std::int64_t EffectiveTimeUs(std::int64_t admitted_us, int priority) const {
    return admitted_us - priority * ageing_us_;
  }

  bool ServedBefore(const Submission& a, const Submission& b) const;

  const std::int64_t ageing_us_;
  std::int64_t num_submissions_ = 0;
  std::array<List, kNumPriorities> lists_;
};

}  // namespace modelsat

#endif  // MODELSAT_REQUEST_QUEUE_H_
