// Which deadlines the scheduler takes on, and what it does to keep them, on a clock that a test
// moves: every batch takes exactly as long as the test says.

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "fake_clock.h"
#include "manual_executor.h"
#include "modelsat/scheduler.h"

namespace modelsat {
namespace {

constexpr ExecutorLimits kLimits{/*max_batch_requests=*/5, /*max_batch_tokens=*/37,
                                 /*max_instruction_tokens=*/19};
constexpr std::int32_t kTokens = 5;
constexpr std::int32_t kCandidates = 3;
// A lone request has kTokens + kCandidates rows; a batch takes 1,250 us a row once it is taught.
constexpr std::int64_t kAloneUs = 10'000;
constexpr std::int64_t kBlockerUs = 5'000;  // one token and three candidates

class SchedulerDeadlineTest : public testing::Test {
 protected:
  void TearDown() override { executor_->Release(1000); }

  void Start(const SchedulerOptions& options = {}) {
    executor_ = std::make_shared<ManualExecutor>(kLimits);
    scheduler_ = std::make_unique<BatchScheduler>(executor_, options, &clock_);
    for (int i = 0; i < 4; ++i) {
      const auto lone = Submit(kNever);
      executor_->WaitForCall(++num_calls_);
      Finish(kAloneUs);
      lone->Wait();
    }
  }

  // A request of `tokens` tokens that all have the value `token`.
  std::shared_ptr<Submission> Make(std::int64_t within_us, int priority = 0, std::int32_t token = 1,
                                   std::int32_t tokens = kTokens, std::int32_t count = 1) {
    SubmitOptions options;
    options.priority = priority;
    if (within_us != kNever) options.deadline_us = clock_.NowUs() + within_us;
    Batch requests;
    const Batch one(std::vector<std::int32_t>(tokens, token), {0, tokens});
    for (std::int32_t i = 0; i < count; ++i) requests.Append(one, 0, 1);
    return std::make_shared<Submission>(std::move(requests), table_, options);
  }

  std::shared_ptr<Submission> Submit(std::int64_t within_us, std::int32_t token = 1) {
    auto submission = Make(within_us, 0, token);
    const Status status = scheduler_->Submit(submission);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return submission;
  }

  StatusCode Code(std::int64_t within_us, int priority = 0) {
    return scheduler_->Submit(Make(within_us, priority)).code();
  }

  // Keeps the executor busy until Finish.
  void MakeBusy() {
    ASSERT_TRUE(scheduler_->Submit(Make(kNever, 0, 9, 1)).ok());
    executor_->WaitForCall(++num_calls_);
  }

  // Ends the running batch after `us`.
  void Finish(std::int64_t us) {
    clock_.AdvanceUs(us);
    executor_->Release();
  }

  // First token of every instruction of the next call of the executor.
  std::vector<std::int32_t> NextBatch() {
    executor_->WaitForCall(++num_calls_);
    const ManualExecutor::Call call = executor_->calls()[num_calls_ - 1];
    std::vector<std::int32_t> tokens;
    for (std::size_t i = 0; i + 1 < call.cu_seqlens.size(); ++i) {
      tokens.push_back(call.token_ids[call.cu_seqlens[i]]);
    }
    return tokens;
  }

  FakeClock clock_;
  std::shared_ptr<ManualExecutor> executor_;
  std::unique_ptr<BatchScheduler> scheduler_;
  const std::shared_ptr<const CandidateTable> table_ =
      std::make_shared<CandidateTable>(kCandidates, 7, 1, nullptr);
  int num_calls_ = 0;
};

TEST_F(SchedulerDeadlineTest, AnIdleSchedulerTakesOnWhatAFastRunCanMeet) {
  Start();
  EXPECT_EQ(Code(kAloneUs - 1), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(scheduler_->Stats().rejected[static_cast<int>(StatusCode::kDeadlineExceeded)], 1);
  EXPECT_EQ(Code(kAloneUs), StatusCode::kOk);
}

TEST_F(SchedulerDeadlineTest, AnEstimateThatIsTooHighHealsWithoutABatch) {
  Start();
  int refusals = 0;
  while (Code(kAloneUs / 2) != StatusCode::kOk) ASSERT_LT(++refusals, 20);
  EXPECT_EQ(refusals, 6);  // 0.875^6 = 0.45
}

TEST_F(SchedulerDeadlineTest, ABusySchedulerRefusesAtOnceWhatItWouldServeTooLate) {
  Start();
  MakeBusy();
  const std::int64_t need_us = kBlockerUs + kAloneUs;
  EXPECT_EQ(Code(3 * need_us / 2 - 1), StatusCode::kOverloaded);
  EXPECT_EQ(Code(3 * need_us / 2), StatusCode::kOk);
  EXPECT_EQ(Code(3 * need_us / 2), StatusCode::kOverloaded) << "now one is ahead";
  EXPECT_EQ(Code(3 * (need_us + kAloneUs) / 2), StatusCode::kOk);
  EXPECT_EQ(Code(kNever), StatusCode::kOk);
  const SchedulerStats stats = scheduler_->Stats();
  EXPECT_EQ(stats.rejected[static_cast<int>(StatusCode::kOverloaded)], 2);
  EXPECT_EQ(stats.queued_requests, 3);
}

TEST_F(SchedulerDeadlineTest, ABatchThatIsOverdueIsTakenToNeedAsLongAgain) {
  Start();
  MakeBusy();
  clock_.AdvanceUs(kBlockerUs + 20'000);
  const std::int64_t need_us = 20'000 + kAloneUs;
  EXPECT_EQ(Code(3 * need_us / 2 - 1), StatusCode::kOverloaded);
  EXPECT_EQ(Code(3 * need_us / 2), StatusCode::kOk);
}

TEST_F(SchedulerDeadlineTest, WorkOfLowerPriorityIsNotInTheWay) {
  Start();
  MakeBusy();
  ASSERT_TRUE(scheduler_->Submit(Make(kNever, 0, 1, kTokens, 50)).ok());
  // Only its first five can be, if they are in the batch that is formed ahead.
  const std::int64_t within_us = 3 * (kBlockerUs + 6 * kAloneUs) / 2;
  EXPECT_EQ(Code(within_us, 0), StatusCode::kOverloaded);
  EXPECT_EQ(Code(within_us, 1), StatusCode::kOk);
}

TEST_F(SchedulerDeadlineTest, WithoutAMarginEveryDeadlineIsTakenOn) {
  SchedulerOptions options;
  options.deadline_margin = 0;
  Start(options);
  MakeBusy();
  EXPECT_EQ(Code(1), StatusCode::kOk);
}

TEST_F(SchedulerDeadlineTest, AskWantsAThirdMoreTimeThanSubmitAndAdmitsNothing) {
  Start();
  MakeBusy();
  const auto ask = [&](std::int32_t requests, std::int64_t within_us) {
    return scheduler_->Ask(requests, kCandidates, 0, clock_.NowUs() + within_us).code();
  };
  // The mean of four requests of 5 tokens and one of 1 is 4 tokens: 7 rows.
  const std::int64_t need_us = kBlockerUs + 7 * kAloneUs / 8;
  EXPECT_EQ(ask(1, 2 * need_us - 1), StatusCode::kOverloaded);
  EXPECT_EQ(ask(1, 2 * need_us + 1), StatusCode::kOk);
  EXPECT_EQ(ask(1, 0), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ask(1 << 20, 1'000'000), StatusCode::kTooLarge);
  SchedulerStats stats = scheduler_->Stats();
  EXPECT_EQ(stats.rejected[static_cast<int>(StatusCode::kOverloaded)], 1);
  EXPECT_EQ(stats.queued_requests, 0);
  EXPECT_EQ(stats.accepted, 5);
}

TEST_F(SchedulerDeadlineTest, WhatCanNoLongerBeMetIsAnsweredInsteadOfExecuted) {
  Start();
  MakeBusy();
  const auto urgent = Submit(30'000, 1);
  const auto patient = Submit(kNever, 2);
  Finish(25'000);  // leaves the urgent one half of what it needs
  EXPECT_EQ(NextBatch(), std::vector<std::int32_t>{2});
  urgent->Wait();
  EXPECT_EQ(urgent->answer(0).code, StatusCode::kDeadlineExceeded);
  EXPECT_EQ(scheduler_->Stats().late_in_queue, 1);
  EXPECT_EQ(scheduler_->Stats().queued_requests, 0);
  Finish(kAloneUs);
  patient->Wait();
  EXPECT_TRUE(patient->status().ok());
}

TEST_F(SchedulerDeadlineTest, ABatchGrowsNoFurtherThanItsMostUrgentRequestCanAfford) {
  Start();
  MakeBusy();
  const auto urgent = Submit(kBlockerUs + 2 * kAloneUs, 1);
  const auto second = Submit(kNever, 2);
  const auto third = Submit(kNever, 3);
  Finish(kBlockerUs);
  EXPECT_EQ(NextBatch(), (std::vector<std::int32_t>{1, 2}));
  Finish(2 * kAloneUs - 1);
  urgent->Wait();
  EXPECT_TRUE(urgent->status().ok());
  EXPECT_EQ(NextBatch(), std::vector<std::int32_t>{3});
}

TEST_F(SchedulerDeadlineTest, AListThatCannotFinishInTimeIsGivenUpWhole) {
  Start();
  MakeBusy();
  // Two batches of five, 50 ms each; admitted with 3/2 of 105 ms.
  auto list = Make(160'000, 0, 4, kTokens, 10);
  ASSERT_TRUE(scheduler_->Submit(list).ok());
  Finish(kBlockerUs);
  EXPECT_EQ(NextBatch().size(), 5u);
  Finish(120'000);  // leaves 35 ms for the second batch
  list->Wait();
  EXPECT_EQ(list->answer(4).code, StatusCode::kOk);
  EXPECT_EQ(list->answer(5).code, StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace modelsat
