// The int8 inner product in plain C++. Included by kernels_portable.cc, inside its namespace.

#ifndef MODELSAT_CPU_GEMM_TILE_PORTABLE_H_
#define MODELSAT_CPU_GEMM_TILE_PORTABLE_H_

inline constexpr int kMaxTileRows = 1;

template <int kRows>
inline constexpr int kFarLines = 0;  // nothing is fetched ahead

struct Accumulator {
  std::int32_t v[kLanes];
};

// total[r][p] = sum over k of rows[r][k] * weights[k][p], exact.
template <int kRows, int kPanels>
inline void AccumulateTile(const std::uint8_t* rows, std::int64_t stride,
                           const std::int8_t* weights, int depth, const std::int8_t* /*prefetch*/,
                           Accumulator (&total)[kRows][kPanels]) {
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) {
      std::int32_t part[4 * kLanes] = {};
      for (int k = 0; k < depth; k += 4) {
        const std::int8_t* const w =
            weights + static_cast<std::int64_t>(k) * kLanes * kPanels + 4 * kLanes * p;
        std::int16_t a[8];
        for (int i = 0; i < 8; ++i) a[i] = rows[r * stride + k + i % 4];
        for (int c = 0; c < 4 * kLanes; c += 8) {
          for (int i = 0; i < 8; ++i) part[c + i] += std::int32_t{a[i]} * w[c + i];
        }
      }
      for (int c = 0; c < kLanes; ++c) {
        total[r][p].v[c] = part[4 * c] + part[4 * c + 1] + part[4 * c + 2] + part[4 * c + 3];
      }
    }
  }
}

// total - zero_point * sums, as floats.
inline Lanes ToFloat(const Accumulator& total, const ZeroPoint& zero_point,
                     const ChannelSum* sums) {
  Lanes out;
  for (int c = 0; c < kLanes; ++c) {
    const std::int32_t sum = sums[c].upper * ChannelSum::kUnit + sums[c].lower;
    out.v[c] = static_cast<float>(total.v[c] - zero_point.value() * sum);
  }
  return out;
}

#endif  // MODELSAT_CPU_GEMM_TILE_PORTABLE_H_
