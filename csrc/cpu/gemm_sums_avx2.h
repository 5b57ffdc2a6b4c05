// The sums of a panel in two AVX2 registers. Included by kernels_avx2.cc and kernels_avxvnni.cc,
// inside their namespaces.

#ifndef MODELSAT_CPU_GEMM_SUMS_AVX2_H_
#define MODELSAT_CPU_GEMM_SUMS_AVX2_H_

struct Accumulator {
  __m256i low;  // one int32 per channel of a panel
  __m256i high;
};

// total - zero_point * sums, as floats.
inline Lanes ToFloat(Accumulator total, const ZeroPoint& zero_point, const ChannelSum* sums) {
  const __m256i* const halves = reinterpret_cast<const __m256i*>(sums);
  const __m256i factors = _mm256_set1_epi32(zero_point.factors);
  const __m256i low = _mm256_madd_epi16(factors, _mm256_loadu_si256(halves));
  const __m256i high = _mm256_madd_epi16(factors, _mm256_loadu_si256(halves + 1));
  return {_mm256_cvtepi32_ps(_mm256_add_epi32(total.low, low)),
          _mm256_cvtepi32_ps(_mm256_add_epi32(total.high, high))};
}

#endif  // MODELSAT_CPU_GEMM_SUMS_AVX2_H_
