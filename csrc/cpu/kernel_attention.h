// Attention of one head of one instruction. Included once per instruction set, inside its
// namespace.
//
//   score[j]  = sum_d q[d] k[j][d]                      d ascending, fused; own key and memory: Dot
//   p[j]      = 2^(score[j] - max score)                the queries carry log2(e) / sqrt(head size)
//   output[d] = (sum_j p[j] v[j][d]) / sum_j p[j]       j over the instruction, then self, then
//   memory
//
// The sum of p: lane i adds the keys i, i + 16, ... of the instruction, then of self and memory,
// then SumLanes. Keys of padding have p = 0.

#ifndef MODELSAT_CPU_KERNEL_ATTENTION_H_
#define MODELSAT_CPU_KERNEL_ATTENTION_H_

void PackKeys(const float* keys, std::int64_t stride, int tokens, int head_width,
              float* packed_keys) {
  const int padded = PadToLanes(tokens);
  const int whole = tokens / kLanes * kLanes;
  for (int d = 0; d < head_width; d += kLanes) {
    float* const out = packed_keys + static_cast<std::int64_t>(d) * padded;
    for (int j = 0; j < whole; j += kLanes) {
      Transpose16(keys + j * stride + d, stride, out + j, padded);
    }
    if (whole < tokens) {
      float block[kLanes * kLanes];
      for (int j = 0; j < kLanes; ++j) {
        Store(block + j * kLanes,
              whole + j < tokens ? Load(keys + (whole + j) * stride + d) : Zero());
      }
      Transpose16(block, kLanes, out + whole, padded);
    }
  }
}

// scores[r][j .. j + 16 * kVectors) of kRows queries.
template <int kRows, int kVectors>
inline __attribute__((always_inline)) void ScoreKeys(const float* queries,
                                                     std::int64_t query_stride, const float* keys,
                                                     int padded_tokens, int head_width,
                                                     float* scores, std::int64_t score_stride) {
  Lanes sum[kRows][kVectors];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[r][v] = Zero();
  }
  for (int d = 0; d < head_width; ++d) {
    Lanes key[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      key[v] = Load(keys + static_cast<std::int64_t>(d) * padded_tokens + v * kLanes);
    }
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const Lanes query = Broadcast(queries[r * query_stride + d]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] = Fma(query, key[v], sum[r][v]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) Store(scores + r * score_stride + v * kLanes, sum[r][v]);
  }
}

// Scores of a row's own key and of its candidate's memory.
inline void ScoreOwn(const AttentionArgs& args, int row, float* scores) {
  const float* const query = args.queries + row * args.query_stride;
  const int padded = PadToLanes(1 + args.memory_rows);
  scores[0] = Dot(query, args.own_keys + row * args.own_stride, args.head_width);
  if (args.memory_rows > 0) {
    const float* const keys = args.memory + row * args.memory_stride;
    const int padded_memory = PadToLanes(args.memory_rows);
    float block[kLanes];
    for (int j = 0; j < args.memory_rows; j += kLanes) {
      Lanes sum = Zero();
      for (int d = 0; d < args.head_width; ++d) {
        sum = Fma(Broadcast(query[d]),
                  Load(keys + static_cast<std::int64_t>(d) * padded_memory + j), sum);
      }
      Store(block, sum);
      const int count = args.memory_rows - j < kLanes ? args.memory_rows - j : kLanes;
      for (int i = 0; i < count; ++i) scores[1 + j + i] = block[i];
    }
  }
  for (int j = 1 + args.memory_rows; j < padded; ++j) scores[j] = kMaskedScore;
}

// Scores [kRows, stride] to weights p, in place, and 1 / sum of p. The rows go side by side,
// because each is a chain of steps that wait for one another.
template <int kRows>
inline void WeighScores(float* scores, std::int64_t stride, int tokens, float* inverse_sums) {
  const int padded = PadToLanes(tokens);
  Lanes highest[kRows];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    for (int j = tokens; j < padded; ++j) scores[r * stride + j] = kMaskedScore;
    highest[r] = Load(scores + r * stride);
  }
  for (int j = kLanes; j < stride; j += kLanes) {
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) highest[r] = Max(Load(scores + r * stride + j), highest[r]);
  }
  Lanes peak[kRows];
  Lanes sum[kRows];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    peak[r] = Broadcast(MaxLanes(highest[r]));
    sum[r] = Zero();
  }
  for (int j = 0; j < stride; j += kLanes) {
    Lanes p[kRows];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) p[r] = Sub(Load(scores + r * stride + j), peak[r]);
    Exp2NonPositive(p);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      Store(scores + r * stride + j, p[r]);
      sum[r] = Add(sum[r], p[r]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) inverse_sums[r] = 1.0f / SumLanes(sum[r]);
}

template <int kRows, int kVectors>
inline __attribute__((always_inline)) void SumValues(const AttentionArgs& args, int first_row,
                                                     int d, const float* weights,
                                                     std::int64_t weight_stride,
                                                     const float* inverse_sums) {
  Lanes sum[kRows][kVectors];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = Zero();
  }
  for (int j = 0; j < args.tokens; ++j) {
    Lanes value[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      value[v] = Load(args.values + j * args.value_stride + d + v * kLanes);
    }
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const Lanes weight = Broadcast(weights[r * weight_stride + j]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[r][v] = Fma(weight, value[v], sum[r][v]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    const int row = first_row + r;
    if (args.own_values != nullptr) {
      const float* const own = weights + r * weight_stride + PadToLanes(args.tokens);
      const float* const own_value = args.own_values + row * args.own_stride + d;
      const float* const memory_values =
          args.memory + row * args.memory_stride +
          static_cast<std::int64_t>(args.head_width) * PadToLanes(args.memory_rows) + d;
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = Fma(Broadcast(own[0]), Load(own_value + v * kLanes), sum[r][v]);
        for (int j = 0; j < args.memory_rows; ++j) {
          const float* const value = memory_values + static_cast<std::int64_t>(j) * args.head_width;
          sum[r][v] = Fma(Broadcast(own[1 + j]), Load(value + v * kLanes), sum[r][v]);
        }
      }
    }
    const Lanes inverse = Broadcast(inverse_sums[r]);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      Store(args.output + row * args.output_stride + d + v * kLanes, Mul(sum[r][v], inverse));
    }
  }
}

template <int kRows>
void AttendTile(const AttentionArgs& args, int first_row) {
  const int padded = PadToLanes(args.tokens);
  const int own = args.own_keys == nullptr ? 0 : PadToLanes(1 + args.memory_rows);
  const std::int64_t stride = padded + own;
  const float* const queries = args.queries + first_row * args.query_stride;
  int j = 0;
  for (; j + 4 * kLanes <= padded; j += 4 * kLanes) {
    ScoreKeys<kRows, 4>(queries, args.query_stride, args.keys + j, padded, args.head_width,
                        args.scores + j, stride);
  }
  for (; j < padded; j += kLanes) {
    ScoreKeys<kRows, 1>(queries, args.query_stride, args.keys + j, padded, args.head_width,
                        args.scores + j, stride);
  }
  float inverse_sums[kRows];
  // self and memory follow the instruction without a gap
  for (int r = 0; r < kRows && own > 0; ++r) {
    ScoreOwn(args, first_row + r, args.scores + r * stride + padded);
  }
  WeighScores<kRows>(args.scores, stride, args.tokens, inverse_sums);
  int d = 0;
  for (; d + 2 * kLanes <= args.head_width; d += 2 * kLanes) {
    SumValues<kRows, 2>(args, first_row, d, args.scores, stride, inverse_sums);
  }
  if (d < args.head_width) {
    SumValues<kRows, 1>(args, first_row, d, args.scores, stride, inverse_sums);
  }
}

void Attend(const AttentionArgs& args) {
  static_assert(kMaxAttentionTile == 6, "one case per tile height");
  int row = 0;
  for (; row + 6 <= args.rows; row += 6) AttendTile<6>(args, row);
  switch (args.rows - row) {
    case 5:
      return AttendTile<5>(args, row);
    case 4:
      return AttendTile<4>(args, row);
    case 3:
      return AttendTile<3>(args, row);
    case 2:
      return AttendTile<2>(args, row);
    case 1:
      return AttendTile<1>(args, row);
    default:
      return;
  }
}

#endif  // MODELSAT_CPU_KERNEL_ATTENTION_H_
