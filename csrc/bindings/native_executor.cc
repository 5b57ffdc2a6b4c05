// NativeExecutor in Python: convert, release the GIL, call, raise.

#include "modelsat/native_executor.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"
#include "executor_calls.h"
#include "python_objects.h"

namespace py = pybind11;

namespace modelsat {
namespace {

// dtype, shape, offset in bytes from the start of the file, size in bytes
using TensorPlace =
    std::tuple<std::string, std::vector<std::int64_t>, std::uint64_t, std::uint64_t>;

std::map<std::string, NativeTensor> ToTensors(const std::map<std::string, TensorPlace>& places) {
  std::map<std::string, NativeTensor> tensors;
  for (const auto& [name, place] : places) {
    const auto& [dtype, shape, offset_bytes, size_bytes] = place;
    tensors[name] = NativeTensor{dtype, shape, offset_bytes, size_bytes};
  }
  return tensors;
}

NativeConfig ToConfig(const py::dict& values) {
  const auto get = [&](const char* name) {
    if (!values.contains(name)) {
      throw py::value_error(std::string("the configuration lacks ") + name);
    }
    return py::object(values[name]);
  };
  const auto integer = [&](const char* name) { return py::cast<std::int32_t>(get(name)); };
  NativeConfig config;
  config.layers = integer("layers");
  config.hidden = integer("hidden");
  config.heads = integer("heads");
  config.intermediate = integer("intermediate");
  config.vocab = integer("vocab");
  config.max_positions = integer("max_positions");
  config.inject_at = integer("inject_at");
  config.memory_rows = integer("memory_rows");
  config.views = integer("views");
  config.max_instruction_tokens = integer("max_instruction_tokens");
  if (values.contains("evidence_size")) config.evidence_size = integer("evidence_size");
  if (values.contains("relevance_hidden")) config.relevance_hidden = integer("relevance_hidden");
  config.layer_norm_eps = py::cast<float>(get("layer_norm_eps"));
  return config;
}

std::string ChosenIsa(const std::optional<std::string>& isa) {
  if (isa.has_value()) return *isa;
  const char* const forced = std::getenv("MODELSAT_ISA");
  return forced == nullptr ? "" : forced;
}

std::shared_ptr<NativeExecutor> MakeExecutor(const std::string& weights_path,
                                             const std::map<std::string, TensorPlace>& places,
                                             const py::dict& config, int threads,
                                             std::int32_t max_batch_requests,
                                             std::int32_t max_batch_tokens,
                                             const std::optional<std::string>& isa) {
  NativeOptions options;
  options.threads = threads;
  options.max_batch_requests = max_batch_requests;
  options.max_batch_tokens = max_batch_tokens;
  options.isa = ChosenIsa(isa);
  const std::map<std::string, NativeTensor> tensors = ToTensors(places);
  const NativeConfig shape = ToConfig(config);
  const GilRelease release;
  return std::make_shared<NativeExecutor>(weights_path, tensors, shape, options);
}

// `array` as float32 in C order; `shape` counts from the second axis.
py::array_t<float, py::array::c_style> ToFloats(const py::array& array, const char* name,
                                                const std::vector<py::ssize_t>& shape) {
  bool fits = py::isinstance<py::array_t<float>>(array) &&
              array.ndim() == static_cast<py::ssize_t>(shape.size()) + 1;
  for (std::size_t i = 0; fits && i < shape.size(); ++i) {
    fits = array.shape(static_cast<py::ssize_t>(i) + 1) == shape[i];
  }
  if (!fits) {
    std::string wanted = "(M";
    for (const py::ssize_t size : shape) wanted += ", " + std::to_string(size);
    throw py::value_error(std::string(name) + " must be float32 of shape " + wanted + "), not " +
                          py::cast<std::string>(py::str(array.dtype())) + " of shape " +
                          py::cast<std::string>(py::str(array.attr("shape"))));
  }
  return py::array_t<float, py::array::c_style>::ensure(array);
}

std::shared_ptr<CandidateTable> MakeTable(const NativeExecutor& executor,
                                          const py::array& inquiry_start,
                                          const std::optional<py::array>& memory,
                                          std::uint64_t version) {
  const NativeConfig& config = executor.config();
  const auto starts = ToFloats(inquiry_start, "inquiry_start",
                               {config.views, config.hidden + config.evidence_size});
  if (memory.has_value() != (config.memory_rows > 0)) {
    throw py::value_error(memory.has_value() ? "this router has no memory rows; memory must be None"
                                             : "this router has memory rows; memory is missing");
  }
  py::array_t<float, py::array::c_style> memories;
  if (memory.has_value()) {
    memories = ToFloats(
        *memory, "memory",
        {config.views, config.layers - config.inject_at, 2, config.memory_rows, config.hidden});
    if (memories.shape(0) != starts.shape(0)) {
      throw py::value_error("inquiry_start and memory must hold the same candidates");
    }
  }
  const auto candidates = static_cast<std::int32_t>(starts.shape(0));
  const float* const start = starts.data();
  const float* const remembered = memory.has_value() ? memories.data() : nullptr;
  const GilRelease release;
  return executor.MakeTable(start, remembered, candidates, version);
}

}  // namespace
}  // namespace modelsat

void bind_native_executor(py::module_& m) {
  using modelsat::NativeExecutor;
  m.def("native_isas", &modelsat::NativeIsas,
        "Instruction sets of the native executor that this processor runs, best first.");
  py::class_<NativeExecutor, modelsat::Executor, std::shared_ptr<NativeExecutor>>(
      m, "NativeExecutor", "Runs the router in int8 on the CPU, without Python.")
      .def(py::init(&modelsat::MakeExecutor), py::arg("weights_path"), py::arg("tensors"),
           py::arg("config"), py::arg("threads") = 1, py::kw_only(),
           py::arg("max_batch_requests") = 64, py::arg("max_batch_tokens") = 8192,
           py::arg("isa") = py::none(),
           "tensors: name -> (dtype, shape, offset in the file in bytes, size in bytes). config: "
           "the sizes of the trunk, inject_at, memory_rows, views, max_instruction_tokens and, for "
           "a relevance head, evidence_size and relevance_hidden. "
           "threads: that work on one batch, 0 for all usable ones. isa: None for the one that "
           "MODELSAT_ISA names, or else the best. Raises ValueError for weights or sizes that "
           "cannot be used, RuntimeError for an instruction set that the processor lacks.")
      .def("make_table", &modelsat::MakeTable, py::arg("inquiry_start"),
           py::arg("memory") = py::none(), py::arg("version") = 0,
           "The candidate table of float32 inquiry_start [M, R, D + E] and, for K > 0, memory "
           "[M, R, L - inject_at, 2, K, D].")
      .def("score", &modelsat::Score, py::arg("token_ids"), py::arg("cu_seqlens"), py::arg("table"),
           "Probabilities float32 [B, M] of int32 token_ids [T] and cu_seqlens [B + 1].")
      .def_property_readonly("isa", &NativeExecutor::isa)
      .def_property_readonly("threads", &NativeExecutor::threads)
      .def_property_readonly("limits", &modelsat::LimitsAsDict);
}
