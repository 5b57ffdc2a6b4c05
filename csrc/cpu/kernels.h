// The operations of the network, one table of functions per instruction set.
//
// Every function gives the same bits on every instruction set: integer sums are exact, and float
// arithmetic has one order, stated in the file of the operation (kernel_*.h). A row's result never
// depends on the rows beside it.
//
// All widths (features, head sizes) are multiples of kLanes; whoever packs the weights pads them
// with zeros. Matrices are row-major with a stride in elements.

#ifndef MODELSAT_CPU_KERNELS_H_
#define MODELSAT_CPU_KERNELS_H_

#include <cstdint>

#include "cpu/isa.h"

namespace modelsat {

inline constexpr int kLanes = 16;          // floats that are treated as one vector everywhere
inline constexpr int kPanelsPerGroup = 3;  // panels of kLanes output channels stored side by side
// Of what is left after the whole groups, each panel is a group.
constexpr int PanelsOfGroup(int panels_left) {
  return panels_left < kPanelsPerGroup ? 1 : kPanelsPerGroup;
}
inline constexpr float kMaskedScore = -1e30f;  // score of a key that is only padding

constexpr int PadToLanes(int size) { return (size + kLanes - 1) / kLanes * kLanes; }

// The sum of a channel's weights as lower + kUnit * upper: so split, one 16-bit multiply-add of the
// vector units takes the whole product with a zero point.
struct ChannelSum {
  static constexpr std::int32_t kUnit = 128;

  static ChannelSum Of(std::int32_t sum) {
    const std::int32_t lower = ((sum % kUnit) + kUnit) % kUnit;
    return {static_cast<std::int16_t>(lower), static_cast<std::int16_t>((sum - lower) / kUnit)};
  }

  std::int16_t lower;
  std::int16_t upper;
};

// The zero point of a row, 0 to 255, as what a ChannelSum is multiplied by: minus the zero point in
// the lower 16 bits, kUnit times that in the upper.
struct ZeroPoint {
  static constexpr ZeroPoint Of(std::int32_t zero) {
    return {-zero * ChannelSum::kUnit * 65536 + (-zero & 0xFFFF)};
  }

  constexpr std::int32_t value() const { return -static_cast<std::int16_t>(factors & 0xFFFF); }
  bool operator==(const ZeroPoint& other) const { return factors == other.factors; }

  std::int32_t factors;
};

// Weights of a linear layer, int8 symmetric per output channel, as the GEMM reads them: groups of
// PanelsOfGroup panels; inside a group [in / 4][panels of the group][kLanes channels][4
// inputs].
struct PackedLinear {
  const std::int8_t* weights = nullptr;
  const ChannelSum* channel_sums = nullptr;  // [blocks, out], over the inputs of each block
  const float* scales = nullptr;             // [out]
  const float* biases = nullptr;             // [out]
  int in = 0;
  int out = 0;
  int blocks = 1;  // as those of the rows that it reads
};

// The output of linear_gelu_quantize is quantized block by block, while a block of a few rows is
// still in the first-level cache.
inline constexpr int kBlock = 8 * kPanelsPerGroup * kLanes;
constexpr int BlocksOf(int width) { return (width + kBlock - 1) / kBlock; }

// Rows of activations: value = scale * (quantized - zero_point), per block of a row.
struct QuantizedRows {
  std::uint8_t* values = nullptr;    // [rows, width], stride = width
  float* scales = nullptr;           // [rows, blocks]
  ZeroPoint* zero_points = nullptr;  // [rows, blocks]
  int width = 0;
  int blocks = 1;  // of kBlock values each, the last one what is left; or one of the whole width

  int WidthOf(int block) const {
    return blocks == 1 || width - block * kBlock < kBlock ? width - block * kBlock : kBlock;
  }
  QuantizedRows From(int row) const {
    const std::int64_t first = row;
    return {values + first * width, scales + first * blocks, zero_points + first * blocks, width,
            blocks};
  }
};

struct LayerNormWeights {
  const float* gamma = nullptr;  // [width]
  const float* beta = nullptr;   // [width]
  int size = 0;                  // features before padding
  int width = 0;
  float epsilon = 0.0f;
};

// int8 rows of norm.size values each, without padding, and their scales.
struct EmbeddingTables {
  const std::int8_t* words = nullptr;      // [vocab, size]
  const float* word_scales = nullptr;      // [vocab]
  const std::int8_t* positions = nullptr;  // [max positions, size]
  const float* position_scales = nullptr;  // [max positions]
};

// One head of one instruction: queries of several rows against the instruction's keys, and for
// inquiry rows against their own key and their candidate's memory as well.
struct AttentionArgs {
  const float* queries = nullptr;  // [rows, head_width], scaled by log2(e) / sqrt(head size)
  std::int64_t query_stride = 0;
  int rows = 0;
  const float* keys = nullptr;    // [head_width, padded tokens], see pack_keys
  const float* values = nullptr;  // [tokens, head_width]
  std::int64_t value_stride = 0;
  int tokens = 0;
  int head_width = 0;

  // Inquiry rows only.
  const float* own_keys = nullptr;    // [rows, head_width]
  const float* own_values = nullptr;  // [rows, head_width]
  std::int64_t own_stride = 0;
  const float* memory = nullptr;  // per row: keys [head_width, padded K], values [K, head_width]
  std::int64_t memory_stride = 0;
  int memory_rows = 0;  // K

  float* scores = nullptr;  // scratch, AttentionScratchFloats()
  float* output = nullptr;  // [rows, head_width]
  std::int64_t output_stride = 0;
};

inline constexpr int kMaxAttentionTile = 6;  // query rows that are worked on together

constexpr std::int64_t AttentionScratchFloats(int tokens, int memory_rows) {
  return std::int64_t{kMaxAttentionTile} * (PadToLanes(tokens) + PadToLanes(1 + memory_rows));
}

struct Kernels {
  Isa isa;

  // output[r, n] = dequantized rows[r] . channel n + bias n, float [rows, out].
  void (*linear)(const PackedLinear& layer, const QuantizedRows& input, int rows, float* output,
                 std::int64_t output_stride);

  // The same, then GELU (x * Phi(x), to 5e-5), then each block of BlocksOf(out) quantized into
  // `output`. `scratch` holds rows * kBlock floats.
  void (*linear_gelu_quantize)(const PackedLinear& layer, const QuantizedRows& input, int rows,
                               const QuantizedRows& output, float* scratch);

  // Asymmetric uint8 per row. The range always holds 0; a row of zeros gets scale 0.
  void (*quantize)(const float* input, std::int64_t stride, int rows, const QuantizedRows& output);

  // state[r] = LayerNorm(branch[r] + state[r]), in place, and its quantized copy.
  void (*add_norm_quantize)(const LayerNormWeights& norm, const float* branch,
                            std::int64_t branch_stride, int rows, float* state,
                            const QuantizedRows& output);

  // state[t] = LayerNorm(word of token t + position t), and its quantized copy, for the tokens of
  // one instruction.
  void (*embed)(const LayerNormWeights& norm, const EmbeddingTables& tables,
                const std::int32_t* token_ids, int tokens, float* state,
                const QuantizedRows& output);

  // Keys [tokens, head_width] of one head into [head_width, padded tokens], zeros in the padding.
  void (*pack_keys)(const float* keys, std::int64_t stride, int tokens, int head_width,
                    float* packed_keys);

  // output = softmax(queries . keys) . values, over the instruction, then self, then the memory.
  void (*attend)(const AttentionArgs& args);

  // a . b over `width` floats.
  float (*dot)(const float* a, const float* b, int width);
};

// The table of an instruction set that the processor supports.
const Kernels& KernelsFor(Isa isa);

}  // namespace modelsat

#endif  // MODELSAT_CPU_KERNELS_H_
