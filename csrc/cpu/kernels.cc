#include "cpu/kernels.h"

#include "cpu/kernels_internal.h"

namespace modelsat {

const Kernels& KernelsFor(Isa isa) {
#if defined(MODELSAT_NEW_X86_KERNELS)
  if (isa == Isa::kAmxInt8) return AmxInt8Kernels();
  if (isa == Isa::kAvxVnni) return AvxVnniKernels();
#endif
#if defined(MODELSAT_X86_KERNELS)
  if (isa == Isa::kAvx512Vnni) return Avx512VnniKernels();
  if (isa == Isa::kAvx2) return Avx2Kernels();
#endif
  static_cast<void>(isa);
  return PortableKernels();
}

}  // namespace modelsat
