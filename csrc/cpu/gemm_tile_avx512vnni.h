// The int8 inner product of AVX-512 VNNI: one vpdpbusd adds 64 products. Included by
// kernels_avx512vnni.cc, inside its namespace.

#ifndef MODELSAT_CPU_GEMM_TILE_AVX512VNNI_H_
#define MODELSAT_CPU_GEMM_TILE_AVX512VNNI_H_

// 9 rows x 3 panels hold 27 of the 32 registers; the rest are 3 of weights and one of activations.
inline constexpr int kMaxTileRows = 9;

// Lines of weights that a tile fetches ahead in each step of 8 inputs. Tiles of few rows are few,
// so that each has to fetch more.
template <int kRows>
inline constexpr int kFarLines = kRows > 5 ? 1 : 3;

struct Accumulator {
  __m512i v;  // one int32 per channel of a panel
};

// *sum += for each int32 lane the inner product of four uint8 of a and four int8 of w. Not the
// intrinsic, because GCC copies the sum around it and then runs out of registers.
inline __attribute__((always_inline)) void DotAdd(__m512i* sum, __m512i a, __m512i w) {
  __asm__("vpdpbusd {%2, %1, %0|%0, %1, %2}" : "+v"(*sum) : "v"(a), "v"(w));
}

// sums[r][p] += four inputs of row r times the weights of panel p.
template <int kRows, int kPanels>
inline __attribute__((always_inline)) void AddStep(const std::uint8_t* rows, std::int64_t stride,
                                                   const std::int8_t* weights,
                                                   __m512i (&sums)[kRows][kPanels]) {
  __m512i w[kPanels];
#pragma GCC unroll 3
  for (int p = 0; p < kPanels; ++p) w[p] = _mm512_loadu_si512(weights + 64 * p);
#pragma GCC unroll 9
  for (int r = 0; r < kRows; ++r) {
    std::int32_t four;
    std::memcpy(&four, rows + r * stride, sizeof(four));
    const __m512i a = _mm512_set1_epi32(four);
#pragma GCC unroll 3
    for (int p = 0; p < kPanels; ++p) DotAdd(&sums[r][p], a, w[p]);
  }
}

// total[r][p] = sum over k of rows[r][k] * weights[k][p], exact. `depth` is a multiple of 8.
template <int kRows, int kPanels>
inline __attribute__((always_inline)) void AccumulateTile(const std::uint8_t* rows,
                                                          std::int64_t stride,
                                                          const std::int8_t* weights, int depth,
                                                          const std::int8_t* prefetch,
                                                          Accumulator (&total)[kRows][kPanels]) {
  // The weights of this group a few steps on come into the first-level cache, and those of a later
  // one into the second.
  constexpr int kNear = 8 * 64 * kPanels;
  __m512i sums[kRows][kPanels];
#pragma GCC unroll 9
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int p = 0; p < kPanels; ++p) sums[r][p] = _mm512_setzero_si512();
  }
  const std::uint8_t* const end = rows + depth;
  for (; rows != end; rows += 8) {
#pragma GCC unroll 6
    for (int line = 0; line < 2 * kPanels; ++line) {
      _mm_prefetch(reinterpret_cast<const char*>(weights + kNear + 64 * line), _MM_HINT_T0);
    }
#pragma GCC unroll 3
    for (int line = 0; line < kFarLines<kRows>; ++line) {
      _mm_prefetch(reinterpret_cast<const char*>(prefetch + 64 * line), _MM_HINT_T1);
    }
    prefetch += 64 * kFarLines<kRows>;
    AddStep<kRows, kPanels>(rows, stride, weights, sums);
    AddStep<kRows, kPanels>(rows + 4, stride, weights + 64 * kPanels, sums);
    weights += 2 * 64 * kPanels;
  }
#pragma GCC unroll 9
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int p = 0; p < kPanels; ++p) total[r][p].v = sums[r][p];
  }
}

// total - zero_point * sums, as floats.
inline Lanes ToFloat(Accumulator total, const ZeroPoint& zero_point, const ChannelSum* sums) {
  const __m512i factors = _mm512_set1_epi32(zero_point.factors);
  return {_mm512_cvtepi32_ps(_mm512_dpwssd_epi32(total.v, factors, _mm512_loadu_si512(sums)))};
}

#endif  // MODELSAT_CPU_GEMM_TILE_AVX512VNNI_H_
