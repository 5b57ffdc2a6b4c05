// The whole network: near a double-precision one, and the same bits alone, in any batch, with any
// threads and on every instruction set; files that are damaged are refused.

#include "modelsat/native_executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "random_network.h"
#include "reference_network.h"

namespace modelsat {
namespace {

constexpr int kCandidates = 7;

std::vector<NativeConfig> Shapes() {
  std::vector<NativeConfig> shapes{SmallConfig()};
  NativeConfig config = SmallConfig();
  config.memory_rows = 5;
  config.views = 2;
  config.inject_at = 0;
  shapes.push_back(config);
  config.memory_rows = 17;
  config.views = 3;
  config.inject_at = 2;
  config.hidden = 40;
  config.heads = 5;
  config.intermediate = 161;
  shapes.push_back(config);
  config = SmallConfig();
  config.layers = 1;
  config.inject_at = 0;
  config.hidden = 96;
  config.heads = 3;
  config.evidence_size = 9;
  config.relevance_hidden = 21;
  shapes.push_back(config);
  config = SmallConfig();  // sizes that whole tiles of 64 make up
  config.hidden = 128;
  config.heads = 4;
  config.intermediate = 448;
  shapes.push_back(config);
  return shapes;
}

struct Zoo {
  Zoo(RandomNetwork* network, int candidates) {
    const NativeConfig& config = network->config();
    const std::size_t views = std::size_t(candidates) * config.views;
    start = network->Floats(views * (config.hidden + config.evidence_size), 1.0f);
    memory = network->Floats(
        views * (config.layers - config.inject_at) * 2 * config.memory_rows * config.hidden, 1.0f);
  }
  const float* MemoryOrNull() const { return memory.empty() ? nullptr : memory.data(); }
  std::vector<float> start;
  std::vector<float> memory;
};

NativeOptions With(const std::string& isa, int threads = 1) {
  NativeOptions options;
  options.isa = isa;
  options.threads = threads;
  return options;
}

std::vector<float> Score(NativeExecutor* executor, const Batch& batch,
                         const CandidateTable& table) {
  std::vector<float> probabilities(std::size_t(batch.num_requests()) * table.num_candidates(), -1);
  const Status status = executor->Score(batch, table, probabilities.data());
  EXPECT_TRUE(status.ok()) << status.ToString();
  return probabilities;
}

class NativeExecutorOfShape : public testing::TestWithParam<int> {
 protected:
  NativeConfig config() const { return Shapes()[GetParam()]; }
};

TEST_P(NativeExecutorOfShape, IsNearTheNetworkInDoublePrecision) {
  RandomNetwork network(config(), 11 + GetParam(), GetParam() == 2);
  const auto executor = network.Load(With(""));
  const Zoo zoo(&network, kCandidates);
  const auto table = executor->MakeTable(zoo.start.data(), zoo.MemoryOrNull(), kCandidates, 3);
  const Batch batch = network.Instructions(5, 30);
  const std::vector<float> mine = Score(executor.get(), batch, *table);
  const ReferenceNetwork reference(network);
  double mean = 0.0;
  for (int b = 0; b < batch.num_requests(); ++b) {
    const std::vector<double> expected = reference.Score(
        batch.token_ids().data() + batch.cu_seqlens()[b],
        batch.cu_seqlens()[b + 1] - batch.cu_seqlens()[b], zoo.start, zoo.memory, kCandidates);
    for (int m = 0; m < kCandidates; ++m) {
      const double difference = std::fabs(mine[b * kCandidates + m] - expected[m]);
      EXPECT_LT(difference, 0.06) << "instruction " << b << " candidate " << m;
      mean += difference / (batch.num_requests() * kCandidates);
    }
  }
  EXPECT_LT(mean, 0.012) << "eight bits should cost about 0.004 of a random network";
  EXPECT_GT(
      *std::max_element(mine.begin(), mine.end()) - *std::min_element(mine.begin(), mine.end()),
      0.05)
      << "the answers differ at all";
}

TEST_P(NativeExecutorOfShape, AnswersAreTheSameBitsAloneInAnyBatchAndWithAnyThreads) {
  RandomNetwork network(config(), 5);
  const Zoo zoo(&network, kCandidates);
  const Batch batch = network.Instructions(37, config().max_instruction_tokens);
  const auto one = network.Load(With("", 1));
  const auto three = network.Load(With("", 3));
  const auto table = one->MakeTable(zoo.start.data(), zoo.MemoryOrNull(), kCandidates, 0);
  const auto table3 = three->MakeTable(zoo.start.data(), zoo.MemoryOrNull(), kCandidates, 0);
  const std::vector<float> together = Score(one.get(), batch, *table);
  EXPECT_EQ(Score(three.get(), batch, *table3), together);
  Batch reversed;
  for (int b = batch.num_requests() - 1; b >= 0; --b) {
    Batch alone;
    alone.Append(batch, b, 1);
    reversed.Append(batch, b, 1);
    const std::vector<float> answer = Score(one.get(), alone, *table);
    EXPECT_TRUE(std::equal(answer.begin(), answer.end(), together.begin() + b * kCandidates))
        << "instruction " << b;
  }
  const std::vector<float> backwards = Score(three.get(), reversed, *table3);
  for (int b = 0; b < batch.num_requests(); ++b) {
    EXPECT_TRUE(std::equal(backwards.end() - (b + 1) * kCandidates,
                           backwards.end() - b * kCandidates, together.begin() + b * kCandidates));
  }
}

TEST_P(NativeExecutorOfShape, EveryInstructionSetGivesTheSameBits) {
  RandomNetwork network(config(), 6);
  const Zoo zoo(&network, kCandidates);
  const Batch batch = network.Instructions(8, config().max_instruction_tokens);
  std::vector<float> expected;
  for (const std::string& isa : NativeIsas()) {
    const auto executor = network.Load(With(isa));
    EXPECT_EQ(executor->isa(), isa);
    const auto table = executor->MakeTable(zoo.start.data(), zoo.MemoryOrNull(), kCandidates, 0);
    const std::vector<float> mine = Score(executor.get(), batch, *table);
    if (expected.empty()) expected = mine;
    EXPECT_EQ(mine, expected) << isa;
  }
}

TEST_P(NativeExecutorOfShape, ACandidateDoesNotDependOnTheOthersEvenWhenTheyFillSeveralBlocks) {
  RandomNetwork network(config(), 7);
  constexpr int kMany = 301;
  const Zoo zoo(&network, kMany);
  const auto executor = network.Load(With(""));
  const Batch batch = network.Instructions(5, 20);
  const auto whole = executor->MakeTable(zoo.start.data(), zoo.MemoryOrNull(), kMany, 0);
  const std::vector<float> all = Score(executor.get(), batch, *whole);
  const std::size_t start = zoo.start.size() / kMany;
  const std::size_t memory = zoo.memory.size() / kMany;
  for (const int m : {0, 1, 150, 300}) {
    const auto alone =
        executor->MakeTable(zoo.start.data() + m * start,
                            zoo.memory.empty() ? nullptr : zoo.memory.data() + m * memory, 1, 0);
    const std::vector<float> answer = Score(executor.get(), batch, *alone);
    for (int b = 0; b < batch.num_requests(); ++b) {
      EXPECT_EQ(answer[b], all[std::size_t(b) * kMany + m]) << "candidate " << m;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, NativeExecutorOfShape, testing::Range(0, 5));

TEST(NativeExecutor, CallsFromSeveralThreadsDoNotDisturbEachOther) {
  RandomNetwork network(SmallConfig(), 8);
  const Zoo zoo(&network, kCandidates);
  const auto executor = network.Load(With("", 2));
  const auto table = executor->MakeTable(zoo.start.data(), nullptr, kCandidates, 0);
  const Batch batch = network.Instructions(13, 61);
  const std::vector<float> expected = Score(executor.get(), batch, *table);
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 5; ++repeat) {
        EXPECT_EQ(Score(executor.get(), batch, *table), expected);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST(NativeExecutor, AnEmptyZooAndAnEmptyBatchHaveNoAnswers) {
  RandomNetwork network(SmallConfig(), 9);
  const auto executor = network.Load(With(""));
  const auto table = executor->MakeTable(nullptr, nullptr, 0, 0);
  EXPECT_TRUE(Score(executor.get(), network.Instructions(3, 5), *table).empty());
  EXPECT_TRUE(Score(executor.get(), Batch(), *table).empty());
}

TEST(NativeExecutor, RefusesWhatItCannotScore) {
  RandomNetwork network(SmallConfig(), 10);
  const Zoo zoo(&network, 1);
  const auto executor = network.Load(With(""));
  RandomNetwork elsewhere(SmallConfig(), 10);
  const auto other = elsewhere.Load(With(""));
  const auto table = executor->MakeTable(zoo.start.data(), nullptr, 1, 0);
  float p = 0.0f;
  const auto code = [&](const std::vector<std::int32_t>& tokens, const CandidateTable& t) {
    const Batch batch(tokens, {0, static_cast<std::int32_t>(tokens.size())});
    return executor->Score(batch, t, &p).code();
  };
  EXPECT_EQ(code({100}, *table), StatusCode::kOk);
  EXPECT_EQ(code({101}, *table), StatusCode::kInvalidArgument) << "outside the vocabulary";
  EXPECT_EQ(code({-1}, *table), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(std::vector<std::int32_t>(62, 1), *table), StatusCode::kInvalidArgument);
  const auto foreign = other->MakeTable(zoo.start.data(), nullptr, 1, 0);
  EXPECT_EQ(code({1}, *foreign), StatusCode::kInvalidArgument) << "a table of another router";
  EXPECT_EQ(code({1}, CandidateTable(1, 48, 0, nullptr)), StatusCode::kInvalidArgument);
  std::vector<float> broken = zoo.start;
  broken[3] = NAN;
  EXPECT_THROW(executor->MakeTable(broken.data(), nullptr, 1, 0), std::invalid_argument);
}

TEST(NativeExecutor, RowsAndWeightsOfZerosAreNumbersLikeOthers) {
  RandomNetwork network(SmallConfig(), 12);
  network.FillInt8("trunk.embeddings.word.weight", 0);
  network.FillInt8("trunk.embeddings.position.weight", 0);
  network.FillInt8("trunk.layers.1.up.weight", 0);
  network.FillInt8("trunk.layers.1.query.weight", -128);
  const auto executor = network.Load(With(""));
  const std::vector<float> start(48, 0.0f);
  const auto table = executor->MakeTable(start.data(), nullptr, 1, 0);
  const std::vector<float> p = Score(executor.get(), network.Instructions(2, 9), *table);
  EXPECT_TRUE(std::isfinite(p[0]) && std::isfinite(p[1]));
}

TEST(NativeExecutor, ScalesOfAnySizeGiveAnAnswerOrAnError) {
  for (const float scale : {1e-44f, 1e-38f, 1e30f, 3e38f}) {
    RandomNetwork network(SmallConfig(), 13);
    for (int n = 0; n < 72; ++n) network.SetFloat("trunk.layers.2.up.weight_scale", n, scale);
    const auto executor = network.Load(With(""));
    const Zoo zoo(&network, 1);
    const auto table = executor->MakeTable(zoo.start.data(), nullptr, 1, 0);
    float p = -1.0f;
    const Status status = executor->Score(network.Instructions(1, 9), *table, &p);
    if (status.ok()) {
      EXPECT_TRUE(p >= 0.0f && p <= 1.0f) << scale;
    } else {
      EXPECT_EQ(status.code(), StatusCode::kExecutorError) << scale;
    }
  }
}

// Loading must fail, and the message must name the thing at fault.
void ExpectRefused(RandomNetwork* network, const std::map<std::string, NativeTensor>& places,
                   const NativeConfig& config, const std::string& named) {
  try {
    NativeExecutor executor(network->path(), places, config, NativeOptions());
    FAIL() << "loaded although " << named << " is wrong";
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find(named), std::string::npos) << error.what();
  }
}

TEST(NativeExecutor, RefusesDamagedWeightsByName) {
  const NativeConfig config = SmallConfig();
  const std::string scale = "trunk.layers.0.key.weight_scale";
  for (const float value : {NAN, INFINITY, -INFINITY}) {
    RandomNetwork network(config, 14);
    network.SetFloat(scale, 7, value);
    ExpectRefused(&network, network.Write(), config, scale);
  }
  RandomNetwork network(config, 15);
  const auto good = network.Write();
  auto places = good;
  places.erase("head.rows.bias");
  ExpectRefused(&network, places, config, "head.rows.bias");
  places = good;
  places["trunk.layers.1.up.weight"].shape = {48, 72};
  ExpectRefused(&network, places, config, "trunk.layers.1.up.weight");
  places = good;
  places["trunk.layers.1.up.weight"].dtype = "F32";
  ExpectRefused(&network, places, config, "trunk.layers.1.up.weight");
  places = good;
  places["temperature"].offset_bytes = std::numeric_limits<std::uint64_t>::max() - 2;
  ExpectRefused(&network, places, config, "temperature");
  NativeConfig other = config;
  other.intermediate = 73;
  ExpectRefused(&network, good, other, "up.weight");
  other = config;
  other.heads = 5;
  ExpectRefused(&network, good, other, "heads");
  other = config;
  other.inject_at = 3;
  ExpectRefused(&network, good, other, "inject_at");

  const auto size = std::filesystem::file_size(network.path());
  std::filesystem::resize_file(network.path(), size - 1);
  ExpectRefused(&network, good, config, "truncated");
  std::filesystem::resize_file(network.path(), 0);
  ExpectRefused(&network, good, config, "truncated");
  std::filesystem::remove(network.path());
  ExpectRefused(&network, good, config, network.path());
}

}  // namespace
}  // namespace modelsat
