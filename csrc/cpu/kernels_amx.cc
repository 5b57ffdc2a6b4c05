// The kernels for processors with AMX int8: the linear layers on tiles, the rest as with AVX-512
// VNNI.

#include "cpu/kernels_internal.h"

#if defined(MODELSAT_NEW_X86_KERNELS)
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

// From here on functions are compiled for the wider instruction set. None of them may be one that
// other files share, because the linker would keep only one copy: all are in an unnamed namespace.
#if defined(__clang__)
#pragma clang attribute push(                                                            \
    __attribute__((                                                                      \
        target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,amx-tile,amx-int8"))), \
    apply_to = function)
#else
// GCC's own header makes "undefined" vectors by reading them uninitialised.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")
#endif

namespace modelsat {
namespace {

// Each file uses what the ones before it define.
// clang-format off
#include "cpu/lanes_avx512.h"
#include "cpu/gemm_tile_avx512vnni.h"
#include "cpu/kernel_math.h"
#include "cpu/kernel_quantize.h"
#include "cpu/kernel_gemm.h"
#include "cpu/tiles_amx.h"
#include "cpu/kernel_gemm_amx.h"
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

const Kernels& AmxInt8Kernels() {
  static const Kernels kernels{Isa::kAmxInt8, &LinearAmx,       &LinearGeluQuantizeAmx,
                               &Quantize,     &AddNormQuantize, &Embed,
                               &PackKeys,     &Attend,          &Dot};
  return kernels;
}

}  // namespace modelsat

#endif  // MODELSAT_NEW_X86_KERNELS
