// Rows of floats to uint8, and LayerNorm. Included once per instruction set, inside its namespace.
//
// Order of a row's sums: lane i of sum q adds the elements i + 16 q, i + 16 q + 64, ...; then sums
// 0 and 1, sums 2 and 3, those two, SumLanes. Four sums, because each addition waits for the last.

#ifndef MODELSAT_CPU_KERNEL_QUANTIZE_H_
#define MODELSAT_CPU_KERNEL_QUANTIZE_H_

constexpr int kSums = 4;

inline float SumOf(const Lanes (&sums)[kSums]) {
  return SumLanes(Add(Add(sums[0], sums[1]), Add(sums[2], sums[3])));
}

struct RowScale {
  float inverse;
  std::int32_t zero_point;
};

// Spreads [low, high], which holds 0, over 0 .. 255. A range too narrow for float arithmetic
// becomes scale 0; one that is not finite becomes scale NaN, which the answer will show.
inline RowScale ChooseScale(float low, float high, float* scale, std::int32_t* zero_point) {
  constexpr float kNarrowest = 1e-30f;
  constexpr float kWidest = 3e38f;
  const float range = high - low;
  RowScale out{0.0f, 0};
  if (range > kNarrowest && range < kWidest) {
    *scale = range / 255.0f;
    out.inverse = 255.0f / range;
    // low <= 0, so that this rounds half up
    out.zero_point = static_cast<std::int32_t>(0.5f - low * out.inverse);
    if (out.zero_point > 255) out.zero_point = 255;
  } else {
    *scale = range <= kNarrowest ? 0.0f : range - range;
  }
  *zero_point = out.zero_point;
  return out;
}

inline void QuantizeRow(const float* row, Lanes low, Lanes high, int width, std::uint8_t* values,
                        float* scale, std::int32_t* zero_point) {
  const RowScale chosen = ChooseScale(MinLanes(low), MaxLanes(high), scale, zero_point);
  if (chosen.inverse == 0.0f) {
    for (int i = 0; i < width; ++i) values[i] = 0;
    return;
  }
  const Lanes inverse = Broadcast(chosen.inverse);
  for (int i = 0; i < width; i += kLanes) {
    StoreQuantized(values + i, Mul(Load(row + i), inverse), chosen.zero_point);
  }
}

// Lowest and highest value so far; two of each, because each step waits for the last.
struct Range {
  Lanes low[2] = {Zero(), Zero()};
  Lanes high[2] = {Zero(), Zero()};

  void Add(int vector, Lanes x) {
    low[vector % 2] = Min(x, low[vector % 2]);
    high[vector % 2] = Max(x, high[vector % 2]);
  }
  Lanes Low() const { return Min(low[0], low[1]); }
  Lanes High() const { return Max(high[0], high[1]); }
};

void Quantize(const float* input, std::int64_t stride, int rows, const QuantizedRows& output) {
  const int vectors = output.width / kLanes;
  for (int r = 0; r < rows; ++r) {
    const float* const row = input + r * stride;
    Range range;
    int v = 0;
    for (; v + 2 <= vectors; v += 2) {
      range.Add(0, Load(row + v * kLanes));
      range.Add(1, Load(row + (v + 1) * kLanes));
    }
    if (v < vectors) range.Add(0, Load(row + v * kLanes));
    QuantizeRow(row, range.Low(), range.High(), output.width,
                output.values + static_cast<std::int64_t>(r) * output.width, output.scales + r,
                output.zero_points + r);
  }
}

inline Lanes Normalise(const LayerNormWeights& norm, Lanes mean, Lanes inverse, int i,
                       float* state) {
  const Lanes normal = Mul(Sub(Load(state + i), mean), inverse);
  const Lanes y = Fma(normal, Load(norm.gamma + i), Load(norm.beta + i));
  Store(state + i, y);
  return y;
}

// state = gamma * (state - mean) / sqrt(variance + epsilon) + beta, and its quantized copy. `sum`
// is the sum of the row.
inline void NormQuantizeRow(const LayerNormWeights& norm, float sum, float* state,
                            std::uint8_t* values, float* scale, std::int32_t* zero_point) {
  const float size = static_cast<float>(norm.size);
  const Lanes mean = Broadcast(sum / size);
  Lanes squares[kSums] = {Zero(), Zero(), Zero(), Zero()};
  const int whole = norm.size / kLanes;
  int v = 0;
  for (; v + kSums <= whole; v += kSums) {
#pragma GCC unroll 4
    for (int q = 0; q < kSums; ++q) {
      const Lanes centred = Sub(Load(state + (v + q) * kLanes), mean);
      squares[q] = Fma(centred, centred, squares[q]);
    }
  }
  for (int q = 0; v < whole; ++v, ++q) {
    const Lanes centred = Sub(Load(state + v * kLanes), mean);
    squares[q] = Fma(centred, centred, squares[q]);
  }
  if (whole * kLanes < norm.width) {  // the padding is no part of the row
    float centred[kLanes];
    Store(centred, Sub(Load(state + whole * kLanes), mean));
    for (int i = norm.size - whole * kLanes; i < kLanes; ++i) centred[i] = 0.0f;
    const Lanes tail = Load(centred);
    squares[kSums - 1] = Fma(tail, tail, squares[kSums - 1]);
  }
  const Lanes inverse = Broadcast(1.0f / std::sqrt(SumOf(squares) / size + norm.epsilon));
  Range range;
  int i = 0;
  for (; i + 2 * kLanes <= norm.width; i += 2 * kLanes) {
    range.Add(0, Normalise(norm, mean, inverse, i, state));
    range.Add(1, Normalise(norm, mean, inverse, i + kLanes, state));
  }
  if (i < norm.width) range.Add(0, Normalise(norm, mean, inverse, i, state));
  QuantizeRow(state, range.Low(), range.High(), norm.width, values, scale, zero_point);
}

void AddNormQuantize(const LayerNormWeights& norm, const float* branch, std::int64_t branch_stride,
                     int rows, float* state, const QuantizedRows& output) {
  const int vectors = norm.width / kLanes;
  for (int r = 0; r < rows; ++r) {
    float* const row = state + static_cast<std::int64_t>(r) * norm.width;
    const float* const added = branch + r * branch_stride;
    Lanes sums[kSums] = {Zero(), Zero(), Zero(), Zero()};
    int v = 0;
    for (; v + kSums <= vectors; v += kSums) {
#pragma GCC unroll 4
      for (int q = 0; q < kSums; ++q) {
        const int i = (v + q) * kLanes;
        const Lanes x = Add(Load(added + i), Load(row + i));
        Store(row + i, x);
        sums[q] = Add(sums[q], x);
      }
    }
    for (int q = 0; v < vectors; ++v, ++q) {
      const int i = v * kLanes;
      const Lanes x = Add(Load(added + i), Load(row + i));
      Store(row + i, x);
      sums[q] = Add(sums[q], x);
    }
    NormQuantizeRow(norm, SumOf(sums), row,
                    output.values + static_cast<std::int64_t>(r) * output.width, output.scales + r,
                    output.zero_points + r);
  }
}

// The sum here is one of lanes alone: SumLanes of the elements i, i + 16, ...
void Embed(const LayerNormWeights& norm, const std::int8_t* word, float word_scale,
           const std::int8_t* position, float position_scale, float* state,
           const QuantizedRows& output) {
  const Lanes word_scales = Broadcast(word_scale);
  const Lanes position_scales = Broadcast(position_scale);
  Lanes sum = Zero();
  for (int i = 0; i < norm.width; i += kLanes) {
    std::int8_t word_tail[kLanes] = {};
    std::int8_t position_tail[kLanes] = {};
    const std::int8_t* w = word + i;
    const std::int8_t* p = position + i;
    if (i + kLanes > norm.size) {
      for (int j = 0; i + j < norm.size; ++j) {
        word_tail[j] = w[j];
        position_tail[j] = p[j];
      }
      w = word_tail;
      p = position_tail;
    }
    const Lanes x = Fma(LoadInt8(w), word_scales, Mul(LoadInt8(p), position_scales));
    Store(state + i, x);
    sum = Add(sum, x);
  }
  NormQuantizeRow(norm, SumLanes(sum), state, output.values, output.scales, output.zero_points);
}

// As the sum of Embed.
float Dot(const float* a, const float* b, int width) {
  Lanes sum = Zero();
  for (int i = 0; i < width; i += kLanes) sum = Fma(Load(a + i), Load(b + i), sum);
  return SumLanes(sum);
}

#endif  // MODELSAT_CPU_KERNEL_QUANTIZE_H_
