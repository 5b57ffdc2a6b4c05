// Where each instruction set's translation unit hands over its functions.

#ifndef MODELSAT_CPU_KERNELS_INTERNAL_H_
#define MODELSAT_CPU_KERNELS_INTERNAL_H_

#include "cpu/kernels.h"

// 64-bit x86 with a compiler that can target an instruction set per function.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define MODELSAT_X86_KERNELS 1
#endif
// And with an assembler that knows AVX-VNNI and AMX.
#if defined(MODELSAT_X86_KERNELS) && \
    ((defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11))
#define MODELSAT_NEW_X86_KERNELS 1
#endif

namespace modelsat {

const Kernels& PortableKernels();
#if defined(MODELSAT_X86_KERNELS)
const Kernels& Avx2Kernels();
const Kernels& Avx512VnniKernels();
#endif
#if defined(MODELSAT_NEW_X86_KERNELS)
const Kernels& AvxVnniKernels();
const Kernels& AmxInt8Kernels();
#endif

}  // namespace modelsat

#endif  // MODELSAT_CPU_KERNELS_INTERNAL_H_
