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
inline constexpr float kMaskedScore = -1e30f;  // score of a key that is only padding

constexpr int PadToLanes(int size) { return (size + kLanes - 1) / kLanes * kLanes; }

// Weights of a linear layer, int8 symmetric per output channel, as the GEMM reads them: groups of
// up to kPanelsPerGroup panels; inside a group [in / 4][panels of the group][kLanes channels][4
// inputs].
struct PackedLinear {
  const std::int8_t* weights = nullptr;
  const std::int32_t* column_sums = nullptr;  // [out]: sum of the channel's weights
  const float* scales = nullptr;              // [out]
  const float* biases = nullptr;              // [out]
  int in = 0;
  int out = 0;
};

// Rows of activations: value = scale * (quantized - zero_point), per row.
struct QuantizedRows {
  std::uint8_t* values = nullptr;       // [rows, width], stride = width
  float* scales = nullptr;              // [rows]
  std::int32_t* zero_points = nullptr;  // [rows]
  int width = 0;

  QuantizedRows From(int row) const {
    return {values + static_cast<std::int64_t>(row) * width, scales + row, zero_points + row,
            width};
  }
};

struct LayerNormWeights {
  const float* gamma = nullptr;  // [width]
  const float* beta = nullptr;   // [width]
  int size = 0;                  // features before padding
  int width = 0;
  float epsilon = 0.0f;
};

// One head of one instruction: queries of several rows against the instruction's keys, and for
// inquiry rows against their own key and their candidate's memory as well.
struct AttentionArgs {
  const float* queries = nullptr;  // [rows, head_width], scaled by log2(e) / sqrt(head size)
  std::int64_t query_stride = 0;
  int rows = 0;
  const float* keys = nullptr;    // [head_width, padded tokens], see pack_keys_values
  const float* values = nullptr;  // [tokens, head_width]
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

  // The same, then GELU (the exact one, x * Phi(x), to 1e-6), then each row quantized into
  // `output`. `scratch` is float [rows, out], `ranges` float [rows, 2 * kLanes].
  void (*linear_gelu_quantize)(const PackedLinear& layer, const QuantizedRows& input, int rows,
                               float* scratch, float* ranges, const QuantizedRows& output);

  // Asymmetric uint8 per row. The range always holds 0; a row of zeros gets scale 0.
  void (*quantize)(const float* input, std::int64_t stride, int rows, const QuantizedRows& output);

  // state[r] = LayerNorm(branch[r] + state[r]), in place, and its quantized copy.
  void (*add_norm_quantize)(const LayerNormWeights& norm, const float* branch,
                            std::int64_t branch_stride, int rows, float* state,
                            const QuantizedRows& output);

  // state = LayerNorm(word * word_scale + position * position_scale), and its quantized copy.
  // `word` and `position` hold norm.size int8 values.
  void (*embed)(const LayerNormWeights& norm, const std::int8_t* word, float word_scale,
                const std::int8_t* position, float position_scale, float* state,
                const QuantizedRows& output);

  // Rows of keys and values [tokens, head_width] of one head into keys [head_width, padded tokens]
  // (zeros in the padding) and values [tokens, head_width].
  void (*pack_keys_values)(const float* keys, const float* values, std::int64_t stride, int tokens,
                           int head_width, float* packed_keys, float* packed_values);

  // output = softmax(queries . keys) . values, over the instruction, then self, then the memory.
  void (*attend)(const AttentionArgs& args);

  // a . b over `width` floats.
  float (*dot)(const float* a, const float* b, int width);
};

// The table of an instruction set that the processor supports.
const Kernels& KernelsFor(Isa isa);

}  // namespace modelsat

#endif  // MODELSAT_CPU_KERNELS_H_
