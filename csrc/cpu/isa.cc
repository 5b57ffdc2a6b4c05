#include "cpu/isa.h"

#include <stdexcept>

#include "cpu/kernels_internal.h"

namespace modelsat {
namespace {

#if defined(MODELSAT_NEW_X86_KERNELS)
constexpr bool kHasNewKernels = true;
#else
constexpr bool kHasNewKernels = false;
#endif
constexpr Isa kBestFirst[] = {Isa::kAmxInt8, Isa::kAvx512Vnni, Isa::kAvxVnni, Isa::kAvx2,
                              Isa::kPortable};

}  // namespace

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kAmxInt8:
      return "amx_int8";
    case Isa::kAvx512Vnni:
      return "avx512_vnni";
    case Isa::kAvxVnni:
      return "avx_vnni";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kPortable:
      break;
  }
  return "portable";
}

bool Supports(const CpuFeatures& features, Isa isa) {
  switch (isa) {
    case Isa::kAmxInt8:
      return kHasNewKernels && features.amx_int8 && Supports(features, Isa::kAvx512Vnni);
    case Isa::kAvx512Vnni:
      return features.avx512f && features.avx512bw && features.avx512dq && features.avx512vl &&
             features.avx512_vnni;
    case Isa::kAvxVnni:
      return kHasNewKernels && features.avx_vnni && Supports(features, Isa::kAvx2);
    case Isa::kAvx2:
      return features.avx2 && features.fma;
    case Isa::kPortable:
      break;
  }
  return true;
}

std::vector<Isa> SupportedIsas(const CpuFeatures& features) {
  std::vector<Isa> supported;
  for (const Isa isa : kBestFirst) {
    if (Supports(features, isa)) supported.push_back(isa);
  }
  return supported;
}

Isa ChooseIsa(const CpuFeatures& features, const std::string& name) {
  const std::vector<Isa> supported = SupportedIsas(features);
  if (name.empty()) return supported.front();
  std::string usable;
  for (const Isa isa : supported) {
    if (name == IsaName(isa)) return isa;
    usable += (usable.empty() ? "" : ", ") + std::string(IsaName(isa));
  }
  for (const Isa isa : kBestFirst) {
    if (name == IsaName(isa)) {
      throw std::runtime_error("this processor cannot run the instruction set " + name + "; use " +
                               usable);
    }
  }
  throw std::runtime_error("instruction set '" + name + "' is not known; use " + usable);
}

}  // namespace modelsat
