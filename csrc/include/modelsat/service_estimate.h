// How long the executor will take, learnt from the batches it ran last.

#ifndef MODELSAT_SERVICE_ESTIMATE_H_
#define MODELSAT_SERVICE_ESTIMATE_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace modelsat {

// Time of a batch = fixed_us + us_per_row * rows, where the rows of a batch are its tokens and one
// inquiry row per instruction and candidate. The line is Tukey's resistant line (Exploratory Data
// Analysis, 1977, chapter 5): the slope between the medians of the small and of the large batches,
// so that one batch that hit a page fault or lost its processor does not move it. The last 32
// batches count, so it follows a machine that slows down. Not thread-safe.
class ServiceEstimate {
 public:
  // `rows` and `execute_us` of a batch that ran. Amortised well under a microsecond.
  void Record(std::int64_t rows, std::int64_t execute_us);

  // False until a few batches have run; every time below is 0 until then.
  bool known() const { return num_samples_ >= kFirstUse; }

  // Time of `batches` batches that hold `rows` rows together, in microseconds: as the line says;
  // longer than what nine of ten recent batches took by that line; and as the fastest of them.
  std::int64_t TypicalUs(std::int64_t batches, std::int64_t rows) const;
  std::int64_t CautiousUs(std::int64_t batches, std::int64_t rows) const;
  std::int64_t FastestUs(std::int64_t batches, std::int64_t rows) const;

  // Lowers every figure by an eighth: called when work was turned away on the word of this estimate
  // while the executor stood still, since then no batch would ever correct it.
  void Doubt();

 private:
  static constexpr std::size_t kNumSamples = 32;
  static constexpr std::size_t kFirstUse = 4;
  static constexpr std::size_t kFitEvery = 8;

  struct Sample {
    double rows;
    double us;
  };

  void Fit();
  std::int64_t LineUs(std::int64_t batches, std::int64_t rows, double factor) const;

  std::array<Sample, kNumSamples> samples_{};
  std::size_t num_samples_ = 0;  // ever recorded
  double fixed_us_ = 0;
  double us_per_row_ = 0;
  double cautious_ = 1;  // quotients of measured and fitted time
  double fastest_ = 1;
};

}  // namespace modelsat

#endif  // MODELSAT_SERVICE_ESTIMATE_H_
