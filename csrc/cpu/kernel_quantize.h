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
inline RowScale ChooseScale(float low, float high, float* scale, ZeroPoint* zero_point) {
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
  *zero_point = ZeroPoint::Of(out.zero_point);
  return out;
}

inline void RoundRow(const float* row, const RowScale& scale, int width, std::uint8_t* values) {
  if (scale.inverse == 0.0f) {
    for (int i = 0; i < width; ++i) values[i] = 0;
    return;
  }
  const Lanes inverse = Broadcast(scale.inverse);
  const Lanes zero = Broadcast(static_cast<float>(scale.zero_point));
  int i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes) {
    StoreRounded4(values + i, Fma(Load(row + i), inverse, zero),
                  Fma(Load(row + i + kLanes), inverse, zero),
                  Fma(Load(row + i + 2 * kLanes), inverse, zero),
                  Fma(Load(row + i + 3 * kLanes), inverse, zero));
  }
  for (; i < width; i += kLanes) StoreRounded(values + i, Fma(Load(row + i), inverse, zero));
}

// kRows rows whose lowest and highest values are known per lane. All scales come first, because
// each is a chain of steps that wait for one another.
template <int kRows>
inline void QuantizeRows(const float* rows, std::int64_t stride, const Lanes (&low)[kRows],
                         const Lanes (&high)[kRows], const QuantizedRows& output, int block = 0) {
  RowScale scales[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    const int place = r * output.blocks + block;
    scales[r] = ChooseScale(MinLanes(low[r]), MaxLanes(high[r]), output.scales + place,
                            output.zero_points + place);
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    RoundRow(rows + r * stride, scales[r], output.WidthOf(block),
             output.values + static_cast<std::int64_t>(r) * output.width + block * kBlock);
  }
}

template <int kRows>
void FindRangesAndQuantize(const float* input, std::int64_t stride, const QuantizedRows& output,
                           int block) {
  Lanes low[kRows];
  Lanes high[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) low[r] = high[r] = Zero();
  const int width = output.WidthOf(block);
  for (int i = 0; i < width; i += kLanes) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Lanes x = Load(input + r * stride + i);
      low[r] = Min(x, low[r]);
      high[r] = Max(x, high[r]);
    }
  }
  QuantizeRows<kRows>(input, stride, low, high, output, block);
}

// Rows of one block of the output's values.
void QuantizeBlock(const float* input, std::int64_t stride, int rows, const QuantizedRows& output,
                   int block) {
  int r = 0;
  for (; r + 4 <= rows; r += 4) {
    FindRangesAndQuantize<4>(input + r * stride, stride, output.From(r), block);
  }
  for (; r < rows; ++r) FindRangesAndQuantize<1>(input + r * stride, stride, output.From(r), block);
}

void Quantize(const float* input, std::int64_t stride, int rows, const QuantizedRows& output) {
  QuantizeBlock(input, stride, rows, output, 0);
}

// state = gamma * (state - mean) / sqrt(variance + epsilon) + beta for kRows rows, and their
// quantized copies. `sums` are those of the rows. Rows go side by side, because each is a chain of
// steps that wait for one another.
template <int kRows>
inline void NormQuantizeRows(LayerNormWeights norm, const Lanes (&sums)[kRows][kSums], float* state,
                             const QuantizedRows& output) {
  const std::int64_t stride = norm.width;
  const float size = static_cast<float>(norm.size);
  const int whole = norm.size / kLanes;
  Lanes mean[kRows];
  Lanes squares[kRows][kSums];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    mean[r] = Broadcast(SumOf(sums[r]) / size);
#pragma GCC unroll 4
    for (int q = 0; q < kSums; ++q) squares[r][q] = Zero();
  }
  const auto add_square = [&](int r, int q, Lanes x) {
    const Lanes centred = Sub(x, mean[r]);
    squares[r][q] = Fma(centred, centred, squares[r][q]);
  };
  int v = 0;
  for (; v + kSums <= whole; v += kSums) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int q = 0; q < kSums; ++q) add_square(r, q, Load(state + r * stride + (v + q) * kLanes));
    }
  }
  for (int q = 0; v + q < whole; ++q) {
    for (int r = 0; r < kRows; ++r) add_square(r, q, Load(state + r * stride + (v + q) * kLanes));
  }
  if (whole * kLanes < norm.width) {  // the padding is no part of the row
    for (int r = 0; r < kRows; ++r) {
      float centred[kLanes];
      Store(centred, Sub(Load(state + r * stride + whole * kLanes), mean[r]));
      for (int i = norm.size - whole * kLanes; i < kLanes; ++i) centred[i] = 0.0f;
      const Lanes tail = Load(centred);
      squares[r][kSums - 1] = Fma(tail, tail, squares[r][kSums - 1]);
    }
  }
  Lanes inverse[kRows];
  Lanes low[kRows];
  Lanes high[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    inverse[r] = Broadcast(1.0f / std::sqrt(SumOf(squares[r]) / size + norm.epsilon));
    low[r] = high[r] = Zero();
  }
  for (int i = 0; i < norm.width; i += kLanes) {
    const Lanes gamma = Load(norm.gamma + i);
    const Lanes beta = Load(norm.beta + i);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      float* const place = state + r * stride + i;
      const Lanes y = Fma(Mul(Sub(Load(place), mean[r]), inverse[r]), gamma, beta);
      Store(place, y);
      low[r] = Min(y, low[r]);
      high[r] = Max(y, high[r]);
    }
  }
  QuantizeRows<kRows>(state, stride, low, high, output);
}

// For each row the sums of what load(row, i) gives, which is kept in the state. Sizes are copies,
// because to the compiler a store of a vector might change whatever is passed by reference.
template <int kRows, typename Source>
inline void StartNorm(int width, const Source& load, float* state, Lanes (&sums)[kRows][kSums]) {
  const auto take = [&](int r, int q, int vector) {
    const Lanes x = load(r, vector * kLanes);
    Store(state + static_cast<std::int64_t>(r) * width + vector * kLanes, x);
    sums[r][q] = Add(sums[r][q], x);
  };
  const int vectors = width / kLanes;
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int q = 0; q < kSums; ++q) sums[r][q] = Zero();
  }
  int v = 0;
  for (; v + kSums <= vectors; v += kSums) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int q = 0; q < kSums; ++q) take(r, q, v + q);
    }
  }
  for (int q = 0; v + q < vectors; ++q) {
    for (int r = 0; r < kRows; ++r) take(r, q, v + q);
  }
}

template <int kRows>
void AddNormQuantizeRows(const LayerNormWeights& norm, const float* branch,
                         std::int64_t branch_stride, float* state, const QuantizedRows& output) {
  const std::int64_t width = norm.width;
  const auto add = [=](int r, int i) __attribute__((always_inline)) {
    return Add(Load(branch + r * branch_stride + i), Load(state + r * width + i));
  };
  Lanes sums[kRows][kSums];
  StartNorm<kRows>(norm.width, add, state, sums);
  NormQuantizeRows<kRows>(norm, sums, state, output);
}

void AddNormQuantize(const LayerNormWeights& norm, const float* branch, std::int64_t branch_stride,
                     int rows, float* state, const QuantizedRows& output) {
  const std::int64_t width = norm.width;
  int r = 0;
  for (; r + 4 <= rows; r += 4) {
    AddNormQuantizeRows<4>(norm, branch + r * branch_stride, branch_stride, state + r * width,
                           output.From(r));
  }
  for (; r < rows; ++r) {
    AddNormQuantizeRows<1>(norm, branch + r * branch_stride, branch_stride, state + r * width,
                           output.From(r));
  }
}

// The last vector of a row of int8 values, which may end inside it.
inline Lanes LoadTail(const std::int8_t* row, int i, int size) {
  std::int8_t tail[kLanes] = {};
  for (int j = 0; i + j < size; ++j) tail[j] = row[i + j];
  return LoadInt8(tail);
}

template <int kRows>
void EmbedRows(const LayerNormWeights& norm, const EmbeddingTables& tables,
               const std::int32_t* token_ids, int first_position, float* state,
               const QuantizedRows& output) {
  const std::int8_t* words[kRows];
  const std::int8_t* positions[kRows];
  Lanes word_scales[kRows];
  Lanes position_scales[kRows];
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t position = first_position + r;
    words[r] = tables.words + std::int64_t{token_ids[r]} * norm.size;
    positions[r] = tables.positions + position * norm.size;
    word_scales[r] = Broadcast(tables.word_scales[token_ids[r]]);
    position_scales[r] = Broadcast(tables.position_scales[position]);
  }
  Lanes sums[kRows][kSums];
  const auto look_up = [&, size = norm.size](int r, int i) __attribute__((always_inline)) {
    const bool whole = i + kLanes <= size;
    const Lanes word = whole ? LoadInt8(words[r] + i) : LoadTail(words[r], i, size);
    const Lanes position = whole ? LoadInt8(positions[r] + i) : LoadTail(positions[r], i, size);
    return Fma(word, word_scales[r], Mul(position, position_scales[r]));
  };
  StartNorm<kRows>(norm.width, look_up, state, sums);
  NormQuantizeRows<kRows>(norm, sums, state, output);
}

void Embed(const LayerNormWeights& norm, const EmbeddingTables& tables,
           const std::int32_t* token_ids, int tokens, float* state, const QuantizedRows& output) {
  // The words lie anywhere in a table of megabytes: all are fetched before the first is needed.
  for (int t = 0; t < tokens; ++t) {
    const std::int8_t* const word = tables.words + std::int64_t{token_ids[t]} * norm.size;
    for (int i = 0; i < norm.size; i += 64) __builtin_prefetch(word + i);
  }
  int t = 0;
  for (; t + 4 <= tokens; t += 4) {
    EmbedRows<4>(norm, tables, token_ids + t, t, state + std::int64_t{t} * norm.width,
                 output.From(t));
  }
  for (; t < tokens; ++t) {
    EmbedRows<1>(norm, tables, token_ids + t, t, state + std::int64_t{t} * norm.width,
                 output.From(t));
  }
}

// The sum is one of lanes alone: SumLanes of the products i, i + 16, ...
float Dot(const float* a, const float* b, int width) {
  Lanes sum = Zero();
  for (int i = 0; i < width; i += kLanes) sum = Fma(Load(a + i), Load(b + i), sum);
  return SumLanes(sum);
}

#endif  // MODELSAT_CPU_KERNEL_QUANTIZE_H_
