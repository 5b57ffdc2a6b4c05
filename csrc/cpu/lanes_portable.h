// Sixteen floats in plain C++. Included by kernels_portable.cc, inside its namespace.

#ifndef MODELSAT_CPU_LANES_PORTABLE_H_
#define MODELSAT_CPU_LANES_PORTABLE_H_

struct Lanes {
  float v[kLanes];
};

template <typename Operation>
inline Lanes Map(const Lanes& a, const Lanes& b, Operation operation) {
  Lanes out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = operation(a.v[i], b.v[i]);
  return out;
}

inline Lanes Broadcast(float x) {
  Lanes out;
  for (float& lane : out.v) lane = x;
  return out;
}
inline Lanes Zero() { return Broadcast(0.0f); }
inline Lanes Load(const float* p) {
  Lanes out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = p[i];
  return out;
}
inline void Store(float* p, const Lanes& a) {
  for (int i = 0; i < kLanes; ++i) p[i] = a.v[i];
}
inline Lanes LoadInt8(const std::int8_t* p) {
  Lanes out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = p[i];
  return out;
}

inline Lanes Add(const Lanes& a, const Lanes& b) {
  return Map(a, b, [](float x, float y) { return x + y; });
}
inline Lanes Sub(const Lanes& a, const Lanes& b) {
  return Map(a, b, [](float x, float y) { return x - y; });
}
inline Lanes Mul(const Lanes& a, const Lanes& b) {
  return Map(a, b, [](float x, float y) { return x * y; });
}
inline Lanes Fma(const Lanes& a, const Lanes& b, const Lanes& c) {
  Lanes out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = std::fma(a.v[i], b.v[i], c.v[i]);
  return out;
}
// The second one when either is NaN, as the x86 instructions do.
inline Lanes Max(const Lanes& a, const Lanes& b) {
  return Map(a, b, [](float x, float y) { return x > y ? x : y; });
}
inline Lanes Min(const Lanes& a, const Lanes& b) {
  return Map(a, b, [](float x, float y) { return x < y ? x : y; });
}
inline Lanes Abs(const Lanes& a) {
  return Map(a, a, [](float x, float) { return std::fabs(x); });
}

// a where x >= bound, else 0.
inline Lanes WhereAtLeast(const Lanes& x, const Lanes& bound, const Lanes& a) {
  Lanes out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = x.v[i] >= bound.v[i] ? a.v[i] : 0.0f;
  return out;
}

// Nearest integer, ties to even, for |x| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
inline float RoundScalar(float x) {
  constexpr float kShift = 12582912.0f;
  return (x + kShift) - kShift;
}
inline Lanes Round(const Lanes& a) {
  return Map(a, a, [](float x, float) { return RoundScalar(x); });
}

// 2^n for integral n in [-126, 127].
inline Lanes PowerOfTwo(const Lanes& n) {
  Lanes out;
  for (int i = 0; i < kLanes; ++i) {
    const std::uint32_t bits = static_cast<std::uint32_t>(static_cast<std::int32_t>(n.v[i]) + 127)
                               << 23;
    std::memcpy(&out.v[i], &bits, sizeof(bits));
  }
  return out;
}

// Lanes i and i + 8, then i and i + 4, i and i + 2, i and i + 1.
template <typename Operation>
inline float Reduce(Lanes a, Operation operation) {
  for (int half = kLanes / 2; half >= 1; half /= 2) {
    for (int i = 0; i < half; ++i) a.v[i] = operation(a.v[i], a.v[i + half]);
  }
  return a.v[0];
}
inline float SumLanes(const Lanes& a) {
  return Reduce(a, [](float x, float y) { return x + y; });
}
inline float MaxLanes(const Lanes& a) {
  return Reduce(a, [](float x, float y) { return x > y ? x : y; });
}
inline float MinLanes(const Lanes& a) {
  return Reduce(a, [](float x, float y) { return x < y ? x : y; });
}

// Nearest integers, saturated to uint8.
inline void StoreRounded(std::uint8_t* p, const Lanes& a) {
  for (int i = 0; i < kLanes; ++i) {
    const std::int32_t rounded = static_cast<std::int32_t>(RoundScalar(a.v[i]));
    p[i] = static_cast<std::uint8_t>(rounded < 0 ? 0 : rounded > 255 ? 255 : rounded);
  }
}
inline void StoreRounded4(std::uint8_t* p, const Lanes& a, const Lanes& b, const Lanes& c,
                          const Lanes& d) {
  StoreRounded(p, a);
  StoreRounded(p + kLanes, b);
  StoreRounded(p + 2 * kLanes, c);
  StoreRounded(p + 3 * kLanes, d);
}

// out[c][r] = in[r][c] for 16 x 16 floats.
inline void Transpose16(const float* in, std::int64_t in_stride, float* out,
                        std::int64_t out_stride) {
  for (int row = 0; row < kLanes; ++row) {
    for (int column = 0; column < kLanes; ++column) {
      out[column * out_stride + row] = in[row * in_stride + column];
    }
  }
}

#endif  // MODELSAT_CPU_LANES_PORTABLE_H_
