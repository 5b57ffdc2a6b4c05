#include "modelsat/stats.h"

#include <algorithm>
#include <cmath>

namespace modelsat {
namespace {

// Position of the highest set bit; value must be positive.
int HighestBit(std::int64_t value) {
  int bit = 0;
  while (value >>= 1) ++bit;
  return bit;
}

}  // namespace

int Histogram::BucketOf(std::int64_t value) {
  if (value < 4) return static_cast<int>(std::max<std::int64_t>(value, 0));
  const int exponent = HighestBit(value);  // at least 2
  const int quarter = static_cast<int>(value >> (exponent - 2)) & 3;
  return std::min(4 * (exponent - 1) + quarter, kNumBuckets - 1);
}

std::int64_t Histogram::UpperBound(int bucket) {
  if (bucket < 4) return bucket;
  const int exponent = bucket / 4 + 1;
  const std::int64_t quarter = bucket % 4;
  return ((quarter + 5) << (exponent - 2)) - 1;
}

void Histogram::Record(std::int64_t value, std::int64_t times) {
  buckets_[BucketOf(value)] += times;
  count_ += times;
  sum_ += value * times;
  max_ = std::max(max_, value);
}

std::int64_t Histogram::Quantile(double quantile) const {
  if (count_ == 0) return 0;
  const auto rank = static_cast<std::int64_t>(std::ceil(quantile * static_cast<double>(count_)));
  std::int64_t seen = 0;
  for (int bucket = 0; bucket < kNumBuckets - 1; ++bucket) {
    seen += buckets_[bucket];
    if (seen >= rank) return std::min(UpperBound(bucket), max_);
  }
  return max_;
}

}  // namespace modelsat
