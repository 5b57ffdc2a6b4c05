#include "modelsat/service_estimate.h"

#include <algorithm>

namespace modelsat {
namespace {

// Groups whose sizes differ by less say nothing about a slope.
constexpr double kLeastSpread = 1.25;

}  // namespace

void ServiceEstimate::Record(std::int64_t rows, std::int64_t execute_us) {
  samples_[num_samples_ % kNumSamples] = {static_cast<double>(std::max<std::int64_t>(rows, 1)),
                                          static_cast<double>(execute_us)};
  ++num_samples_;
  if (num_samples_ < kFirstUse) return;
  if (num_samples_ <= kNumSamples || num_samples_ % kFitEvery == 0) Fit();
}

void ServiceEstimate::Fit() {
  const std::size_t n = std::min(num_samples_, kNumSamples);
  std::array<Sample, kNumSamples> sorted = samples_;
  std::sort(sorted.begin(), sorted.begin() + n,
            [](const Sample& a, const Sample& b) { return a.rows < b.rows; });

  std::array<double, kNumSamples> values;
  const auto median = [&](std::size_t first, std::size_t last, auto value_of) {
    std::transform(sorted.begin() + first, sorted.begin() + last, values.begin(), value_of);
    const auto middle = values.begin() + (last - first) / 2;
    std::nth_element(values.begin(), middle, values.begin() + (last - first));
    return *middle;
  };
  const auto rows = [](const Sample& sample) { return sample.rows; };
  const auto us = [](const Sample& sample) { return sample.us; };

  const std::size_t third = std::max<std::size_t>(n / 3, 1);
  const double small_rows = median(0, third, rows);
  const double large_rows = median(n - third, n, rows);
  const double small_us = median(0, third, us);
  const double large_us = median(n - third, n, us);
  if (large_rows > kLeastSpread * small_rows && large_us > small_us) {
    us_per_row_ = (large_us - small_us) / (large_rows - small_rows);
    fixed_us_ = median(0, n, [&](const Sample& s) { return s.us - us_per_row_ * s.rows; });
  } else {
    fixed_us_ = -1;
  }
  // All batches alike, or a line through negative times: then time is in proportion to the rows,
  // which for a larger batch is too much rather than too little.
  if (fixed_us_ < 0) {
    fixed_us_ = 0;
    us_per_row_ = median(0, n, [](const Sample& s) { return s.us / s.rows; });
  }

  std::transform(sorted.begin(), sorted.begin() + n, values.begin(), [&](const Sample& s) {
    return s.us / std::max(fixed_us_ + us_per_row_ * s.rows, 1.0);
  });
  std::sort(values.begin(), values.begin() + n);
  cautious_ = std::max(values[n - 1 - n / 10], 1.0);
  fastest_ = std::min(values[0], 1.0);
}

void ServiceEstimate::Doubt() {
  fixed_us_ *= 0.875;
  us_per_row_ *= 0.875;
}

std::int64_t ServiceEstimate::LineUs(std::int64_t batches, std::int64_t rows, double factor) const {
  if (!known()) return 0;
  return static_cast<std::int64_t>(factor * (fixed_us_ * static_cast<double>(batches) +
                                             us_per_row_ * static_cast<double>(rows)));
}

std::int64_t ServiceEstimate::TypicalUs(std::int64_t batches, std::int64_t rows) const {
  return LineUs(batches, rows, 1);
}

std::int64_t ServiceEstimate::CautiousUs(std::int64_t batches, std::int64_t rows) const {
  return LineUs(batches, rows, cautious_);
}

std::int64_t ServiceEstimate::FastestUs(std::int64_t batches, std::int64_t rows) const {
  return LineUs(batches, rows, fastest_);
}

}  // namespace modelsat
