// Every operation on every instruction set of this processor: near the same thing in double
// precision, and the same bits as the portable kernels.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "cpu/isa.h"
#include "cpu/kernels.h"
#include "cpu/kernels_internal.h"
#include "cpu/packing.h"
#include "modelsat/cpu_features.h"

namespace modelsat {
namespace {

struct OwnedRows {
  OwnedRows(int rows, int width, int blocks = 1)
      : values(std::size_t(rows) * width, 0xAA),
        scales(std::size_t(rows) * blocks),
        zero_points(std::size_t(rows) * blocks),
        width(width),
        blocks(blocks) {}
  QuantizedRows view() { return {values.data(), scales.data(), zero_points.data(), width, blocks}; }
  std::size_t BlockOf(int row, int i) const {
    return std::size_t(row) * blocks + (blocks > 1 ? i / kBlock : 0);
  }
  double At(int row, int i) const {
    const std::size_t block = BlockOf(row, i);
    return double(scales[block]) *
           (values[std::size_t(row) * width + i] - zero_points[block].value());
  }
  bool operator==(const OwnedRows& other) const {
    return values == other.values && scales == other.scales && zero_points == other.zero_points;
  }
  std::vector<std::uint8_t> values;
  std::vector<float> scales;
  std::vector<ZeroPoint> zero_points;
  int width;
  int blocks;
};

struct OwnedLinear {
  OwnedLinear(int in, int out, std::mt19937* random, bool extreme, int blocks = 1)
      : weights(std::size_t(in) * out),
        packed(std::size_t(PadToLanes(in)) * PadToLanes(out)),
        sums(std::size_t(PadToLanes(out)) * blocks),
        scales(PadToLanes(out)),
        biases(PadToLanes(out)) {
    std::uniform_int_distribution<int> any(-128, 127);
    for (std::int8_t& w : weights) {
      const int value = any(*random);
      w = static_cast<std::int8_t>(extreme ? (value < 0 ? -128 : 127) : value);
    }
    PackWeights(weights.data(), in, PaddedAxis(out), PaddedAxis(in), packed.data(), blocks,
                sums.data());
    std::uniform_real_distribution<float> scale(0.001f, 0.01f);
    for (int n = 0; n < out; ++n) {
      scales[n] = scale(*random);
      biases[n] = 100.0f * scale(*random);
    }
    layer = {packed.data(),  sums.data(),     scales.data(), biases.data(),
             PadToLanes(in), PadToLanes(out), blocks};
  }
  std::vector<std::int8_t> weights;
  std::vector<std::int8_t> packed;
  std::vector<ChannelSum> sums;
  std::vector<float> scales;
  std::vector<float> biases;
  PackedLinear layer;
};

class NativeKernels : public testing::TestWithParam<Isa> {
 protected:
  const Kernels& kernels() const { return KernelsFor(GetParam()); }
  const Kernels& portable() const { return KernelsFor(Isa::kPortable); }
  int Between(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  std::vector<float> Normal(std::size_t count, float deviation = 1.0f) {
    std::normal_distribution<float> normal(0.0f, deviation);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random_);
    return values;
  }

  // The layer's output, the same on this instruction set and on the portable one.
  std::vector<float> LinearOf(const OwnedLinear& linear, OwnedRows* input, int rows) const {
    const int width = linear.layer.out;
    std::vector<float> output(std::size_t(rows) * width, -1.0f);
    std::vector<float> expected = output;
    kernels().linear(linear.layer, input->view(), rows, output.data(), width);
    portable().linear(linear.layer, input->view(), rows, expected.data(), width);
    EXPECT_EQ(output, expected);
    return output;
  }

  std::mt19937 random_{20261122};
};

TEST_P(NativeKernels, LinearIsTheExactIntegerProductForAnyShape) {
  for (int trial = 0; trial < 60; ++trial) {
    const bool large = trial % 4 == 0;  // more rows than are worked on together, whole tiles
    const int rows = large ? Between(30, 250) : Between(1, 40);
    const int in = large ? 64 * Between(1, 3) : Between(1, 90);
    const int out = Between(1, 130);
    const bool extreme = trial % 3 == 0;  // where 16-bit sums of products would saturate
    SCOPED_TRACE(testing::Message()
                 << "trial " << trial << " rows " << rows << " in " << in << " out " << out);
    OwnedLinear linear(in, out, &random_, extreme);
    OwnedRows input(rows, linear.layer.in);
    for (std::uint8_t& value : input.values) {
      value = static_cast<std::uint8_t>(extreme ? 255 * Between(0, 1) : Between(0, 255));
    }
    for (int r = 0; r < rows; ++r) {
      input.scales[r] = 0.01f * static_cast<float>(r + 1);
      input.zero_points[r] = ZeroPoint::Of(Between(0, 255));
    }
    const int width = linear.layer.out;
    const std::vector<float> output = LinearOf(linear, &input, rows);
    for (int r = 0; r < rows; ++r) {
      for (int n = 0; n < width; ++n) {
        std::int64_t sum = 0;
        for (int k = 0; n < out && k < in; ++k) {
          sum += (input.values[std::size_t(r) * input.width + k] - input.zero_points[r].value()) *
                 std::int64_t{linear.weights[std::size_t(n) * in + k]};
        }
        const double y = double(sum) * input.scales[r] * linear.scales[n] + linear.biases[n];
        ASSERT_NEAR(output[std::size_t(r) * width + n], y, 1e-6 * (1.0 + std::fabs(y)));
      }
    }
  }
}

TEST_P(NativeKernels, BlocksOfARowHaveScalesOfTheirOwn) {
  for (const int in : {kBlock + 1, 2 * kBlock, 3 * kBlock + 40, 3 * kBlock + 64}) {
    const int rows = Between(1, 60);
    const int out = Between(1, 110);
    SCOPED_TRACE(testing::Message() << "rows " << rows << " in " << in << " out " << out);
    const int blocks = BlocksOf(PadToLanes(in));
    OwnedLinear linear(in, out, &random_, false, blocks);
    OwnedRows input(rows, linear.layer.in, blocks);
    for (std::uint8_t& value : input.values) value = static_cast<std::uint8_t>(Between(0, 255));
    for (int i = 0; i < rows * blocks; ++i) {
      input.scales[i] = 0.001f * static_cast<float>(Between(1, 20));
      input.zero_points[i] = ZeroPoint::Of(Between(0, 255));
    }
    const int width = linear.layer.out;
    const std::vector<float> output = LinearOf(linear, &input, rows);
    for (int r = 0; r < rows; ++r) {
      for (int n = 0; n < out; ++n) {
        double y = linear.biases[n];
        double size = 1.0;
        for (int k = 0; k < in; ++k) {
          const double term =
              input.At(r, k) * linear.weights[std::size_t(n) * in + k] * linear.scales[n];
          y += term;
          size += std::fabs(term);
        }
        ASSERT_NEAR(output[std::size_t(r) * width + n], y, 1e-7 * size);
      }
    }
  }
}

TEST_P(NativeKernels, GeluIsCloseAndItsRowsAreQuantizedAlone) {
  for (int trial = 0; trial < 20; ++trial) {
    const int rows = trial % 4 == 1 ? Between(90, 130) : Between(1, 23);
    const int in = trial % 2 == 1 ? 64 * Between(1, 2) : Between(1, 50);
    const int out = trial % 4 == 0 ? Between(kBlock, 3 * kBlock) : Between(1, 110);
    SCOPED_TRACE(testing::Message() << "trial " << trial << " rows " << rows << " out " << out);
    OwnedLinear linear(in, out, &random_, false);
    OwnedRows input(rows, linear.layer.in);
    for (std::uint8_t& value : input.values) value = static_cast<std::uint8_t>(Between(0, 255));
    for (int r = 0; r < rows; ++r) {
      input.scales[r] = 0.001f * static_cast<float>(1 + r * r);  // from the flat part to the tails
      input.zero_points[r] = ZeroPoint::Of(128);
    }
    const int width = linear.layer.out;
    const int blocks = BlocksOf(width);
    std::vector<float> y(std::size_t(rows) * width);
    kernels().linear(linear.layer, input.view(), rows, y.data(), width);
    std::vector<float> scratch(std::size_t(rows) * kBlock);
    OwnedRows output(rows, width, blocks);
    OwnedRows expected(rows, width, blocks);
    portable().linear_gelu_quantize(linear.layer, input.view(), rows, expected.view(),
                                    scratch.data());
    kernels().linear_gelu_quantize(linear.layer, input.view(), rows, output.view(), scratch.data());
    ASSERT_TRUE(output == expected);
    for (int r = 0; r < rows; ++r) {
      for (int n = 0; n < width; ++n) {
        const double x = y[std::size_t(r) * width + n];
        const double gelu = 0.5 * x * std::erfc(-x * std::sqrt(0.5));
        const double step = output.scales[output.BlockOf(r, n)];
        ASSERT_NEAR(output.At(r, n), gelu, 1.01 * step + 5e-5 + 1e-6 * std::fabs(x));
      }
    }
    // a row alone
    const int row = Between(0, rows - 1);
    OwnedRows alone(1, width, blocks);
    kernels().linear_gelu_quantize(linear.layer, input.view().From(row), 1, alone.view(),
                                   scratch.data());
    ASSERT_TRUE(std::equal(alone.values.begin(), alone.values.end(),
                           output.values.begin() + std::ptrdiff_t{row} * width));
  }
}

// The lowest and the highest value of a row are exact, so that rows of one value show GELU itself.
TEST_P(NativeKernels, GeluIsWithin5e5) {
  const std::vector<std::int8_t> weight(kLanes, 0);
  std::vector<std::int8_t> packed(std::size_t{kLanes} * kLanes);
  std::vector<ChannelSum> sums(kLanes);
  AxisMap one_input(kLanes, -1);
  one_input[0] = 0;
  PackWeights(weight.data(), 1, PaddedAxis(kLanes), one_input, packed.data(), 1, sums.data());
  const std::vector<float> scales(kLanes, 1.0f);
  OwnedRows input(1, kLanes);
  std::vector<float> scratch(kBlock);
  for (float x = -14.0f; x < 14.0f; x += 0.01f) {
    const std::vector<float> biases(kLanes, x);
    const PackedLinear layer{
        packed.data(), sums.data(), scales.data(), biases.data(), kLanes, kLanes, 1};
    OwnedRows output(1, kLanes);
    kernels().linear_gelu_quantize(layer, input.view(), 1, output.view(), scratch.data());
    const double gelu = 0.5 * x * std::erfc(-x * std::sqrt(0.5));
    for (int n = 0; n < kLanes; ++n) ASSERT_NEAR(output.At(0, n), gelu, 5e-5) << x;
  }
}

TEST_P(NativeKernels, QuantizedRowsAreWithinHalfAStepWhateverTheirRange) {
  for (const float deviation : {1e-44f, 1e-38f, 1e-20f, 1.0f, 1e20f, 1e37f}) {
    for (const float shift : {0.0f, 5.0f, -5.0f}) {
      SCOPED_TRACE(testing::Message() << "deviation " << deviation << " shift " << shift);
      const int rows = 7;
      const int width = 48;
      std::vector<float> input = Normal(std::size_t(rows) * width, deviation);
      for (float& x : input) x += shift * deviation;
      std::fill_n(input.begin() + 2 * width, width, 0.0f);  // a row of zeros
      OwnedRows output(rows, width);
      OwnedRows expected(rows, width);
      kernels().quantize(input.data(), width, rows, output.view());
      portable().quantize(input.data(), width, rows, expected.view());
      ASSERT_TRUE(output == expected);
      for (int r = 0; r < rows; ++r) {
        for (int i = 0; i < width; ++i) {
          const double x = input[std::size_t(r) * width + i];
          // the zero point is rounded as well, and ranges below 1e-30 count as nothing
          ASSERT_NEAR(output.At(r, i), x, 1.01 * output.scales[r] + 1e-30);
        }
      }
    }
  }
}

TEST_P(NativeKernels, ARowThatIsNotFiniteGetsAScaleThatSaysSo) {
  std::vector<float> input(32, 1.0f);
  input[5] = INFINITY;
  OwnedRows output(1, 32);
  kernels().quantize(input.data(), 32, 1, output.view());
  EXPECT_TRUE(std::isnan(output.scales[0]));
}

TEST_P(NativeKernels, LayerNormLeavesThePaddingOut) {
  for (int trial = 0; trial < 40; ++trial) {
    const int size = Between(1, 150);
    const int width = PadToLanes(size);
    const int rows = Between(1, 5);
    SCOPED_TRACE(testing::Message() << "trial " << trial << " size " << size);
    std::vector<float> gamma = Normal(width);
    std::vector<float> beta = Normal(width);
    std::vector<float> branch = Normal(std::size_t(rows) * width);
    std::vector<float> state = Normal(std::size_t(rows) * width, trial % 2 == 0 ? 1.0f : 1e-6f);
    for (int i = 0; i < rows * width; ++i) {
      if (i % width >= size) branch[i] = state[i] = 0.0f;
    }
    for (int i = size; i < width; ++i) gamma[i] = beta[i] = 0.0f;
    const LayerNormWeights norm{gamma.data(), beta.data(), size, width, 1e-12f};
    std::vector<float> mine = state;
    std::vector<float> expected = state;
    OwnedRows output(rows, width);
    OwnedRows expected_output(rows, width);
    kernels().add_norm_quantize(norm, branch.data(), width, rows, mine.data(), output.view());
    portable().add_norm_quantize(norm, branch.data(), width, rows, expected.data(),
                                 expected_output.view());
    ASSERT_EQ(mine, expected);
    ASSERT_TRUE(output == expected_output);
    for (int r = 0; r < rows; ++r) {
      double mean = 0.0;
      double variance = 0.0;
      const auto x = [&](int i) {
        return double(branch[std::size_t(r) * width + i]) + state[std::size_t(r) * width + i];
      };
      for (int i = 0; i < size; ++i) mean += x(i) / size;
      for (int i = 0; i < size; ++i) variance += (x(i) - mean) * (x(i) - mean) / size;
      for (int i = 0; i < width; ++i) {
        const double y =
            i < size ? (x(i) - mean) / std::sqrt(variance + 1e-12) * gamma[i] + beta[i] : 0.0;
        ASSERT_NEAR(mine[std::size_t(r) * width + i], y, 2e-5 * (1.0 + std::fabs(y)));
      }
    }
  }
}

TEST_P(NativeKernels, ARowOfEqualValuesNormalisesToBeta) {
  const std::vector<float> gamma(32, 2.0f);
  const std::vector<float> beta(32, 0.25f);
  const std::vector<float> branch(32, 0.0f);
  std::vector<float> state(32, 0.0f);
  OwnedRows output(1, 32);
  kernels().add_norm_quantize({gamma.data(), beta.data(), 32, 32, 1e-12f}, branch.data(), 32, 1,
                              state.data(), output.view());
  EXPECT_EQ(state, beta);
}

TEST_P(NativeKernels, EmbeddingsAddDequantisedRowsBeforeTheNorm) {
  for (const int size : {1, 15, 16, 40, 384}) {
    SCOPED_TRACE(size);
    const int width = PadToLanes(size);
    const int tokens = Between(1, 11);
    const int vocab = 7;
    std::vector<std::int8_t> words(std::size_t(vocab) * size);
    std::vector<std::int8_t> positions(std::size_t(tokens) * size);
    for (std::int8_t& x : words) x = static_cast<std::int8_t>(Between(-127, 127));
    for (std::int8_t& x : positions) x = static_cast<std::int8_t>(Between(-127, 127));
    std::vector<float> word_scales(vocab);
    std::vector<float> position_scales(tokens);
    for (float& scale : word_scales) scale = 0.001f * static_cast<float>(Between(1, 20));
    for (float& scale : position_scales) scale = 0.001f * static_cast<float>(Between(1, 20));
    std::vector<std::int32_t> token_ids(tokens);
    for (std::int32_t& token : token_ids) token = Between(0, vocab - 1);
    const EmbeddingTables tables{words.data(), word_scales.data(), positions.data(),
                                 position_scales.data()};
    const std::vector<float> gamma(width, 1.0f);
    const std::vector<float> beta(width, 0.0f);
    const LayerNormWeights norm{gamma.data(), beta.data(), size, width, 1e-12f};
    std::vector<float> mine(std::size_t(tokens) * width);
    std::vector<float> expected(mine.size());
    OwnedRows output(tokens, width);
    OwnedRows expected_output(tokens, width);
    kernels().embed(norm, tables, token_ids.data(), tokens, mine.data(), output.view());
    portable().embed(norm, tables, token_ids.data(), tokens, expected.data(),
                     expected_output.view());
    ASSERT_EQ(mine, expected);
    ASSERT_TRUE(output == expected_output);
    for (int t = 0; t < tokens; ++t) {
      const auto x = [&](int i) {
        return double(word_scales[token_ids[t]]) * words[std::size_t(token_ids[t]) * size + i] +
               double(position_scales[t]) * positions[std::size_t(t) * size + i];
      };
      double mean = 0.0;
      double variance = 0.0;
      for (int i = 0; i < size; ++i) mean += x(i) / size;
      for (int i = 0; i < size; ++i) variance += (x(i) - mean) * (x(i) - mean) / size;
      for (int i = 0; i < size && size > 1; ++i) {
        ASSERT_NEAR(mine[std::size_t(t) * width + i], (x(i) - mean) / std::sqrt(variance + 1e-12),
                    1e-4);
      }
    }
  }
}

// One head in double precision; keys and values as rows.
std::vector<double> Attention(const AttentionArgs& args, const std::vector<float>& keys,
                              const std::vector<float>& values, std::int64_t stride, int row,
                              const std::vector<float>& memory_keys,
                              const std::vector<float>& memory_values) {
  const int width = args.head_width;
  std::vector<const float*> all_keys;
  std::vector<const float*> all_values;
  for (int j = 0; j < args.tokens; ++j) {
    all_keys.push_back(keys.data() + j * stride);
    all_values.push_back(values.data() + j * stride);
  }
  if (args.own_keys != nullptr) {
    all_keys.push_back(args.own_keys + row * args.own_stride);
    all_values.push_back(args.own_values + row * args.own_stride);
    for (int j = 0; j < args.memory_rows; ++j) {
      const std::size_t place = (std::size_t(row) * args.memory_rows + j) * width;
      all_keys.push_back(memory_keys.data() + place);
      all_values.push_back(memory_values.data() + place);
    }
  }
  std::vector<double> scores;
  for (const float* const key : all_keys) {
    double score = 0.0;
    for (int d = 0; d < width; ++d) {
      score += double(args.queries[row * args.query_stride + d]) * key[d];
    }
    scores.push_back(score);
  }
  const double peak = *std::max_element(scores.begin(), scores.end());
  double total = 0.0;
  std::vector<double> output(width, 0.0);
  for (std::size_t j = 0; j < scores.size(); ++j) {
    const double p = std::exp2(scores[j] - peak);
    total += p;
    for (int d = 0; d < width; ++d) output[d] += p * all_values[j][d];
  }
  for (double& x : output) x /= total;
  return output;
}

TEST_P(NativeKernels, AttentionIsTheSoftmaxOverInstructionSelfAndMemory) {
  for (int trial = 0; trial < 60; ++trial) {
    const int width = kLanes * Between(1, 3);
    const int tokens = Between(1, 70);
    const int rows = Between(1, 20);
    const bool inquiry = trial % 2 == 1;
    const int memory_rows = inquiry ? Between(0, 2) * Between(1, 25) : 0;
    const float sharpness = trial % 5 == 0 ? 40.0f : 0.5f;  // one key takes all, or many share
    SCOPED_TRACE(testing::Message() << "trial " << trial << " width " << width << " tokens "
                                    << tokens << " rows " << rows << " K " << memory_rows);
    const std::int64_t stride = width + 16;
    const std::vector<float> queries = Normal(std::size_t(rows) * stride, sharpness);
    const std::vector<float> keys = Normal(std::size_t(tokens) * stride);
    const std::vector<float> values = Normal(std::size_t(tokens) * stride);
    const std::vector<float> own_keys = Normal(std::size_t(rows) * stride);
    const std::vector<float> own_values = Normal(std::size_t(rows) * stride);
    const std::vector<float> memory_keys = Normal(std::size_t(rows) * memory_rows * width + 1);
    const std::vector<float> memory_values = Normal(std::size_t(rows) * memory_rows * width + 1);

    std::vector<std::vector<float>> outputs;
    for (const Kernels* const k : {&kernels(), &portable()}) {
      std::vector<float> packed_keys(std::size_t(width) * PadToLanes(tokens), NAN);
      k->pack_keys(keys.data(), stride, tokens, width, packed_keys.data());
      const std::int64_t block = std::int64_t{width} * (PadToLanes(memory_rows) + memory_rows);
      std::vector<float> memory(std::size_t(rows) * block + 1);
      for (int r = 0; r < rows && memory_rows > 0; ++r) {
        const std::size_t place = std::size_t(r) * memory_rows * width;
        float* const packed = memory.data() + r * block;
        k->pack_keys(memory_keys.data() + place, width, memory_rows, width, packed);
        std::copy_n(memory_values.data() + place, std::size_t(memory_rows) * width,
                    packed + std::int64_t{width} * PadToLanes(memory_rows));
      }
      std::vector<float> scores(AttentionScratchFloats(tokens, memory_rows));
      std::vector<float>& output = outputs.emplace_back(std::size_t(rows) * stride, 7.0f);
      AttentionArgs args;
      args.queries = queries.data();
      args.query_stride = stride;
      args.rows = rows;
      args.keys = packed_keys.data();
      args.values = values.data();
      args.value_stride = stride;
      args.tokens = tokens;
      args.head_width = width;
      args.own_keys = inquiry ? own_keys.data() : nullptr;
      args.own_values = inquiry ? own_values.data() : nullptr;
      args.own_stride = stride;
      args.memory = memory.data();
      args.memory_stride = block;
      args.memory_rows = memory_rows;
      args.scores = scores.data();
      args.output = output.data();
      args.output_stride = stride;
      k->attend(args);
      for (int r = 0; r < rows; ++r) {
        const std::vector<double> expected =
            Attention(args, keys, values, stride, r, memory_keys, memory_values);
        for (int d = 0; d < width; ++d) {
          ASSERT_NEAR(output[r * stride + d], expected[d], sharpness > 1.0f ? 2e-3 : 1e-5);
        }
        for (int d = width; d < stride; ++d) ASSERT_EQ(output[r * stride + d], 7.0f);
      }
    }
    ASSERT_EQ(outputs[0], outputs[1]);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, NativeKernels, testing::ValuesIn(SupportedIsas(HostCpuFeatures())),
                         [](const auto& info) { return IsaName(info.param); });

TEST(Isa, AskingForWhatTheProcessorLacksSaysWhatItHas) {
  CpuFeatures features;
  EXPECT_EQ(ChooseIsa(features, ""), Isa::kPortable);
  EXPECT_THROW(ChooseIsa(features, "avx2"), std::runtime_error);
  EXPECT_THROW(ChooseIsa(features, "sse9"), std::runtime_error);
  features.avx2 = features.fma = true;
  EXPECT_EQ(ChooseIsa(features, ""), Isa::kAvx2);
  EXPECT_EQ(ChooseIsa(features, "portable"), Isa::kPortable);
  features.avx512f = features.avx512bw = features.avx512dq = features.avx512vl = true;
  EXPECT_EQ(ChooseIsa(features, ""), Isa::kAvx2) << "without VNNI, AVX-512 is not used";
  features.avx512_vnni = true;
  EXPECT_EQ(ChooseIsa(features, ""), Isa::kAvx512Vnni);
}

#if defined(MODELSAT_NEW_X86_KERNELS)
TEST(Isa, TilesAndAvxVnniNeedTheSetsThatTheyBuildOn) {
  CpuFeatures features;
  features.amx_int8 = features.avx_vnni = true;
  EXPECT_EQ(ChooseIsa(features, ""), Isa::kPortable);
  features.avx2 = features.fma = true;
  EXPECT_EQ(ChooseIsa(features, ""), Isa::kAvxVnni);
  EXPECT_THROW(ChooseIsa(features, "amx_int8"), std::runtime_error);
  features.avx512f = features.avx512bw = features.avx512dq = features.avx512vl = true;
  EXPECT_EQ(ChooseIsa(features, ""), Isa::kAvxVnni);
  features.avx512_vnni = true;
  EXPECT_EQ(ChooseIsa(features, ""), Isa::kAmxInt8);
  EXPECT_EQ(ChooseIsa(features, "avx_vnni"), Isa::kAvxVnni);
}
#endif

}  // namespace
}  // namespace modelsat
