// Rows of floats to uint8, and LayerNorm. Included once per instruction set, inside its namespace.
//
// Order of a row's sums: lane i adds the elements i, i + 16, i + 32, ..., then SumLanes.

#ifndef MODELSAT_CPU_KERNEL_QUANTIZE_H_
#define MODELSAT_CPU_KERNEL_QUANTIZE_H_

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

void Quantize(const float* input, std::int64_t stride, int rows, const QuantizedRows& output) {
  for (int r = 0; r < rows; ++r) {
    const float* const row = input + r * stride;
    Lanes low = Zero();
    Lanes high = Zero();
    for (int i = 0; i < output.width; i += kLanes) {
      const Lanes x = Load(row + i);
      low = Min(x, low);
      high = Max(x, high);
    }
    QuantizeRow(row, low, high, output.width,
                output.values + static_cast<std::int64_t>(r) * output.width, output.scales + r,
                output.zero_points + r);
  }
}

// state = gamma * (state - mean) / sqrt(variance + epsilon) + beta, and its quantized copy. `sum`
// holds the lane sums of the row.
inline void NormQuantizeRow(const LayerNormWeights& norm, Lanes sum, float* state,
                            std::uint8_t* values, float* scale, std::int32_t* zero_point) {
  const float size = static_cast<float>(norm.size);
  const Lanes mean = Broadcast(SumLanes(sum) / size);
  Lanes squares = Zero();
  const int whole = norm.size / kLanes * kLanes;
  for (int i = 0; i < whole; i += kLanes) {
    const Lanes centred = Sub(Load(state + i), mean);
    squares = Fma(centred, centred, squares);
  }
  if (whole < norm.width) {  // the padding is no part of the row
    float centred[kLanes];
    Store(centred, Sub(Load(state + whole), mean));
    for (int i = norm.size - whole; i < kLanes; ++i) centred[i] = 0.0f;
    const Lanes tail = Load(centred);
    squares = Fma(tail, tail, squares);
  }
  const Lanes inverse = Broadcast(1.0f / std::sqrt(SumLanes(squares) / size + norm.epsilon));
  Lanes low = Zero();
  Lanes high = Zero();
  for (int i = 0; i < norm.width; i += kLanes) {
    const Lanes normal = Mul(Sub(Load(state + i), mean), inverse);
    const Lanes y = Fma(normal, Load(norm.gamma + i), Load(norm.beta + i));
    Store(state + i, y);
    low = Min(y, low);
    high = Max(y, high);
  }
  QuantizeRow(state, low, high, norm.width, values, scale, zero_point);
}

void AddNormQuantize(const LayerNormWeights& norm, const float* branch, std::int64_t branch_stride,
                     int rows, float* state, const QuantizedRows& output) {
  for (int r = 0; r < rows; ++r) {
    float* const row = state + static_cast<std::int64_t>(r) * norm.width;
    Lanes sum = Zero();
    for (int i = 0; i < norm.width; i += kLanes) {
      const Lanes x = Add(Load(branch + r * branch_stride + i), Load(row + i));
      Store(row + i, x);
      sum = Add(sum, x);
    }
    NormQuantizeRow(norm, sum, row, output.values + static_cast<std::int64_t>(r) * output.width,
                    output.scales + r, output.zero_points + r);
  }
}

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
  NormQuantizeRow(norm, sum, state, output.values, output.scales, output.zero_points);
}

// Order of the sum as above.
float Dot(const float* a, const float* b, int width) {
  Lanes sum = Zero();
  for (int i = 0; i < width; i += kLanes) sum = Fma(Load(a + i), Load(b + i), sum);
  return SumLanes(sum);
}

#endif  // MODELSAT_CPU_KERNEL_QUANTIZE_H_
