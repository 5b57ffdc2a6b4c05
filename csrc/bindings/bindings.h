// One function per binding file, each of which adds its classes and functions to the module.

#ifndef MODELSAT_BINDINGS_BINDINGS_H_
#define MODELSAT_BINDINGS_BINDINGS_H_

#include <pybind11/pybind11.h>

void bind_cpu_features(pybind11::module_& m);
void bind_cuda_graph_executor(pybind11::module_& m);
void bind_native_executor(pybind11::module_& m);
void bind_scheduler(pybind11::module_& m);

#endif  // MODELSAT_BINDINGS_BINDINGS_H_
