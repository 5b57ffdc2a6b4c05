// Graphs launched through the driver, on the stand-in of stand_in_libcuda.cc: what is called in
// which order, what comes back, and who takes over when the device fails. No GPU is involved.

#include "modelsat/cuda_graph_executor.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "manual_executor.h"
#include "modelsat/scheduler.h"
#include "stand_in_libcuda.h"

namespace modelsat {
namespace {

constexpr std::int32_t kVocabulary = 97;
constexpr ExecutorLimits kLimits{/*max_batch_requests=*/13, /*max_batch_tokens=*/96,
                                 /*max_instruction_tokens=*/19};
constexpr std::int32_t kRoom = 5;  // candidates of a zoo
using std::chrono::microseconds;

// Who sleeps right away makes the same calls on every machine.
CudaOptions OptionsFor(microseconds poll) { return {kLimits, kVocabulary, "float16", poll}; }

template <typename Function>
Function StandIn(const char* name) {
  static void* const library = dlopen(STAND_IN_LIBCUDA, RTLD_NOW);
  return reinterpret_cast<Function>(dlsym(library, name));
}

std::string Calls() {
  std::vector<char> text(1 << 16);
  StandIn<decltype(&stand_in_calls)>("stand_in_calls")(text.data(), static_cast<int>(text.size()));
  return text.data();
}

void Fail(const char* function, int result) {
  StandIn<decltype(&stand_in_fail)>("stand_in_fail")(function, result);
}

// Passes of 1, 2 and 4 requests, and the memory they work in.
struct Zoo {
  Zoo() {
    const auto graph = StandIn<decltype(&stand_in_graph)>("stand_in_graph");
    std::vector<CudaPass> passes;
    for (const std::int32_t requests : {4, 1, 2}) {
      for (const std::int32_t tokens : {19 * requests, 8 * requests}) {
        void* const captured =
            graph(inputs.data(), scores.data(), candidates.data(), requests, tokens, kRoom);
        passes.push_back({requests, tokens, static_cast<CudaGraph>(captured)});
      }
    }
    const CudaRegion region{reinterpret_cast<std::uint64_t>(candidates.data()),
                            candidates.size() * sizeof(float)};
    zoo = std::make_shared<CudaZoo>(kRoom, inputs.data(), scores.data(),
                                    std::vector<CudaRegion>{region}, passes, nullptr);
  }

  std::vector<std::int32_t> inputs = std::vector<std::int32_t>(2 * 76 + 5, -7);
  std::vector<float> scores = std::vector<float>(4 * kRoom, -7);
  std::vector<float> candidates = std::vector<float>(kRoom, -7);
  std::shared_ptr<CudaZoo> zoo;
};

class CudaGraphExecutorTest : public testing::Test {
 protected:
  CudaGraphExecutorTest() {
    Reset();
    Open(microseconds(0));
    Reset();
  }

  ~CudaGraphExecutorTest() override { Reset(); }

  void Open(microseconds poll) {
    executor_ = std::make_shared<CudaGraphExecutor>(
        std::make_shared<CudaDriver>(STAND_IN_LIBCUDA), OptionsFor(poll),
        [this](const std::string& reason, std::shared_ptr<Executor>* executor) {
          reasons_.push_back(reason);
          *executor = fallback_;
          return fallback_ == nullptr ? Status(StatusCode::kExecutorError, "nobody is left")
                                      : Status();
        });
  }

  static void Reset() { StandIn<decltype(&stand_in_reset)>("stand_in_reset")(); }

  std::shared_ptr<CandidateTable> MakeTable(const std::vector<float>& values) {
    auto kept = std::make_shared<std::vector<float>>(values);
    kept->resize(kRoom, 0.0f);
    const auto source = reinterpret_cast<std::uint64_t>(kept->data());
    return executor_->MakeTable(static_cast<std::int32_t>(values.size()), 7, ++version_, nullptr,
                                zoo_.zoo, {source}, kept);
  }

  std::shared_ptr<Batch> Draw(std::int32_t requests, std::int32_t longest = 19) {
    auto batch = std::make_shared<Batch>();
    for (std::int32_t b = 0; b < requests; ++b) {
      std::vector<std::int32_t> tokens(std::uniform_int_distribution<>(1, longest)(random_));
      for (auto& token : tokens) token = std::uniform_int_distribution<>(0, 96)(random_);
      const auto count = static_cast<std::int32_t>(tokens.size());
      batch->Append(Batch(std::move(tokens), {0, count}), 0, 1);
    }
    return batch;
  }

  static std::vector<float> Expected(const Batch& batch, const std::vector<float>& candidates) {
    std::vector<float> expected;
    for (std::int32_t b = 0; b < batch.num_requests(); ++b) {
      const float share =
          StandInShare(batch.token_ids().data() + batch.cu_seqlens()[b], batch.TokensOf(b, 1));
      for (const float candidate : candidates) expected.push_back(candidate * share);
    }
    return expected;
  }

  std::vector<float> Score(const Batch& batch, const CandidateTable& table, Status* status) {
    std::vector<float> scores(std::size_t(batch.num_requests()) * table.num_candidates(), -3.0f);
    *status = executor_->Score(batch, table, scores.data());
    return scores;
  }

  void ExpectScores(const Batch& batch, const CandidateTable& table,
                    const std::vector<float>& candidates) {
    Status status;
    const std::vector<float> scores = Score(batch, table, &status);
    ASSERT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(scores, Expected(batch, candidates));
  }

  std::mt19937 random_{20240607};
  std::uint64_t version_ = 0;
  Zoo zoo_;
  std::vector<std::string> reasons_;
  std::shared_ptr<Executor> fallback_ = std::make_shared<ManualExecutor>(kLimits, false);
  std::shared_ptr<CudaGraphExecutor> executor_;
};

const std::vector<float> kThree{0.25f, 0.5f, 1.0f};

TEST_F(CudaGraphExecutorTest, BatchesOfEverySizeAreScoredInPassesThatHoldThem) {
  const auto table = MakeTable(kThree);
  for (std::int32_t requests = 1; requests <= 13; ++requests) {
    ExpectScores(*Draw(requests), *table, kThree);
    ExpectScores(*Draw(requests, 3), *table, kThree);
  }
  EXPECT_TRUE(reasons_.empty());
}

TEST_F(CudaGraphExecutorTest, TheSmallestPassIsTaken) {
  const auto sizes = [&](std::int32_t requests, std::int32_t tokens) {
    const CudaPass* const pass = zoo_.zoo->Find(requests, tokens);
    return pass == nullptr ? std::make_pair(0, 0) : std::make_pair(pass->requests, pass->tokens);
  };
  EXPECT_EQ(sizes(1, 1), std::make_pair(1, 8));
  EXPECT_EQ(sizes(1, 9), std::make_pair(1, 19));
  EXPECT_EQ(sizes(2, 16), std::make_pair(2, 16));
  EXPECT_EQ(sizes(3, 33), std::make_pair(4, 76));
  EXPECT_EQ(sizes(4, 77), std::make_pair(0, 0));
  EXPECT_EQ(sizes(5, 1), std::make_pair(0, 0));
}

TEST_F(CudaGraphExecutorTest, ATableIsCopiedOnceAndEveryPassIsWaitedFor) {
  const auto table = MakeTable(kThree);
  ExpectScores(*Draw(3), *table, kThree);
  EXPECT_EQ(Calls(),
            "cuCtxPushCurrent cuMemcpyDtoDAsync cuGraphLaunch cuEventRecord cuEventSynchronize "
            "cuCtxPopCurrent");
  Reset();
  ExpectScores(*Draw(5), *table, kThree);
  EXPECT_EQ(Calls(),
            "cuCtxPushCurrent cuGraphLaunch cuEventRecord cuEventSynchronize cuGraphLaunch "
            "cuEventRecord cuEventSynchronize cuCtxPopCurrent");
}

TEST_F(CudaGraphExecutorTest, AShortPassIsAskedForAndALongOneSleptFor) {
  Open(std::chrono::minutes(1));
  const auto asked = MakeTable(kThree);
  Reset();
  ExpectScores(*Draw(3), *asked, kThree);
  EXPECT_EQ(Calls(),
            "cuCtxPushCurrent cuMemcpyDtoDAsync cuGraphLaunch cuEventRecord cuCtxPopCurrent");

  const auto pause = StandIn<decltype(&stand_in_pause)>("stand_in_pause");
  Open(microseconds(50));
  const auto slept = MakeTable(kThree);
  const auto batch = Draw(2);
  Reset();
  pause(true);
  std::thread waiting([&] { ExpectScores(*batch, *slept, kThree); });
  while (Calls().find("cuEventSynchronize") == std::string::npos) std::this_thread::yield();
  pause(false);
  waiting.join();
}

TEST_F(CudaGraphExecutorTest, TablesInTurnsKeepTheirScores) {
  const std::vector<float> other{0.125f, 1.0f, 0.0f, 0.75f, 0.5f};
  const auto first = MakeTable(kThree);
  auto second = MakeTable(other);
  for (int round = 0; round < 3; ++round) {
    ExpectScores(*Draw(2), *first, kThree);
    ExpectScores(*Draw(7), *second, other);
  }
  // at the address of one that is gone, maybe
  for (int round = 0; round < 20; ++round) {
    second.reset();
    const std::vector<float> fresh{round / 32.0f, 0.5f, 1.0f, 0.25f};
    second = MakeTable(fresh);
    ExpectScores(*Draw(1), *second, fresh);
  }
}

TEST_F(CudaGraphExecutorTest, AThreadWithoutAContextIsGivenOne) {
  const auto table = MakeTable(kThree);
  const auto batch = Draw(4);
  std::thread([&] { ExpectScores(*batch, *table, kThree); }).join();
  EXPECT_TRUE(reasons_.empty());
  std::thread([] {
    const auto make = [] {
      CudaGraphExecutor(std::make_shared<CudaDriver>(STAND_IN_LIBCUDA), OptionsFor(microseconds(0)),
                        nullptr);
    };
    EXPECT_THROW(make(), std::runtime_error);
  }).join();
}

TEST_F(CudaGraphExecutorTest, AnotherExecutorTakesOverFromADeviceThatFails) {
  const auto table = MakeTable(kThree);
  const auto batch = Draw(6);
  ExpectScores(*batch, *table, kThree);
  Fail("cuGraphLaunch", 2);
  for (int round = 0; round < 2; ++round) {
    Status status;
    const std::vector<float> scores = Score(*batch, *table, &status);
    ASSERT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(scores[4], ExpectedProbability(*batch, 1, *table, 1));
    Fail("cuGraphLaunch", 0);  // a device that failed once is not asked again
  }
  EXPECT_TRUE(executor_->failed());
  EXPECT_EQ(reasons_,
            std::vector<std::string>({"cuGraphLaunch: CUDA_ERROR_OUT_OF_MEMORY (out of memory)"}));
}

TEST_F(CudaGraphExecutorTest, EveryFunctionThatFailsIsNamed) {
  for (const char* function : {"cuCtxPushCurrent", "cuMemcpyDtoDAsync", "cuGraphLaunch",
                               "cuEventRecord", "cuEventSynchronize", "cuEventQuery"}) {
    Reset();
    reasons_.clear();
    Open(std::string(function) == "cuEventQuery" ? std::chrono::minutes(1) : microseconds(0));
    const auto table = MakeTable(kThree);
    Fail(function, 700);
    Status status;
    Score(*Draw(6), *table, &status);
    EXPECT_TRUE(status.ok()) << status.ToString();
    ASSERT_EQ(reasons_.size(), 1u);
    EXPECT_EQ(reasons_[0], std::string(function) +
                               ": CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was "
                               "encountered)");
  }
}

TEST_F(CudaGraphExecutorTest, WhatIsQueuedIsWaitedForBeforeAnotherTakesOver) {
  const auto table = MakeTable(kThree);
  Fail("cuGraphLaunch", 999);
  Status status;
  Score(*Draw(1), *table, &status);
  EXPECT_EQ(reasons_, std::vector<std::string>({"cuGraphLaunch: error 999"}));
  EXPECT_EQ(Calls(),
            "cuCtxPushCurrent cuMemcpyDtoDAsync cuGraphLaunch cuEventRecord cuEventSynchronize "
            "cuCtxPopCurrent");
}

TEST_F(CudaGraphExecutorTest, WithNobodyToTakeOverEveryBatchFails) {
  const auto table = MakeTable(kThree);
  fallback_ = nullptr;
  EXPECT_EQ(executor_->GiveUp("the zoo is too large").message(), "nobody is left");
  for (int round = 0; round < 2; ++round) {
    Status status;
    Score(*Draw(2), *table, &status);
    EXPECT_EQ(status.code(), StatusCode::kExecutorError);
    EXPECT_EQ(status.message(), "nobody is left");
  }
  EXPECT_EQ(reasons_, std::vector<std::string>(3, "the zoo is too large"));
  EXPECT_EQ(Calls(), "");
}

TEST_F(CudaGraphExecutorTest, AnOverflowIsAnErrorAndNoReasonToGiveUpTheDevice) {
  const auto broken = MakeTable({0.5f, std::numeric_limits<float>::quiet_NaN()});
  Status status;
  Score(*Draw(2), *broken, &status);
  EXPECT_EQ(status.code(), StatusCode::kExecutorError);
  EXPECT_EQ(status.message().find("the network's arithmetic overflowed in float16"), 0u);
  EXPECT_FALSE(executor_->failed());
  ExpectScores(*Draw(2), *MakeTable(kThree), kThree);
}

TEST_F(CudaGraphExecutorTest, BadBatchesAndTablesNeverReachTheDevice) {
  const CudaGraphExecutor other(std::make_shared<CudaDriver>(STAND_IN_LIBCUDA),
                                OptionsFor(microseconds(0)), nullptr);
  Reset();
  const auto table = MakeTable(kThree);
  const auto refused = [&](const Batch& batch, const CandidateTable& with) {
    Status status;
    Score(batch, with, &status);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status.ToString();
  };
  refused(Batch({1, 97}, {0, 2}), *table);
  refused(Batch(std::vector<std::int32_t>(20, 1), {0, 20}), *table);
  refused(*Draw(1), CandidateTable(3, 7, 1, nullptr));
  const auto source = reinterpret_cast<std::uint64_t>(zoo_.candidates.data());
  refused(*Draw(1), *other.MakeTable(3, 7, 1, nullptr, zoo_.zoo, {source}, nullptr));
  EXPECT_EQ(Calls(), "");
  EXPECT_THROW(MakeTable({0, 0, 0, 0, 0, 0}), std::invalid_argument);
  EXPECT_THROW(executor_->MakeTable(1, 7, 1, nullptr, zoo_.zoo, {}, nullptr),
               std::invalid_argument);
  EXPECT_THROW(CudaZoo(3, zoo_.inputs.data(), zoo_.scores.data(), {}, {}, nullptr),
               std::invalid_argument);
  EXPECT_THROW(CudaZoo(3, zoo_.inputs.data(), zoo_.scores.data(), {}, {{1, 8, nullptr}}, nullptr),
               std::invalid_argument);
}

TEST_F(CudaGraphExecutorTest, EventAndStreamGoWithTheExecutor) {
  executor_.reset();
  EXPECT_EQ(Calls(), "cuCtxPushCurrent cuEventDestroy cuStreamDestroy cuCtxPopCurrent");
}

TEST_F(CudaGraphExecutorTest, TablesAreSwappedUnderLoadAndEveryAnswerIsRight) {
  BatchScheduler scheduler(executor_, {});
  const auto ask = [&](unsigned seed) {
    std::mt19937 random(seed);
    for (int round = 0; round < 60; ++round) {
      const std::vector<float> values{static_cast<float>(random() % 64) / 64, 0.5f};
      auto kept = std::make_shared<std::vector<float>>(values);
      kept->resize(kRoom, 0.0f);
      const auto source = reinterpret_cast<std::uint64_t>(kept->data());
      const auto table = executor_->MakeTable(2, 7, seed, nullptr, zoo_.zoo, {source}, kept);
      std::vector<std::int32_t> tokens(1 + random() % 19);
      for (auto& token : tokens) token = static_cast<std::int32_t>(random() % 97);
      const auto count = static_cast<std::int32_t>(tokens.size());
      const auto submission = std::make_shared<Submission>(Batch(std::move(tokens), {0, count}),
                                                           table, SubmitOptions());
      ASSERT_TRUE(scheduler.Submit(submission).ok());
      submission->Wait();
      ASSERT_TRUE(submission->status().ok()) << submission->status().ToString();
      EXPECT_EQ(submission->probabilities(), Expected(submission->requests(), values));
    }
  };
  std::vector<std::thread> threads;
  for (unsigned seed = 1; seed <= 4; ++seed) threads.emplace_back(ask, seed);
  for (auto& thread : threads) thread.join();
}

TEST(CudaDriverTest, ALibraryThatIsMissingOrTooOldSaysSo) {
  const auto reason = [](const std::string& library) -> std::string {
    try {
      const CudaDriver driver(library);
      return "version " + std::to_string(driver.version());
    } catch (const std::runtime_error& error) {
      return error.what();
    }
  };
  EXPECT_EQ(reason(STAND_IN_LIBCUDA), "version 12040");
  EXPECT_EQ(reason("/nowhere/libcuda.so.1").find("the NVIDIA driver cannot be loaded ("), 0u);
  EXPECT_EQ(reason(STAND_IN_LIBCUDA_OLD),
            "the NVIDIA driver is for CUDA 11.4, graphs need one for 12.0 or later; update it");
  EXPECT_EQ(reason(STAND_IN_LIBCUDA_WITHOUT_GRAPHS),
            std::string(STAND_IN_LIBCUDA_WITHOUT_GRAPHS) +
                " has no function cuGraphLaunch: the NVIDIA driver is too old; update it");
}

}  // namespace
}  // namespace modelsat
