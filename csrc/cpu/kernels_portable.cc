// The kernels for any processor, in plain C++: what the others are compared with.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "cpu/kernels_internal.h"

namespace modelsat {
namespace {

// Each file uses what the ones before it define.
// clang-format off
#include "cpu/lanes_portable.h"
#include "cpu/gemm_tile_portable.h"
#include "cpu/kernel_math.h"
#include "cpu/kernel_quantize.h"
#include "cpu/kernel_gemm.h"
#include "cpu/kernel_attention.h"
// clang-format on

}  // namespace

const Kernels& PortableKernels() {
  static const Kernels kernels{Isa::kPortable, &Linear,          &LinearGeluQuantize,
                               &Quantize,      &AddNormQuantize, &Embed,
                               &PackKeys,      &Attend,          &Dot};
  return kernels;
}

}  // namespace modelsat
