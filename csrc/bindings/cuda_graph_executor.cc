// CudaGraphExecutor in Python: convert, release the GIL, call, raise.

#include "modelsat/cuda_graph_executor.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"
#include "executor_calls.h"
#include "python_executor.h"
#include "python_objects.h"

namespace py = pybind11;

namespace modelsat {
namespace {

std::shared_ptr<CudaZoo> MakeZoo(
    py::object owner, std::int32_t candidates, std::uintptr_t inputs, std::uintptr_t scores,
    const std::vector<std::tuple<std::uint64_t, std::size_t>>& regions,
    const std::vector<std::tuple<std::int32_t, std::int32_t, std::uintptr_t>>& passes) {
  std::vector<CudaRegion> places;
  for (const auto& [address, size_bytes] : regions) places.push_back({address, size_bytes});
  std::vector<CudaPass> captured;
  for (const auto& [requests, tokens, graph] : passes) {
    captured.push_back({requests, tokens, reinterpret_cast<CudaGraph>(graph)});
  }
  return std::make_shared<CudaZoo>(candidates, reinterpret_cast<std::int32_t*>(inputs),
                                   reinterpret_cast<const float*>(scores), std::move(places),
                                   std::move(captured), Hold(std::move(owner)));
}

std::optional<std::tuple<std::int32_t, std::int32_t>> FindPass(const CudaZoo& zoo,
                                                               std::int32_t requests,
                                                               std::int32_t tokens) {
  const CudaPass* const pass = zoo.Find(requests, tokens);
  if (pass == nullptr) return std::nullopt;
  return std::make_tuple(pass->requests, pass->tokens);
}

void WriteInputs(const py::array& token_ids, const py::array& cu_seqlens, std::int32_t requests,
                 std::int32_t tokens, py::array_t<std::int32_t, py::array::c_style> inputs) {
  const Batch batch(ToInt32(token_ids, "token_ids"), ToInt32(cu_seqlens, "cu_seqlens"));
  RaiseUnlessOk(batch.Validate());
  const py::ssize_t size = 2 * py::ssize_t{tokens} + requests + 1;
  if (batch.num_requests() > requests || batch.num_tokens() > tokens || inputs.size() != size) {
    throw py::value_error("the batch does not fit the pass, or inputs is not int32 of " +
                          std::to_string(size));
  }
  WritePassInputs(batch, 0, batch.num_requests(), requests, tokens, inputs.mutable_data());
}

// Calls take_over(reason) with the GIL; what it returns scores from then on, once per batch.
OpenFallback TakeOver(py::object take_over, const ExecutorLimits& limits) {
  return [hook = Hold(std::move(take_over)), limits](const std::string& reason,
                                                     std::shared_ptr<Executor>* executor) {
    if (!Py_IsInitialized()) {
      return Status(StatusCode::kExecutorError, "the Python interpreter has ended");
    }
    py::gil_scoped_acquire gil;
    try {
      *executor = std::make_shared<PythonExecutor>(Held(hook)(reason), limits);
      return Status();
    } catch (const py::error_already_set& error) {
      return Status(StatusCode::kExecutorError, py::cast<std::string>(py::str(error.value())),
                    Hold(error.value()));
    }
  };
}

std::shared_ptr<CudaGraphExecutor> MakeExecutor(py::object take_over,
                                                std::int32_t max_batch_requests,
                                                std::int32_t max_batch_tokens,
                                                std::int32_t max_instruction_tokens,
                                                std::int32_t vocabulary, const std::string& dtype,
                                                const std::string& library) {
  CudaOptions options;
  options.limits = {max_batch_requests, max_batch_tokens, max_instruction_tokens};
  options.vocabulary = vocabulary;
  options.dtype = dtype;
  return std::make_shared<CudaGraphExecutor>(std::make_shared<CudaDriver>(library), options,
                                             TakeOver(std::move(take_over), options.limits));
}

void GiveUp(CudaGraphExecutor& executor, const std::string& reason) {
  Status status;
  {
    const GilRelease release;
    status = executor.GiveUp(reason);
  }
  RaiseUnlessOk(status);
}

// Why graphs cannot be launched here, or nothing. Starts nothing on a GPU.
std::optional<std::string> DriverReason(const std::string& library) {
  try {
    const CudaDriver driver(library);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return std::nullopt;
}

}  // namespace
}  // namespace modelsat

void bind_cuda_graph_executor(py::module_& m) {
  using modelsat::CudaGraphExecutor;
  using modelsat::CudaZoo;
  m.def("cuda_driver_reason", &modelsat::DriverReason,
        py::arg("library") = modelsat::CudaDriver::kLibrary,
        "Why graphs cannot be launched through this driver, or None.");
  m.def("write_pass_inputs", &modelsat::WriteInputs, py::arg("token_ids"), py::arg("cu_seqlens"),
        py::arg("requests"), py::arg("tokens"), py::arg("inputs").noconvert(),
        "Describes a packed batch as a pass of so many requests and tokens reads it: int32 "
        "[2 tokens + requests + 1], token ids, positions, cu_seqlens, padded.");
  py::class_<CudaZoo, std::shared_ptr<CudaZoo>>(
      m, "CudaZoo", "The passes that were captured for zoos of up to so many candidates.")
      .def(py::init(&modelsat::MakeZoo), py::arg("owner"), py::kw_only(), py::arg("candidates"),
           py::arg("inputs"), py::arg("scores"), py::arg("regions"), py::arg("passes"),
           "owner: what keeps everything here alive. inputs, scores: addresses of page-locked host "
           "memory. regions: (address, bytes) of the device memory that graphs read candidates "
           "from. passes: (requests, tokens, cudaGraphExec_t).")
      .def("find", &modelsat::FindPass, py::arg("requests"), py::arg("tokens"),
           "(requests, tokens) of the smallest pass that holds so much, or None.");
  py::class_<CudaGraphExecutor, modelsat::Executor, std::shared_ptr<CudaGraphExecutor>>(
      m, "CudaGraphExecutor", "Launches captured graphs on an NVIDIA GPU, without Python.")
      .def(py::init(&modelsat::MakeExecutor), py::arg("take_over"), py::kw_only(),
           py::arg("max_batch_requests"), py::arg("max_batch_tokens"),
           py::arg("max_instruction_tokens"), py::arg("vocabulary"), py::arg("dtype"),
           py::arg("library") = modelsat::CudaDriver::kLibrary,
           "Works in the context that is current here. take_over(reason): called "
           "once when the device fails, returns a callable (token_ids, cu_seqlens, payload of the "
           "table) -> float32 [B, M] that scores from then on; neither may hold this executor. "
           "Raises RuntimeError when the driver is missing, too old, or refuses.")
      .def(
          "make_table",
          [](const CudaGraphExecutor& executor, py::object table, std::int32_t num_candidates,
             std::int32_t hidden_size, std::uint64_t version, std::shared_ptr<CudaZoo> zoo,
             std::vector<std::uint64_t> sources, py::object owner) {
            return executor.MakeTable(num_candidates, hidden_size, version,
                                      modelsat::Hold(std::move(table)), std::move(zoo),
                                      std::move(sources), modelsat::Hold(std::move(owner)));
          },
          py::arg("table"), py::arg("num_candidates"), py::arg("hidden_size"), py::arg("version"),
          py::arg("zoo"), py::arg("sources"), py::arg("owner"),
          "A snapshot that lies on the device at sources, one address for each region of the zoo; "
          "owner keeps it there.")
      .def("score", &modelsat::Score, py::arg("token_ids"), py::arg("cu_seqlens"), py::arg("table"),
           "Probabilities float32 [B, M] of int32 token_ids [T] and cu_seqlens [B + 1].")
      .def("give_up", &modelsat::GiveUp, py::arg("reason"),
           "Lets the fallback take over now, as when the device fails.")
      .def_property_readonly("failed", &CudaGraphExecutor::failed)
      .def_property_readonly(
          "cuda_version", [](const CudaGraphExecutor& e) { return e.driver().version(); },
          "Of CUDA that the driver is for: 12040 is 12.4.")
      .def_property_readonly("limits", &modelsat::LimitsAsDict);
}
