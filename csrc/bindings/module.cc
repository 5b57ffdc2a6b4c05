#include "bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The C++ part of modelsat_engine.";
  bind_cpu_features(m);
}
