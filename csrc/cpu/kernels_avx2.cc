// The kernels for processors with AVX2 and FMA.

#include "cpu/kernels_internal.h"

#if defined(MODELSAT_X86_KERNELS)
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

// From here on functions are compiled for the wider instruction set. None of them may be one that
// other files share, because the linker would keep only one copy: all are in an unnamed namespace.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace modelsat {
namespace {

// Each file uses what the ones before it define.
// clang-format off
#include "cpu/lanes_avx2.h"
#include "cpu/gemm_sums_avx2.h"
#include "cpu/gemm_tile_avx2.h"
#include "cpu/kernel_math.h"
#include "cpu/kernel_quantize.h"
#include "cpu/kernel_gemm.h"
#include "cpu/kernel_attention.h"
// clang-format on

}  // namespace
}  // namespace modelsat

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace modelsat {

const Kernels& Avx2Kernels() {
  static const Kernels kernels{Isa::kAvx2, &Linear,          &LinearGeluQuantize,
                               &Quantize,  &AddNormQuantize, &Embed,
                               &PackKeys,  &Attend,          &Dot};
  return kernels;
}

}  // namespace modelsat

#endif  // MODELSAT_X86_KERNELS
