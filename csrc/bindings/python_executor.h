// A Python callable behind the Executor interface.

#ifndef MODELSAT_BINDINGS_PYTHON_EXECUTOR_H_
#define MODELSAT_BINDINGS_PYTHON_EXECUTOR_H_

#include <pybind11/pybind11.h>

#include <memory>

#include "modelsat/executor.h"

namespace modelsat {

// Calls callable(token_ids int32 [T], cu_seqlens int32 [B + 1], payload) -> float32 [B, M], taking
// the GIL once per batch. The arrays are read-only views of the packed batch, which lives as long
// as they do.
class PythonExecutor final : public Executor {
 public:
  // Call with the GIL.
  PythonExecutor(pybind11::object callable, const ExecutorLimits& limits);

  ExecutorLimits limits() const override { return limits_; }
  Status Score(const Batch& batch, const CandidateTable& table, float* probabilities) override;

 private:
  const std::shared_ptr<const void> callable_;
  const ExecutorLimits limits_;
};

}  // namespace modelsat

#endif  // MODELSAT_BINDINGS_PYTHON_EXECUTOR_H_
