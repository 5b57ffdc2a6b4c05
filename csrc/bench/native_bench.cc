// What the native executor costs, whole and by operation, at the sizes of the shipped router; and
// the rate of a bare microkernel on the same core, which no GEMM can exceed.
//
//   MODELSAT_ISA=avx512_vnni modelsat_benchmarks --benchmark_filter=Native

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/kernels.h"
#include "cpu/kernels_internal.h"
#include "cpu/packing.h"
#include "modelsat/cpu_features.h"
#include "modelsat/native_executor.h"
#include "tests/random_network.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace modelsat {
namespace {

constexpr int kHidden = 384;
constexpr int kHeads = 12;
constexpr int kIntermediate = 1536;

// Of the best instruction set, or of the one that MODELSAT_ISA names.
std::string IsaWanted() {
  const char* const name = std::getenv("MODELSAT_ISA");
  return name != nullptr ? name : "";
}
const Kernels& Best() {
  static const Kernels& kernels = KernelsFor(ChooseIsa(HostCpuFeatures(), IsaWanted()));
  return kernels;
}

void SetRate(benchmark::State& state, double products) {
  state.counters["GOP/s"] = benchmark::Counter(
      2.0 * products, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

// ------------------------------------------------------------------------------- bare microkernel

#if defined(__x86_64__)
// 24 sums of a register by a register: what the multipliers can do when nothing else is in the way.
__attribute__((target("avx512f,avx512vnni"))) void MultiplyRegisters(int steps) {
  __m512i sums[24];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  const __m512i a = _mm512_set1_epi32(steps);
  const __m512i b = _mm512_set1_epi32(steps + 1);
  for (int i = 0; i < steps; ++i) {
#pragma GCC unroll 24
    for (__m512i& sum : sums) __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
}

#if defined(MODELSAT_NEW_X86_KERNELS)
#include "cpu/tiles_amx.h"

// The same with tiles.
__attribute__((target("avx512f"))) void MultiplyTileRegisters(int steps) {
  const TileShapes shapes(kTileRows);
  ClearTile<kRowTile>();
  ClearTile<kWeightTile>();
  for (int i = 0; i < steps; ++i) {
    MultiplyTiles<0>();
    MultiplyTiles<1>();
    MultiplyTiles<2>();
    MultiplyTiles<3>();
  }
}
#endif

void BM_NativeBareMicrokernel(benchmark::State& state) {
  constexpr int kSteps = 4096;
#if defined(MODELSAT_NEW_X86_KERNELS)
  if (Best().isa == Isa::kAmxInt8) {
    for (auto _ : state) MultiplyTileRegisters(kSteps);
    SetRate(state, 4.0 * kTileRows * kLanes * kTileBytes * kSteps);
    return;
  }
#endif
  if (!Supports(HostCpuFeatures(), Isa::kAvx512Vnni)) {
    state.SkipWithError("this processor has no AVX-512 VNNI");
    return;
  }
  for (auto _ : state) MultiplyRegisters(kSteps);
  SetRate(state, 24.0 * 64 * kSteps);
}
BENCHMARK(BM_NativeBareMicrokernel);
#endif

// ----------------------------------------------------------------------------------- operations

// Several copies of a layer's weights, used in turn: in the network each comes from the third-level
// cache, because the others have passed since it was last used.
struct Layer {
  Layer(int in, int out, int copies)
      : packed(std::size_t(in) * out * copies),
        sums(std::size_t(out) * BlocksOf(in)),
        scales(out, 0.01f),
        biases(out, 0.1f),
        copies(copies) {
    const int blocks = BlocksOf(in);
    std::mt19937 random(1);
    std::vector<std::int8_t> weights(std::size_t(in) * out);
    for (std::int8_t& w : weights) w = static_cast<std::int8_t>(int(random() % 255) - 127);
    for (int i = 0; i < copies; ++i) {
      PackWeights(weights.data(), in, PaddedAxis(out), PaddedAxis(in),
                  packed.at<std::int8_t>(std::size_t(in) * out * i), blocks, sums.data());
    }
    packing = {
        packed.at<std::int8_t>(0), sums.data(), scales.data(), biases.data(), in, out, blocks};
  }

  const PackedLinear& Next() {
    next = (next + 1) % copies;
    packing.weights = packed.at<std::int8_t>(std::size_t(packing.in) * packing.out * next);
    return packing;
  }

  Buffer packed;
  LineVector<ChannelSum> sums;
  LineVector<float> scales;
  LineVector<float> biases;
  PackedLinear packing;
  int copies;
  int next = 0;
};

struct Rows {
  Rows(int rows, int width)
      : values(std::size_t(rows) * width),
        scales(std::size_t(rows) * BlocksOf(width), 0.01f),
        zero_points(std::size_t(rows) * BlocksOf(width), ZeroPoint::Of(128)) {
    std::mt19937 random(2);
    for (std::uint8_t& value : values) value = static_cast<std::uint8_t>(random());
    quantized = {values.data(), scales.data(), zero_points.data(), width, BlocksOf(width)};
  }
  LineVector<std::uint8_t> values;
  LineVector<float> scales;
  LineVector<ZeroPoint> zero_points;
  QuantizedRows quantized;
};

LineVector<float> Normal(std::size_t count) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  LineVector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// rows, in, out, copies of the weights
void BM_NativeLinear(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0));
  const int in = static_cast<int>(state.range(1));
  const int out = static_cast<int>(state.range(2));
  Layer layer(in, out, static_cast<int>(state.range(3)));
  Rows input(rows, in);
  LineVector<float> output(std::size_t(rows) * out);
  for (auto _ : state) {
    Best().linear(layer.Next(), input.quantized, rows, output.data(), out);
    benchmark::DoNotOptimize(output.data());
  }
  SetRate(state, double(rows) * in * out);
}
BENCHMARK(BM_NativeLinear)
    ->Args({64, kHidden, kHidden, 1})
    ->Args({64, kHidden, kHidden, 64})
    ->Args({64, kIntermediate, kHidden, 1})
    ->Args({64, kIntermediate, kHidden, 16})
    ->Args({74, kIntermediate, kHidden, 16})
    ->Args({10, kIntermediate, kHidden, 16});

void BM_NativeLinearGeluQuantize(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0));
  Layer layer(kHidden, kIntermediate, 16);
  Rows input(rows, kHidden);
  Rows output(rows, kIntermediate);
  LineVector<float> scratch(std::size_t(rows) * kBlock);
  for (auto _ : state) {
    Best().linear_gelu_quantize(layer.Next(), input.quantized, rows, output.quantized,
                                scratch.data());
    benchmark::DoNotOptimize(output.values.data());
  }
  SetRate(state, double(rows) * kHidden * kIntermediate);
}
BENCHMARK(BM_NativeLinearGeluQuantize)->Arg(10)->Arg(64)->Arg(74);

void BM_NativeQuantize(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0));
  const LineVector<float> input = Normal(std::size_t(rows) * kHidden);
  Rows output(rows, kHidden);
  for (auto _ : state) Best().quantize(input.data(), kHidden, rows, output.quantized);
}
BENCHMARK(BM_NativeQuantize)->Arg(64);

void BM_NativeAddNormQuantize(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0));
  const LineVector<float> branch = Normal(std::size_t(rows) * kHidden);
  LineVector<float> rows_of_state = Normal(std::size_t(rows) * kHidden);
  const LineVector<float> gamma(kHidden, 1.0f);
  const LineVector<float> beta(kHidden, 0.0f);
  Rows output(rows, kHidden);
  const LayerNormWeights norm{gamma.data(), beta.data(), kHidden, kHidden, 1e-12f};
  for (auto _ : state) {
    Best().add_norm_quantize(norm, branch.data(), kHidden, rows, rows_of_state.data(),
                             output.quantized);
  }
}
BENCHMARK(BM_NativeAddNormQuantize)->Arg(64);

// All heads of one instruction: tokens.
void BM_NativeAttention(benchmark::State& state) {
  const int tokens = static_cast<int>(state.range(0));
  const int width = kHidden / kHeads;
  const std::int64_t stride = 3 * kHidden;
  const LineVector<float> qkv = Normal(std::size_t(tokens) * stride);
  LineVector<float> keys(std::size_t(width) * PadToLanes(tokens));
  LineVector<float> scores(AttentionScratchFloats(tokens, 0));
  LineVector<float> output(std::size_t(tokens) * kHidden);
  AttentionArgs args;
  args.query_stride = stride;
  args.rows = tokens;
  args.keys = keys.data();
  args.value_stride = stride;
  args.tokens = tokens;
  args.head_width = width;
  args.scores = scores.data();
  args.output_stride = kHidden;
  for (auto _ : state) {
    for (int head = 0; head < kHeads; ++head) {
      const float* const row = qkv.data() + head * width;
      Best().pack_keys(row + kHidden, stride, tokens, width, keys.data());
      args.queries = row;
      args.values = row + 2 * kHidden;
      args.output = output.data() + head * width;
      Best().attend(args);
    }
  }
  SetRate(state, 2.0 * tokens * tokens * kHidden);
}
BENCHMARK(BM_NativeAttention)->Arg(16)->Arg(64)->Arg(128);

// ---------------------------------------------------------------------------------------- whole

// tokens of an instruction, candidates, instructions
void BM_NativeScore(benchmark::State& state) {
  NativeConfig config;
  config.layers = 6;
  config.hidden = kHidden;
  config.heads = kHeads;
  config.intermediate = kIntermediate;
  config.vocab = 30522;
  config.max_positions = 512;
  config.inject_at = 4;
  config.max_instruction_tokens = 512;
  RandomNetwork network(config, 1);
  NativeOptions options;
  options.isa = IsaWanted();
  const auto executor = network.Load(options);
  const int tokens = static_cast<int>(state.range(0));
  const int candidates = static_cast<int>(state.range(1));
  const int instructions = static_cast<int>(state.range(2));
  const auto table = executor->MakeTable(
      network.Floats(std::size_t(candidates) * kHidden, 1.0f).data(), nullptr, candidates, 1);
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> offsets{0};
  for (int b = 0; b < instructions; ++b) {
    for (int t = 0; t < tokens; ++t) ids.push_back((b * 7919 + t * 104729) % config.vocab);
    offsets.push_back(static_cast<std::int32_t>(ids.size()));
  }
  const Batch batch(ids, offsets);
  std::vector<float> probabilities(std::size_t(candidates) * instructions);
  for (auto _ : state) {
    const Status status = executor->Score(batch, *table, probabilities.data());
    if (!status.ok()) state.SkipWithError(status.message().c_str());
  }
  state.counters["instructions/s"] =
      benchmark::Counter(instructions, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_NativeScore)
    ->Unit(benchmark::kMicrosecond)
    ->Args({16, 10, 1})
    ->Args({64, 1, 1})
    ->Args({64, 10, 1})
    ->Args({64, 100, 1})
    ->Args({64, 1000, 1})
    ->Args({128, 10, 1})
    ->Args({64, 10, 16});

}  // namespace
}  // namespace modelsat
