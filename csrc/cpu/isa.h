// The instruction sets that the native kernels are written for, and which one to run.

#ifndef MODELSAT_CPU_ISA_H_
#define MODELSAT_CPU_ISA_H_

#include <string>
#include <vector>

#include "modelsat/cpu_features.h"

namespace modelsat {

enum class Isa { kPortable, kAvx2, kAvxVnni, kAvx512Vnni, kAmxInt8 };

// "portable", "avx2", "avx_vnni", "avx512_vnni" or "amx_int8".
const char* IsaName(Isa isa);

// Whether a processor with these features runs the kernels of an instruction set, in this build.
bool Supports(const CpuFeatures& features, Isa isa);

// All that are supported, best first; the last one is always kPortable.
std::vector<Isa> SupportedIsas(const CpuFeatures& features);

// The instruction set called `name`, or the best supported one when `name` is empty. Throws
// std::runtime_error when the name is unknown or the processor lacks it.
Isa ChooseIsa(const CpuFeatures& features, const std::string& name);

}  // namespace modelsat

#endif  // MODELSAT_CPU_ISA_H_
