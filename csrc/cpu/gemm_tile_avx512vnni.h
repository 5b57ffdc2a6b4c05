// The int8 inner product of AVX-512 VNNI: one vpdpbusd adds 64 products. Included by
// kernels_avx512vnni.cc, inside its namespace.

#ifndef MODELSAT_CPU_GEMM_TILE_AVX512VNNI_H_
#define MODELSAT_CPU_GEMM_TILE_AVX512VNNI_H_

// 9 rows x 3 panels hold 27 of the 32 registers; the rest are 3 of weights and one of activations.
inline constexpr int kMaxTileRows = 9;

struct Accumulator {
  __m512i v;  // one int32 per channel of a panel
};

// *sum += for each int32 lane the inner product of four uint8 of a and four int8 of w. Not the
// intrinsic, because GCC copies the sum around it and then runs out of registers.
inline __attribute__((always_inline)) void DotAdd(__m512i* sum, __m512i a, __m512i w) {
  __asm__("vpdpbusd {%2, %1, %0|%0, %1, %2}" : "+v"(*sum) : "v"(a), "v"(w));
}

// total[r][p] = sum over k of rows[r][k] * weights[k][p], exact.
template <int kRows, int kPanels>
inline __attribute__((always_inline)) void AccumulateTile(const std::uint8_t* rows,
                                                          std::int64_t stride,
                                                          const std::int8_t* weights, int depth,
                                                          const std::int8_t* prefetch,
                                                          Accumulator (&total)[kRows][kPanels]) {
#pragma GCC unroll 9
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int p = 0; p < kPanels; ++p) total[r][p].v = _mm512_setzero_si512();
  }
  for (int k = 0; k < depth; k += 4) {
    __m512i w[kPanels];
#pragma GCC unroll 3
    for (int p = 0; p < kPanels; ++p) w[p] = _mm512_loadu_si512(weights + 64 * p);
    weights += 64 * kPanels;
    _mm_prefetch(reinterpret_cast<const char*>(prefetch), _MM_HINT_T1);
    prefetch += 64;
#pragma GCC unroll 9
    for (int r = 0; r < kRows; ++r) {
      std::int32_t four;
      std::memcpy(&four, rows + r * stride + k, sizeof(four));
      const __m512i a = _mm512_set1_epi32(four);
#pragma GCC unroll 3
      for (int p = 0; p < kPanels; ++p) {
        DotAdd(&total[r][p].v, a, w[p]);
      }
    }
  }
}

// total - zero_point * column_sums, as floats.
inline Lanes ToFloat(Accumulator total, std::int32_t zero_point, const std::int32_t* column_sums) {
  const __m512i sums = _mm512_loadu_si512(column_sums);
  const __m512i correction = _mm512_mullo_epi32(_mm512_set1_epi32(zero_point), sums);
  return {_mm512_cvtepi32_ps(_mm512_sub_epi32(total.v, correction))};
}

#endif  // MODELSAT_CPU_GEMM_TILE_AVX512VNNI_H_
