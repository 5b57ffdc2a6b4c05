// Counters and histograms of a scheduler, as one consistent copy.

#ifndef MODELSAT_STATS_H_
#define MODELSAT_STATS_H_

#include <array>
#include <cstdint>

#include "modelsat/status.h"

namespace modelsat {

// Counts of non-negative values in buckets that are exact up to 3 and at most 25 % wide above:
// four buckets per power of two. Record is a few instructions and never allocates.
class Histogram {
 public:
  static constexpr int kNumBuckets = 160;  // the last one starts above 10^12

  void Record(std::int64_t value, std::int64_t times = 1);

  std::int64_t count() const { return count_; }
  std::int64_t sum() const { return sum_; }
  std::int64_t max() const { return max_; }
  const std::array<std::int64_t, kNumBuckets>& buckets() const { return buckets_; }

  // The largest value that falls into `bucket`.
  static std::int64_t UpperBound(int bucket);

  // Upper bound of the bucket that holds the value of rank ceil(quantile * count), never above
  // max(); 0 when nothing was recorded. quantile is in (0, 1].
  std::int64_t Quantile(double quantile) const;

 private:
  static int BucketOf(std::int64_t value);

  std::array<std::int64_t, kNumBuckets> buckets_{};
  std::int64_t count_ = 0;
  std::int64_t sum_ = 0;
  std::int64_t max_ = 0;
};

struct SchedulerStats {
  // Now.
  std::int64_t queued_requests = 0;  // admitted, not handed to the executor; prefetched included
  std::int64_t queued_tokens = 0;
  std::int64_t prefetched_requests = 0;  // in the one batch that is formed ahead
  std::int64_t executing_requests = 0;
  std::int64_t unanswered_submissions = 0;

  // Since the start, in requests unless the name says otherwise.
  std::int64_t accepted = 0;
  std::int64_t accepted_tokens = 0;
  std::array<std::int64_t, kNumStatusCodes> rejected{};  // by StatusCode, at admission
  std::array<std::int64_t, kNumStatusCodes> answered{};  // by StatusCode, of the accepted ones
  std::int64_t late_in_queue = 0;                        // deadline passed before execution,
  std::int64_t late_in_execution = 0;                    // or while the executor had the request
  std::int64_t batches = 0;
  std::int64_t failed_batches = 0;

  Histogram batch_requests;
  Histogram batch_tokens;
  Histogram batch_fill_percent;  // of the tighter bound: tokens or requests
  Histogram queue_us;            // per request: admission to the start of its batch
  Histogram execute_us;          // per batch
};

}  // namespace modelsat

#endif  // MODELSAT_STATS_H_
