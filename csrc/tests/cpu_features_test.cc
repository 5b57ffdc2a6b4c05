#include "modelsat/cpu_features.h"

#include <gtest/gtest.h>

#include <string>

namespace modelsat {
namespace {

// Every bit of every leaf set: a processor with all features.
CpuidLeaves Everything() {
  return {0xFFFFFFFFU, 0xFFFFFFFFU, 0xFFFFFFFFU, 0xFFFFFFFFU, 0xFFFFFFFFU, ~0ULL};
}

TEST(CpuFeaturesTest, ProcessorThatSaysNothingHasNoFeature) {
  const CpuFeatures features = DecodeCpuFeatures({});
  EXPECT_FALSE(features.avx2 || features.fma || features.f16c || features.avx_vnni);
  EXPECT_FALSE(features.avx512f || features.avx512bw || features.avx512dq || features.avx512vl);
  EXPECT_FALSE(features.avx512_vnni || features.amx_int8);
}

TEST(CpuFeaturesTest, ProcessorWithEverythingHasEveryFeature) {
  const CpuFeatures features = DecodeCpuFeatures(Everything());
  EXPECT_TRUE(features.avx2 && features.fma && features.f16c && features.avx_vnni);
  EXPECT_TRUE(features.avx512f && features.avx512bw && features.avx512dq && features.avx512vl);
  EXPECT_TRUE(features.avx512_vnni && features.amx_int8);
}

TEST(CpuFeaturesTest, RegistersThatTheSystemDoesNotSaveTakeTheFeaturesAway) {
  CpuidLeaves leaves = Everything();

  leaves.xcr0 = 0x7;  // x87, SSE, AVX: an operating system that does not know AVX-512
  EXPECT_TRUE(DecodeCpuFeatures(leaves).avx2);
  EXPECT_TRUE(DecodeCpuFeatures(leaves).avx_vnni);
  EXPECT_FALSE(DecodeCpuFeatures(leaves).avx512f);
  EXPECT_FALSE(DecodeCpuFeatures(leaves).avx512_vnni);
  EXPECT_FALSE(DecodeCpuFeatures(leaves).amx_int8);

  leaves.xcr0 = 0xE7;  // and AVX-512, but no tiles
  EXPECT_TRUE(DecodeCpuFeatures(leaves).avx512_vnni);
  EXPECT_FALSE(DecodeCpuFeatures(leaves).amx_int8);

  leaves.xcr0 = 0x3;  // no AVX at all
  EXPECT_FALSE(DecodeCpuFeatures(leaves).avx2);
  EXPECT_FALSE(DecodeCpuFeatures(leaves).fma);
}

TEST(CpuFeaturesTest, EachFeatureHasItsOwnBit) {
  CpuidLeaves leaves;
  leaves.xcr0 = 0xE7;
  leaves.leaf1_ecx = 1U << 28;  // AVX
  leaves.leaf7_ebx = (1U << 5) | (1U << 16) | (1U << 30);
  const CpuFeatures features = DecodeCpuFeatures(leaves);
  EXPECT_TRUE(features.avx2 && features.avx512f && features.avx512bw);
  EXPECT_FALSE(features.fma || features.f16c || features.avx_vnni);
  EXPECT_FALSE(features.avx512dq || features.avx512vl || features.avx512_vnni);
}

TEST(CpuFeaturesTest, Avx512SetsNeedTheFoundation) {
  CpuidLeaves leaves = Everything();
  leaves.leaf7_ebx &= ~(1U << 16);
  const CpuFeatures features = DecodeCpuFeatures(leaves);
  EXPECT_FALSE(features.avx512f || features.avx512vl || features.avx512_vnni);
  EXPECT_TRUE(features.avx2);
}

TEST(CpuFeaturesTest, HostIsAskedOnceAndNamesItsArchitecture) {
  const CpuFeatures& features = HostCpuFeatures();
  EXPECT_EQ(&features, &HostCpuFeatures());
  EXPECT_FALSE(features.architecture.empty());
  EXPECT_EQ(features.brand.find('\0'), std::string::npos);
}

#if defined(__x86_64__) && defined(__GNUC__)
// The compiler's runtime asks the same questions in its own way.
TEST(CpuFeaturesTest, HostAgreesWithTheCompilerRuntime) {
  const CpuFeatures& features = HostCpuFeatures();
  EXPECT_EQ(features.avx2, __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(features.fma, __builtin_cpu_supports("fma") != 0);
  EXPECT_EQ(features.avx512f, __builtin_cpu_supports("avx512f") != 0);
  EXPECT_EQ(features.avx512bw, __builtin_cpu_supports("avx512bw") != 0);
  EXPECT_EQ(features.avx512dq, __builtin_cpu_supports("avx512dq") != 0);
  EXPECT_EQ(features.avx512vl, __builtin_cpu_supports("avx512vl") != 0);
  EXPECT_EQ(features.avx512_vnni, __builtin_cpu_supports("avx512vnni") != 0);
}
#endif

}  // namespace
}  // namespace modelsat
