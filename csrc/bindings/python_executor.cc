#include "python_executor.h"

#include <pybind11/numpy.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "python_objects.h"

namespace py = pybind11;

namespace modelsat {
namespace {

// A view of `values` whose base keeps `owner` alive.
py::array View(const std::vector<std::int32_t>& values, const py::capsule& owner) {
  py::array_t<std::int32_t> view({static_cast<py::ssize_t>(values.size())}, {sizeof(std::int32_t)},
                                 values.data(), owner);
  view.attr("flags").attr("writeable") = false;
  return std::move(view);
}

Status WrongResult(const std::string& got, std::int32_t num_requests, std::int32_t num_candidates) {
  return Status(StatusCode::kExecutorError, "the executor must return a float32 array of shape (" +
                                                std::to_string(num_requests) + ", " +
                                                std::to_string(num_candidates) + "), it returned " +
                                                got);
}

Status CopyResult(const py::object& result, std::int32_t num_requests, std::int32_t num_candidates,
                  float* probabilities) {
  if (!py::isinstance<py::array>(result)) {
    return WrongResult(
        "an object of type " + py::cast<std::string>(py::type::of(result).attr("__name__")),
        num_requests, num_candidates);
  }
  const auto array = py::reinterpret_borrow<py::array>(result);
  if (!py::isinstance<py::array_t<float>>(array) || array.ndim() != 2 ||
      array.shape(0) != num_requests || array.shape(1) != num_candidates) {
    return WrongResult(py::cast<std::string>(py::str(array.dtype())) + " of shape " +
                           py::cast<std::string>(py::str(array.attr("shape"))),
                       num_requests, num_candidates);
  }
  const auto contiguous = py::array_t<float, py::array::c_style>::ensure(array);
  if (!contiguous) throw py::error_already_set();
  std::memcpy(probabilities, contiguous.data(), contiguous.nbytes());
  return Status();
}

}  // namespace

PythonExecutor::PythonExecutor(py::object callable, const ExecutorLimits& limits)
    : callable_(Hold(std::move(callable))), limits_(limits) {}

Status PythonExecutor::Score(const Batch& batch, const CandidateTable& table,
                             float* probabilities) {
  if (!Py_IsInitialized()) {
    return Status(StatusCode::kExecutorError, "the Python interpreter has ended");
  }
  py::gil_scoped_acquire gil;
  ReleaseDeferred();
  try {
    const py::capsule owner(
        std::make_unique<std::shared_ptr<const Batch>>(batch.shared_from_this()).release(),
        [](void* p) {
          std::unique_ptr<std::shared_ptr<const Batch>>(
              static_cast<std::shared_ptr<const Batch>*>(p));
        });
    const py::object result = Held(callable_)(
        View(batch.token_ids(), owner), View(batch.cu_seqlens(), owner), Held(table.payload()));
    return CopyResult(result, batch.num_requests(), table.num_candidates(), probabilities);
  } catch (const py::error_already_set& error) {
    return Status(StatusCode::kExecutorError,
                  "the executor raised " + py::cast<std::string>(error.type().attr("__name__")) +
                      ": " + py::cast<std::string>(py::str(error.value())),
                  Hold(error.value()));
  }
}

}  // namespace modelsat
