// Random interleavings of everything a scheduler can do; what must hold in all of them.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "fake_clock.h"
#include "manual_executor.h"
#include "modelsat/scheduler.h"

namespace modelsat {
namespace {

constexpr ExecutorLimits kLimits{/*max_batch_requests=*/7, /*max_batch_tokens=*/61,
                                 /*max_instruction_tokens=*/23};

// Checks and counts; a submission delivered twice shows as a wrong count.
class CheckingSink final : public CompletionSink {
 public:
  void Deliver(std::vector<std::shared_ptr<Submission>> finished) noexcept override {
    for (const auto& submission : finished) {
      EXPECT_TRUE(submission->done());
      ++num_delivered;
      num_requests += submission->num_requests();
      for (std::int32_t i = 0; i < submission->num_requests(); ++i) {
        const Answer answer = submission->answer(i);
        ++num_by_code[static_cast<int>(answer.code)];
        const bool ok = answer.code == StatusCode::kOk;
        const auto& table = *submission->table();
        for (std::int32_t m = 0; m < table.num_candidates(); ++m) {
          EXPECT_EQ(submission->probabilities()[i * table.num_candidates() + m],
                    ok ? ExpectedProbability(submission->requests(), i, table, m) : 0.0f);
        }
      }
    }
  }

  std::atomic<std::int64_t> num_delivered{0};
  std::atomic<std::int64_t> num_requests{0};
  std::atomic<std::int64_t> num_by_code[kNumStatusCodes] = {};
};

struct Producer {
  std::int64_t accepted_submissions = 0;
  std::int64_t accepted_requests = 0;
  std::int64_t rejected_requests = 0;
};

void Produce(BatchScheduler* scheduler, FakeClock* clock, std::shared_ptr<CheckingSink> sink,
             const std::vector<std::shared_ptr<const CandidateTable>>& tables, std::uint64_t seed,
             int num_submissions, Producer* result) {
  std::mt19937_64 random(seed);
  std::vector<std::shared_ptr<Submission>> mine;
  for (int i = 0; i < num_submissions; ++i) {
    Batch requests;
    const int count = random() % 8 == 0 ? static_cast<int>(random() % 30) : 1;
    for (int r = 0; r < count; ++r) {
      const int length = 1 + static_cast<int>(random() % 23);
      std::vector<std::int32_t> token_ids(length);
      for (auto& token_id : token_ids) token_id = static_cast<std::int32_t>(random() % 30'011);
      requests.Append(Batch(token_ids, {0, length}), 0, 1);
    }
    SubmitOptions options;
    options.sink = sink;
    options.priority = static_cast<int>(random() % 7) - 3;
    if (random() % 2 == 0) {
      options.deadline_us = clock->NowUs() + static_cast<std::int64_t>(random() % 3'000);
    }
    auto submission = std::make_shared<Submission>(std::move(requests),
                                                   tables[random() % tables.size()], options);
    if (scheduler->Submit(submission).ok()) {
      ++result->accepted_submissions;
      result->accepted_requests += submission->num_requests();
      mine.push_back(submission);
    } else {
      result->rejected_requests += submission->num_requests();
    }
    switch (random() % 16) {
      case 0:
        if (!mine.empty()) scheduler->Cancel(mine[random() % mine.size()]);
        break;
      case 1:
        if (!mine.empty()) {  // waits with a deadline or not; time is advanced by somebody else
          mine[random() % mine.size()]->Wait();
        }
        break;
      case 2:
        scheduler->Stats();
        break;
      case 3:
        std::this_thread::yield();
        break;
      default:
        break;
    }
  }
}

TEST(SchedulerStressTest, EveryAcceptedRequestIsAnsweredOnceInAnyInterleaving) {
  const std::uint64_t base_seed = std::random_device()();
  for (int round = 0; round < 12; ++round) {
    const std::uint64_t seed = base_seed + round;
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::printf("round %d, seed %llu\n", round, static_cast<unsigned long long>(seed));
    std::mt19937_64 random(seed);
    FakeClock clock;
    auto executor = std::make_shared<ManualExecutor>(kLimits, /*manual=*/false);
    std::atomic<std::uint64_t> num_calls{0};
    executor->SetBehaviour([&num_calls, seed]() -> Status {
      const std::uint64_t call = ++num_calls;
      if (call % 3 == 0) std::this_thread::yield();
      if ((call + seed) % 11 == 0) return Status(StatusCode::kExecutorError, "every eleventh");
      if ((call + seed) % 13 == 0) throw std::runtime_error("every thirteenth");
      return Status();
    });
    SchedulerOptions options;
    options.max_queue_requests = 20 + static_cast<std::int32_t>(random() % 60);
    options.max_queue_tokens = 600;
    options.ageing_us = static_cast<std::int64_t>(random() % 500);
    auto scheduler = std::make_unique<BatchScheduler>(executor, options, &clock);
    auto sink = std::make_shared<CheckingSink>();
    std::vector<std::shared_ptr<const CandidateTable>> tables;
    for (int i = 1; i <= 3; ++i) {
      tables.push_back(std::make_shared<CandidateTable>(2 * i + 1, 5, i, nullptr));
    }

    constexpr int kNumProducers = 4;
    Producer producers[kNumProducers];
    std::vector<std::thread> threads;
    std::atomic<bool> stop{false};
    std::thread time([&] {
      while (!stop) {
        clock.AdvanceUs(17);
        std::this_thread::yield();
      }
    });
    for (int p = 0; p < kNumProducers; ++p) {
      threads.emplace_back(Produce, scheduler.get(), &clock, sink, std::cref(tables), seed * 31 + p,
                           400, &producers[p]);
    }
    const bool close_early = round % 3 == 2;
    if (close_early) {
      const auto num_seen = [&] {
        const SchedulerStats stats = scheduler->Stats();
        return std::accumulate(stats.rejected.begin(), stats.rejected.end(), stats.accepted);
      };
      while (num_seen() < 300) std::this_thread::yield();
      scheduler->Close();
    }
    for (auto& thread : threads) thread.join();
    if (!close_early) {
      EXPECT_TRUE(scheduler->Drain());
    }
    scheduler->Close();
    stop = true;
    time.join();

    std::int64_t submissions = 0, accepted = 0, rejected = 0;
    for (const Producer& producer : producers) {
      submissions += producer.accepted_submissions;
      accepted += producer.accepted_requests;
      rejected += producer.rejected_requests;
    }
    const SchedulerStats stats = scheduler->Stats();
    EXPECT_EQ(sink->num_delivered, submissions);
    EXPECT_EQ(sink->num_requests, accepted);
    EXPECT_EQ(stats.accepted, accepted);
    std::int64_t stats_rejected = 0;
    for (int code = 0; code < kNumStatusCodes; ++code) {
      EXPECT_EQ(stats.answered[code], sink->num_by_code[code]) << code;
      stats_rejected += stats.rejected[code];
    }
    EXPECT_EQ(stats_rejected, rejected);
    EXPECT_EQ(stats.late_in_queue + stats.late_in_execution,
              stats.answered[static_cast<int>(StatusCode::kDeadlineExceeded)]);
    EXPECT_EQ(stats.queued_requests, 0);
    EXPECT_EQ(stats.queued_tokens, 0);
    EXPECT_EQ(stats.prefetched_requests, 0);
    EXPECT_EQ(stats.executing_requests, 0);
    EXPECT_EQ(stats.unanswered_submissions, 0);
    for (const auto& call : executor->calls()) {
      ASSERT_LE(call.cu_seqlens.back(), kLimits.max_batch_tokens);
      ASSERT_LE(static_cast<std::int32_t>(call.cu_seqlens.size()) - 1, kLimits.max_batch_requests);
    }
  }
}

}  // namespace
}  // namespace modelsat
