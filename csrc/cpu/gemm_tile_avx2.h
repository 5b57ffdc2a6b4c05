// The int8 inner product of AVX2, exact: products are taken in 16 bits, because vpmaddubsw would
// saturate. Included by kernels_avx2.cc, inside its namespace.

#ifndef MODELSAT_CPU_GEMM_TILE_AVX2_H_
#define MODELSAT_CPU_GEMM_TILE_AVX2_H_

inline constexpr int kMaxTileRows = 3;

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
    __m256i part[kRows][4];  // two int32 for each of four channels
#pragma GCC unroll 3
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) part[r][q] = _mm256_setzero_si256();
    }
    const std::int8_t* w = weights + 64 * p;
    for (int k = 0; k < depth; k += 4) {
      __m256i a[kRows];
#pragma GCC unroll 3
      for (int r = 0; r < kRows; ++r) {
        std::int32_t four;
        std::memcpy(&four, rows + r * stride + k, sizeof(four));
        a[r] = _mm256_cvtepu8_epi16(_mm_set1_epi32(four));
      }
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) {
        const __m256i four_channels =
            _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16 * q)));
#pragma GCC unroll 3
        for (int r = 0; r < kRows; ++r) {
          part[r][q] = _mm256_add_epi32(part[r][q], _mm256_madd_epi16(a[r], four_channels));
        }
      }
      w += 64 * kPanels;
    }
#pragma GCC unroll 3
    for (int r = 0; r < kRows; ++r) {
      // hadd works within 128-bit halves: the permutation puts the channels back in order
      total[r][p].low = _mm256_permute4x64_epi64(_mm256_hadd_epi32(part[r][0], part[r][1]), 0xD8);
      total[r][p].high = _mm256_permute4x64_epi64(_mm256_hadd_epi32(part[r][2], part[r][3]), 0xD8);
    }
  }
}

#endif  // MODELSAT_CPU_GEMM_TILE_AVX2_H_
