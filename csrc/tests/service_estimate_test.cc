#include "modelsat/service_estimate.h"

#include <gtest/gtest.h>

#include <random>

namespace modelsat {
namespace {

constexpr std::int64_t kFixedUs = 300;
constexpr std::int64_t kUsPerRow = 7;

// Batches of 10 to 500 rows whose time lies on a line.
void RecordLine(ServiceEstimate* estimate, int count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<std::int64_t> rows(10, 500);
  for (int i = 0; i < count; ++i) {
    const std::int64_t n = rows(random);
    estimate->Record(n, kFixedUs + kUsPerRow * n);
  }
}

TEST(ServiceEstimateTest, NothingIsKnownBeforeAFewBatches) {
  ServiceEstimate estimate;
  for (int i = 0; i < 3; ++i) estimate.Record(17, 1000);
  EXPECT_FALSE(estimate.known());
  EXPECT_EQ(estimate.TypicalUs(1, 17), 0);
  estimate.Record(17, 1000);
  EXPECT_TRUE(estimate.known());
  EXPECT_EQ(estimate.TypicalUs(1, 17), 1000);
}

TEST(ServiceEstimateTest, FindsTheCostOfABatchAndOfARow) {
  constexpr unsigned kSeed = 31;
  ServiceEstimate estimate;
  RecordLine(&estimate, 40, kSeed);
  EXPECT_NEAR(estimate.TypicalUs(1, 0), kFixedUs, 2) << "seed " << kSeed;
  EXPECT_NEAR(estimate.TypicalUs(0, 1000), 1000 * kUsPerRow, 20) << "seed " << kSeed;
  EXPECT_NEAR(estimate.CautiousUs(3, 1000), 3 * kFixedUs + 1000 * kUsPerRow, 30);
  EXPECT_NEAR(estimate.FastestUs(3, 1000), 3 * kFixedUs + 1000 * kUsPerRow, 30);
}

TEST(ServiceEstimateTest, BatchesAllAlikeAreTakenInProportion) {
  ServiceEstimate estimate;
  for (int i = 0; i < 9; ++i) estimate.Record(50, 1000);
  EXPECT_EQ(estimate.TypicalUs(1, 50), 1000);
  EXPECT_EQ(estimate.TypicalUs(1, 500), 10'000);
}

TEST(ServiceEstimateTest, OneStalledBatchMovesNothing) {
  ServiceEstimate estimate;
  RecordLine(&estimate, 24, 5);
  const std::int64_t before_us = estimate.CautiousUs(1, 100);
  estimate.Record(100, 1'000'000);
  RecordLine(&estimate, 7, 6);
  EXPECT_NEAR(estimate.TypicalUs(1, 100), kFixedUs + 100 * kUsPerRow, 100);
  EXPECT_NEAR(estimate.CautiousUs(1, 100), before_us, 100);
}

TEST(ServiceEstimateTest, CautionIsTheSlowTenthAndHopeTheFastest) {
  ServiceEstimate estimate;
  for (int i = 0; i < 32; ++i) {
    estimate.Record(100, i % 4 == 0 ? 2000 : i % 8 == 1 ? 800 : 1000);
  }
  EXPECT_EQ(estimate.TypicalUs(1, 100), 1000);
  EXPECT_EQ(estimate.CautiousUs(1, 100), 2000);
  EXPECT_EQ(estimate.FastestUs(1, 100), 800);
}

TEST(ServiceEstimateTest, AMachineThatSlowsDownIsFollowed) {
  ServiceEstimate estimate;
  for (int i = 0; i < 32; ++i) estimate.Record(100, 1000);
  for (int i = 0; i < 32; ++i) estimate.Record(100, 3000);
  EXPECT_EQ(estimate.TypicalUs(1, 100), 3000);
}

TEST(ServiceEstimateTest, DoubtLowersEveryFigureUntilABatchTellsMore) {
  ServiceEstimate estimate;
  for (int i = 0; i < 5; ++i) estimate.Record(100, 8000);
  estimate.Doubt();
  EXPECT_EQ(estimate.TypicalUs(1, 100), 7000);
  EXPECT_EQ(estimate.FastestUs(1, 100), 7000);
  estimate.Record(100, 8000);
  EXPECT_EQ(estimate.TypicalUs(1, 100), 8000);
}

TEST(ServiceEstimateTest, BatchesThatTakeNoTimeDivideByNothing) {
  ServiceEstimate estimate;
  for (int i = 0; i < 40; ++i) estimate.Record(i % 3, 0);
  EXPECT_EQ(estimate.CautiousUs(2, 1000), 0);
}

}  // namespace
}  // namespace modelsat
