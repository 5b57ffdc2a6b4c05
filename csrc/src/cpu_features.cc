#include "modelsat/cpu_features.h"

#include <array>
#include <cstring>

#if defined(__x86_64__) || defined(_M_X64)
#define MODELSAT_X86_64 1
#if defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

#if defined(MODELSAT_X86_64) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace modelsat {
namespace {

constexpr bool Bit(std::uint64_t word, int bit) { return ((word >> bit) & 1U) != 0; }

const char* Architecture() {
#if defined(MODELSAT_X86_64)
  return "x86_64";
#elif defined(__aarch64__) || defined(_M_ARM64)
  return "aarch64";
#elif defined(__powerpc64__)
  return "ppc64";
#elif defined(__riscv)
  return "riscv";
#elif defined(__s390x__)
  return "s390x";
#elif defined(__i386__) || defined(_M_IX86)
  return "x86";
#else
  return "unknown";
#endif
}

#if defined(MODELSAT_X86_64)

using Registers = std::array<std::uint32_t, 4>;  // eax, ebx, ecx, edx

Registers Cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  Registers out{};
#if defined(_MSC_VER)
  int raw[4];
  __cpuidex(raw, static_cast<int>(leaf), static_cast<int>(subleaf));
  for (std::size_t i = 0; i < 4; ++i) out[i] = static_cast<std::uint32_t>(raw[i]);
#else
  __cpuid_count(leaf, subleaf, out[0], out[1], out[2], out[3]);
#endif
  return out;
}

std::uint64_t ReadXcr0() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
#endif
}

CpuidLeaves ReadCpuidLeaves() {
  CpuidLeaves leaves;
  const std::uint32_t highest = Cpuid(0, 0)[0];
  if (highest >= 1) leaves.leaf1_ecx = Cpuid(1, 0)[2];
  if (highest >= 7) {
    const Registers leaf7 = Cpuid(7, 0);
    leaves.leaf7_ebx = leaf7[1];
    leaves.leaf7_ecx = leaf7[2];
    leaves.leaf7_edx = leaf7[3];
    if (leaf7[0] >= 1) leaves.leaf7_1_eax = Cpuid(7, 1)[0];
  }
  constexpr int kOsxsave = 27;  // without it, xgetbv is an illegal instruction
  if (Bit(leaves.leaf1_ecx, kOsxsave)) leaves.xcr0 = ReadXcr0();
  return leaves;
}

std::string ReadBrand() {
  constexpr std::uint32_t kFirst = 0x80000002U;
  constexpr std::uint32_t kLast = 0x80000004U;
  if (Cpuid(0x80000000U, 0)[0] < kLast) return "";
  char text[3 * sizeof(Registers) + 1] = {};
  for (std::uint32_t leaf = kFirst; leaf <= kLast; ++leaf) {
    const Registers part = Cpuid(leaf, 0);
    std::memcpy(text + (leaf - kFirst) * sizeof(part), part.data(), sizeof(part));
  }
  std::string brand(text);  // up to the first NUL; some processors pad with spaces on both sides
  const std::size_t first = brand.find_first_not_of(' ');
  if (first == std::string::npos) return "";
  return brand.substr(first, brand.find_last_not_of(' ') - first + 1);
}

#endif  // MODELSAT_X86_64

// Linux gives the tile registers, which are large, only to a process that has asked for them; all
// its threads then have them.
bool AskForTiles() {
#if defined(MODELSAT_X86_64) && defined(__linux__)
  constexpr long kRequest = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

CpuFeatures DetectHost() {
  CpuFeatures features;
#if defined(MODELSAT_X86_64)
  features = DecodeCpuFeatures(ReadCpuidLeaves());
  features.amx_int8 = features.amx_int8 && AskForTiles();
  features.brand = ReadBrand();
#endif
  features.architecture = Architecture();
  return features;
}

}  // namespace

// Bit positions: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2A (CPUID)
// and volume 1, chapter 13 (XCR0).
CpuFeatures DecodeCpuFeatures(const CpuidLeaves& leaves) {
  constexpr std::uint64_t kYmmState = 0x6;       // SSE and AVX
  constexpr std::uint64_t kZmmState = 0xE6;      // and the mask and upper ZMM registers
  constexpr std::uint64_t kTileState = 0x60000;  // tile configuration and tile data
  const bool ymm = (leaves.xcr0 & kYmmState) == kYmmState && Bit(leaves.leaf1_ecx, 28);
  const bool zmm = ymm && (leaves.xcr0 & kZmmState) == kZmmState;
  const bool tiles = (leaves.xcr0 & kTileState) == kTileState && Bit(leaves.leaf7_edx, 24);

  CpuFeatures features;
  features.fma = ymm && Bit(leaves.leaf1_ecx, 12);
  features.f16c = ymm && Bit(leaves.leaf1_ecx, 29);
  features.avx2 = ymm && Bit(leaves.leaf7_ebx, 5);
  features.avx_vnni = features.avx2 && Bit(leaves.leaf7_1_eax, 4);
  // The other AVX-512 sets build on the foundation and are useless without it.
  features.avx512f = zmm && Bit(leaves.leaf7_ebx, 16);
  features.avx512dq = features.avx512f && Bit(leaves.leaf7_ebx, 17);
  features.avx512bw = features.avx512f && Bit(leaves.leaf7_ebx, 30);
  features.avx512vl = features.avx512f && Bit(leaves.leaf7_ebx, 31);
  features.avx512_vnni = features.avx512f && Bit(leaves.leaf7_ecx, 11);
  features.amx_int8 = tiles && Bit(leaves.leaf7_edx, 25);
  return features;
}

const CpuFeatures& HostCpuFeatures() {
  static const CpuFeatures features = DetectHost();
  return features;
}

}  // namespace modelsat
