// What turns a batch of instructions and a candidate table into probabilities.

#ifndef MODELSAT_EXECUTOR_H_
#define MODELSAT_EXECUTOR_H_

#include <cstdint>

#include "modelsat/batch.h"
#include "modelsat/candidate_table.h"
#include "modelsat/status.h"

namespace modelsat {

struct ExecutorLimits {
  std::int32_t max_batch_requests = 64;
  std::int32_t max_batch_tokens = 16384;
  std::int32_t max_instruction_tokens = 512;
};

class Executor {
 public:
  virtual ~Executor() = default;

  // Hard upper bounds of what Score accepts; constant over the executor's life.
  virtual ExecutorLimits limits() const = 0;

  // Writes probabilities float32 [B, M], row-major, all of them, unless it returns an error.
  // A scheduler calls it from one thread only and never twice at once. May throw: the scheduler
  // turns an exception into kExecutorError for the requests of this batch.
  virtual Status Score(const Batch& batch, const CandidateTable& table, float* probabilities) = 0;
};

// Writes zeros: the floor against which the cost of everything around an executor is measured.
class NoOpExecutor final : public Executor {
 public:
  explicit NoOpExecutor(const ExecutorLimits& limits) : limits_(limits) {}

  ExecutorLimits limits() const override { return limits_; }
  Status Score(const Batch& batch, const CandidateTable& table, float* probabilities) override;

 private:
  const ExecutorLimits limits_;
};

}  // namespace modelsat

#endif  // MODELSAT_EXECUTOR_H_
