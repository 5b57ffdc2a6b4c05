#include "modelsat/cpu_features.h"

#include "bindings.h"
#include "modelsat/cpu_count.h"

namespace py = pybind11;

namespace {

py::dict CpuFeaturesAsDict() {
  const modelsat::CpuFeatures& features = modelsat::HostCpuFeatures();
  py::dict out;
  out["architecture"] = features.architecture;
  out["brand"] = features.brand;
  out["avx2"] = features.avx2;
  out["fma"] = features.fma;
  out["f16c"] = features.f16c;
  out["avx_vnni"] = features.avx_vnni;
  out["avx512f"] = features.avx512f;
  out["avx512bw"] = features.avx512bw;
  out["avx512dq"] = features.avx512dq;
  out["avx512vl"] = features.avx512vl;
  out["avx512_vnni"] = features.avx512_vnni;
  out["amx_int8"] = features.amx_int8;
  return out;
}

}  // namespace

void bind_cpu_features(py::module_& m) {
  m.def("cpu_features", &CpuFeaturesAsDict,
        "The processor as the native kernels see it: architecture and brand (str) and one bool per "
        "instruction set, true when the operating system enables it too.");
  m.def("usable_cpu_count", py::overload_cast<>(&modelsat::UsableCpuCount),
        py::call_guard<py::gil_scoped_release>(),
        "CPUs this process may use at once: affinity and cgroup quota (v1 and v2), at least 1.");
}
