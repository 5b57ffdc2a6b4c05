#include "executor_calls.h"

#include <string>

#include "modelsat/batch.h"
#include "python_objects.h"

namespace py = pybind11;

namespace modelsat {

std::vector<std::int32_t> ToInt32(const py::array& array, const char* name) {
  if (array.ndim() != 1 || !py::isinstance<py::array_t<std::int32_t>>(array)) {
    throw py::type_error(std::string(name) + " must be a one-dimensional int32 array");
  }
  const auto contiguous = py::array_t<std::int32_t, py::array::c_style>::ensure(array);
  return {contiguous.data(), contiguous.data() + contiguous.size()};
}

py::array_t<float> Score(Executor& executor, const py::array& token_ids,
                         const py::array& cu_seqlens,
                         const std::shared_ptr<CandidateTable>& table) {
  // shared, as an executor may keep it
  const auto batch =
      std::make_shared<Batch>(ToInt32(token_ids, "token_ids"), ToInt32(cu_seqlens, "cu_seqlens"));
  Status status = batch->Validate();
  RaiseUnlessOk(status);
  py::array_t<float> probabilities(
      {py::ssize_t{batch->num_requests()}, py::ssize_t{table->num_candidates()}});
  float* const out = probabilities.mutable_data();
  {
    const GilRelease release;
    status = executor.Score(*batch, *table, out);
  }
  RaiseUnlessOk(status);
  return probabilities;
}

py::dict LimitsAsDict(const Executor& executor) {
  const ExecutorLimits limits = executor.limits();
  py::dict out;
  out["max_batch_requests"] = limits.max_batch_requests;
  out["max_batch_tokens"] = limits.max_batch_tokens;
  out["max_instruction_tokens"] = limits.max_instruction_tokens;
  return out;
}

}  // namespace modelsat
