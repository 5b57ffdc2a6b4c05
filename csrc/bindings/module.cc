#include "bindings.h"

// Nothing here relies on the GIL to guard C++ state, so free-threaded builds may run without it.
PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  m.doc() = "The C++ part of modelsat_engine.";
  bind_cpu_features(m);
  bind_scheduler(m);
  bind_native_executor(m);
  bind_cuda_graph_executor(m);
}
