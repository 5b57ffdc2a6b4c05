#include "modelsat/stats.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace modelsat {
namespace {

TEST(HistogramTest, AnEmptyHistogramHasZeroQuantiles) {
  EXPECT_EQ(Histogram().Quantile(0.99), 0);
  EXPECT_EQ(Histogram().max(), 0);
}

TEST(HistogramTest, SmallValuesAreExact) {
  Histogram histogram;
  for (const int value : {0, 1, 2, 3}) histogram.Record(value);
  EXPECT_EQ(histogram.Quantile(0.25), 0);
  EXPECT_EQ(histogram.Quantile(0.5), 1);
  EXPECT_EQ(histogram.Quantile(1.0), 3);
}

TEST(HistogramTest, BucketsFollowOneAnotherWithoutGaps) {
  for (int bucket = 1; bucket < Histogram::kNumBuckets - 1; ++bucket) {
    ASSERT_LT(Histogram::UpperBound(bucket - 1), Histogram::UpperBound(bucket)) << bucket;
    Histogram histogram;
    histogram.Record(Histogram::UpperBound(bucket));
    histogram.Record(Histogram::UpperBound(bucket - 1) + 1);
    EXPECT_EQ(histogram.buckets()[bucket], 2) << bucket;
  }
}

TEST(HistogramTest, QuantilesAreAtMostAQuarterTooHigh) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  std::vector<std::int64_t> values;
  Histogram histogram;
  for (int i = 0; i < 10'007; ++i) {
    values.push_back(static_cast<std::int64_t>(random() % (std::uint64_t{1} << (random() % 30))));
    histogram.Record(values.back());
  }
  std::sort(values.begin(), values.end());
  for (const double quantile : {0.01, 0.5, 0.9, 0.999}) {
    const std::int64_t exact = values[static_cast<std::size_t>(quantile * 10'007)];
    EXPECT_GE(histogram.Quantile(quantile),
              values[static_cast<std::size_t>(quantile * 10'006)] - 1);
    EXPECT_LE(histogram.Quantile(quantile), exact + exact / 4 + 1);
  }
  EXPECT_EQ(histogram.Quantile(1.0), values.back());
}

TEST(HistogramTest, ValuesBeyondTheLastBucketKeepTheirMaximum) {
  Histogram histogram;
  histogram.Record(std::int64_t{1} << 50, 3);
  EXPECT_EQ(histogram.count(), 3);
  EXPECT_EQ(histogram.Quantile(1.0), histogram.Quantile(0.5));
  EXPECT_EQ(histogram.max(), std::int64_t{1} << 50);
}

}  // namespace
}  // namespace modelsat
