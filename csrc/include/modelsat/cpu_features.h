// What the processor and its operating system offer to the native kernels, asked at run time.

#ifndef MODELSAT_CPU_FEATURES_H_
#define MODELSAT_CPU_FEATURES_H_

#include <cstdint>
#include <string>

namespace modelsat {

// Raw answers of CPUID and XGETBV, apart from their meaning so that a test can describe any
// processor.
struct CpuidLeaves {
  std::uint32_t leaf1_ecx = 0;
  std::uint32_t leaf7_ebx = 0;
  std::uint32_t leaf7_ecx = 0;
  std::uint32_t leaf7_edx = 0;
  std::uint32_t leaf7_1_eax = 0;  // leaf 7, sub-leaf 1
  std::uint64_t xcr0 = 0;         // register states the operating system saves on a task switch
};

// A feature is true when the processor has it and the operating system saves its registers. On
// architectures other than x86-64 every one is false.
struct CpuFeatures {
  std::string architecture;  // "x86_64", "aarch64", ...; "unknown" when the compiler did not say
  std::string brand;         // such as "Intel(R) Xeon(R) Processor"; empty when the CPU has none
  bool avx2 = false;
  bool fma = false;
  bool f16c = false;
  bool avx_vnni = false;
  bool avx512f = false;
  bool avx512bw = false;
  bool avx512dq = false;
  bool avx512vl = false;
  bool avx512_vnni = false;
  bool amx_int8 = false;  // of this machine: and the system lets this process have the registers
};

// The features that `leaves` describe; architecture and brand stay empty.
CpuFeatures DecodeCpuFeatures(const CpuidLeaves& leaves);

// The features of this machine, asked once; safe to call from any thread.
const CpuFeatures& HostCpuFeatures();

}  // namespace modelsat

#endif  // MODELSAT_CPU_FEATURES_H_
