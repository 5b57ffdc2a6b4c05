// An executor that works when a test says so, and shows what it was given.

#ifndef MODELSAT_TESTS_MANUAL_EXECUTOR_H_
#define MODELSAT_TESTS_MANUAL_EXECUTOR_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "modelsat/executor.h"
#include "modelsat/mutex.h"

namespace modelsat {

// What ManualExecutor answers: depends on the instruction's tokens and the table only.
inline float ExpectedProbability(const Batch& requests, std::int32_t request,
                                 const CandidateTable& table, std::int32_t candidate) {
  std::int64_t sum = 0;
  for (std::int32_t t = requests.cu_seqlens()[request]; t < requests.cu_seqlens()[request + 1];
       ++t) {
    sum += requests.token_ids()[t];
  }
  return static_cast<float>(sum % 100'003) + static_cast<float>(candidate) / 16 +
         static_cast<float>(table.version() % 7) / 128;
}

class ManualExecutor final : public Executor {
 public:
  struct Call {
    std::vector<std::int32_t> token_ids;
    std::vector<std::int32_t> cu_seqlens;
    std::uint64_t table_version;
  };

  // Calls of Score block until Release when `manual`.
  explicit ManualExecutor(const ExecutorLimits& limits, bool manual = true)
      : limits_(limits), manual_(manual) {}

  ExecutorLimits limits() const override { return limits_; }

  Status Score(const Batch& batch, const CandidateTable& table, float* probabilities) override {
    std::function<Status()> behaviour;
    {
      MutexLock lock(&mutex_);
      calls_.push_back({batch.token_ids(), batch.cu_seqlens(), table.version()});
      condition_.NotifyAll();
      while (manual_ && released_ == 0) condition_.Wait(&mutex_);
      if (manual_) --released_;
      behaviour = behaviour_;
    }
    for (std::int32_t b = 0; b < batch.num_requests(); ++b) {
      for (std::int32_t m = 0; m < table.num_candidates(); ++m) {
        probabilities[b * table.num_candidates() + m] = ExpectedProbability(batch, b, table, m);
      }
    }
    return behaviour ? behaviour() : Status();
  }

  // Lets `count` calls go on, running or future ones.
  void Release(int count = 1) {
    MutexLock lock(&mutex_);
    released_ += count;
    condition_.NotifyAll();
  }

  // Blocks until Score was called `count` times in all.
  void WaitForCall(int count) {
    MutexLock lock(&mutex_);
    while (static_cast<int>(calls_.size()) < count) condition_.Wait(&mutex_);
  }

  // Called at the end of every Score from now on.
  void SetBehaviour(std::function<Status()> behaviour) {
    MutexLock lock(&mutex_);
    behaviour_ = std::move(behaviour);
  }

  std::vector<Call> calls() {
    MutexLock lock(&mutex_);
    return calls_;
  }

 private:
  const ExecutorLimits limits_;
  const bool manual_;
  Mutex mutex_;
  CondVar condition_;
  int released_ MODELSAT_GUARDED_BY(mutex_) = 0;
  std::vector<Call> calls_ MODELSAT_GUARDED_BY(mutex_);
  std::function<Status()> behaviour_ MODELSAT_GUARDED_BY(mutex_);
};

}  // namespace modelsat

#endif  // MODELSAT_TESTS_MANUAL_EXECUTOR_H_
