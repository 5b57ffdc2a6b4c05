// What every C++ executor offers Python: score a packed batch, tell its limits.

#ifndef MODELSAT_BINDINGS_EXECUTOR_CALLS_H_
#define MODELSAT_BINDINGS_EXECUTOR_CALLS_H_

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "modelsat/executor.h"

namespace modelsat {

// A copy of a one-dimensional int32 array; raises TypeError for anything else.
std::vector<std::int32_t> ToInt32(const pybind11::array& array, const char* name);

// Probabilities float32 [B, M] of int32 token_ids [T] and cu_seqlens [B + 1], scored without the
// GIL.
pybind11::array_t<float> Score(Executor& executor, const pybind11::array& token_ids,
                               const pybind11::array& cu_seqlens,
                               const std::shared_ptr<CandidateTable>& table);

pybind11::dict LimitsAsDict(const Executor& executor);

}  // namespace modelsat

#endif  // MODELSAT_BINDINGS_EXECUTOR_CALLS_H_
