// The int8 inner product of AVX-VNNI: one vpdpbusd of 256 bits adds 32 products. Included by
// kernels_avxvnni.cc, inside its namespace.

#ifndef MODELSAT_CPU_GEMM_TILE_AVXVNNI_H_
#define MODELSAT_CPU_GEMM_TILE_AVXVNNI_H_

// 6 rows of a panel hold 12 of the 16 registers; the rest are 2 of weights and one of activations.
inline constexpr int kMaxTileRows = 6;

template <int kRows>
inline constexpr int kFarLines = 0;  // nothing is fetched ahead

// total[r][p] = sum over k of rows[r][k] * weights[k][p], exact.
template <int kRows, int kPanels>
inline __attribute__((always_inline)) void AccumulateTile(const std::uint8_t* rows,
                                                          std::int64_t stride,
                                                          const std::int8_t* weights, int depth,
                                                          const std::int8_t* /*prefetch*/,
                                                          Accumulator (&total)[kRows][kPanels]) {
  for (int p = 0; p < kPanels; ++p) {
    __m256i low[kRows];
    __m256i high[kRows];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) low[r] = high[r] = _mm256_setzero_si256();
    const std::int8_t* w = weights + 64 * p;
    for (int k = 0; k < depth; k += 4) {
      const __m256i w_low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
      const __m256i w_high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 32));
#pragma GCC unroll 6
      for (int r = 0; r < kRows; ++r) {
        std::int32_t four;
        std::memcpy(&four, rows + r * stride + k, sizeof(four));
        const __m256i a = _mm256_set1_epi32(four);
        low[r] = _mm256_dpbusd_avx_epi32(low[r], a, w_low);
        high[r] = _mm256_dpbusd_avx_epi32(high[r], a, w_high);
      }
      w += 64 * kPanels;
    }
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) total[r][p] = {low[r], high[r]};
  }
}

#endif  // MODELSAT_CPU_GEMM_TILE_AVXVNNI_H_
