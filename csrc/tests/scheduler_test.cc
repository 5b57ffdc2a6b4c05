// The scheduler's contract, one promise per test, on a clock that a test moves.

#include "modelsat/scheduler.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "fake_clock.h"
#include "manual_executor.h"

namespace modelsat {
namespace {

constexpr ExecutorLimits kLimits{/*max_batch_requests=*/5, /*max_batch_tokens=*/37,
                                 /*max_instruction_tokens=*/19};

class CountingSink final : public CompletionSink {
 public:
  void Deliver(std::vector<std::shared_ptr<Submission>> finished) noexcept override {
    MutexLock lock(&mutex_);
    sizes_.push_back(finished.size());
  }
  std::vector<std::size_t> sizes() {
    MutexLock lock(&mutex_);
    return sizes_;
  }

 private:
  Mutex mutex_;
  std::vector<std::size_t> sizes_ MODELSAT_GUARDED_BY(mutex_);
};

class SchedulerTest : public testing::Test {
 protected:
  void TearDown() override {
    if (scheduler_ != nullptr) executor_->Release(1000);
  }

  void Start(SchedulerOptions options = {}, const ExecutorLimits& limits = kLimits) {
    executor_ = std::make_shared<ManualExecutor>(limits);
    scheduler_ = std::make_unique<BatchScheduler>(executor_, options, &clock_);
  }

  static std::shared_ptr<const CandidateTable> MakeTable(std::uint64_t version,
                                                         std::int32_t num_candidates = 3) {
    return std::make_shared<CandidateTable>(num_candidates, 7, version, nullptr);
  }

  // Requests of the given lengths, whose tokens count up from `first_token`.
  static Batch MakeRequests(const std::vector<std::int32_t>& lengths,
                            std::int32_t first_token = 1) {
    std::vector<std::int32_t> cu_seqlens{0};
    for (const std::int32_t length : lengths) cu_seqlens.push_back(cu_seqlens.back() + length);
    std::vector<std::int32_t> token_ids(cu_seqlens.back());
    std::iota(token_ids.begin(), token_ids.end(), first_token);
    return Batch(std::move(token_ids), std::move(cu_seqlens));
  }

  std::shared_ptr<Submission> Make(const std::vector<std::int32_t>& lengths,
                                   SubmitOptions options = {}, std::int32_t first_token = 1) {
    return std::make_shared<Submission>(MakeRequests(lengths, first_token), table_, options);
  }

  std::shared_ptr<Submission> MustSubmit(const std::vector<std::int32_t>& lengths,
                                         SubmitOptions options = {}, std::int32_t first_token = 1) {
    auto submission = Make(lengths, options, first_token);
    const Status status = scheduler_->Submit(submission);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return submission;
  }

  StatusCode SubmitCode(const std::vector<std::int32_t>& lengths, SubmitOptions options = {}) {
    return scheduler_->Submit(Make(lengths, options)).code();
  }

  // Keeps the executor busy with a request of its own until it is released.
  std::shared_ptr<Submission> MakeBusy() {
    auto blocker = MustSubmit({1}, {}, 9000);
    executor_->WaitForCall(++num_calls_);
    return blocker;
  }

  void ExpectRightProbabilities(const Submission& submission) {
    const CandidateTable& table = *submission.table();
    for (std::int32_t i = 0; i < submission.num_requests(); ++i) {
      ASSERT_EQ(submission.answer(i).code, StatusCode::kOk) << i;
      for (std::int32_t m = 0; m < table.num_candidates(); ++m) {
        ASSERT_EQ(submission.probabilities()[i * table.num_candidates() + m],
                  ExpectedProbability(submission.requests(), i, table, m));
      }
    }
  }

  // First token of every instruction of a call, to tell the requests apart.
  static std::vector<std::int32_t> FirstTokens(const ManualExecutor::Call& call) {
    std::vector<std::int32_t> tokens;
    for (std::size_t i = 0; i + 1 < call.cu_seqlens.size(); ++i) {
      tokens.push_back(call.token_ids[call.cu_seqlens[i]]);
    }
    return tokens;
  }

  static SubmitOptions WithPriority(int priority) {
    SubmitOptions options;
    options.priority = priority;
    return options;
  }

  SubmitOptions WithTimeoutUs(std::int64_t timeout_us) {
    SubmitOptions options;
    options.deadline_us = clock_.NowUs() + timeout_us;
    return options;
  }

  FakeClock clock_;
  std::shared_ptr<const CandidateTable> table_ = MakeTable(1);
  std::shared_ptr<ManualExecutor> executor_;
  std::unique_ptr<BatchScheduler> scheduler_;
  int num_calls_ = 0;
};

TEST_F(SchedulerTest, ALoneRequestStartsWithoutTimePassing) {
  Start();
  auto submission = MustSubmit({13});
  executor_->WaitForCall(1);
  executor_->Release();
  submission->Wait();
  ExpectRightProbabilities(*submission);
  EXPECT_EQ(submission->answer(0).queue_us, 0);
  EXPECT_TRUE(submission->status().ok());
}

TEST_F(SchedulerTest, TimesAreReportedPerRequest) {
  Start();
  auto first = MakeBusy();
  auto second = MustSubmit({4});
  clock_.AdvanceUs(70);
  executor_->Release();
  executor_->WaitForCall(2);
  clock_.AdvanceUs(11);
  executor_->Release();
  second->Wait();
  EXPECT_EQ(first->answer(0).execute_us, 70);
  EXPECT_EQ(second->answer(0).queue_us, 70);
  EXPECT_EQ(second->answer(0).execute_us, 11);
}

TEST_F(SchedulerTest, RequestsThatWaitTogetherAreOneBatch) {
  Start();
  MakeBusy();
  std::vector<std::shared_ptr<Submission>> waiting;
  for (const int i : {1, 2, 3}) waiting.push_back(MustSubmit({i + 3}, {}, 100 * i));
  executor_->Release(2);
  for (const auto& submission : waiting) {
    submission->Wait();
    ExpectRightProbabilities(*submission);
  }
  ASSERT_EQ(executor_->calls().size(), 2u);
  EXPECT_EQ(FirstTokens(executor_->calls()[1]), (std::vector<std::int32_t>{100, 200, 300}));
}

TEST_F(SchedulerTest, AListThatExceedsABatchIsSplitWithinBothBounds) {
  Start();
  MakeBusy();
  const std::vector<std::int32_t> lengths{19, 18, 1, 17, 19, 1, 1, 1, 1, 1, 1, 19, 19, 19};
  auto submission = MustSubmit(lengths);
  executor_->Release(100);
  submission->Wait();
  ExpectRightProbabilities(*submission);
  for (const auto& call : executor_->calls()) {
    EXPECT_LE(call.cu_seqlens.back(), kLimits.max_batch_tokens);
    EXPECT_LE(static_cast<std::int32_t>(call.cu_seqlens.size()) - 1, kLimits.max_batch_requests);
  }
  // 1 | 19 18 | 1 17 19 (exactly 37) | 1 1 1 1 1 (five requests) | 1 19 | 19 | 19
  EXPECT_EQ(executor_->calls()[1].cu_seqlens, (std::vector<std::int32_t>{0, 19, 37}));
  EXPECT_EQ(executor_->calls()[2].cu_seqlens, (std::vector<std::int32_t>{0, 1, 18, 37}));
  EXPECT_EQ(executor_->calls()[3].cu_seqlens, (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5}));
}

TEST_F(SchedulerTest, TheTighterBoundOfOptionsAndExecutorHolds) {
  SchedulerOptions options;
  options.max_batch_requests = 2;
  options.max_batch_tokens = 1000;
  Start(options);
  EXPECT_EQ(scheduler_->limits().max_batch_requests, 2);
  EXPECT_EQ(scheduler_->limits().max_batch_tokens, kLimits.max_batch_tokens);
  MakeBusy();
  auto submission = MustSubmit({1, 1, 1, 1, 1});
  executor_->Release(4);
  submission->Wait();
  EXPECT_EQ(executor_->calls().size(), 4u);
}

TEST_F(SchedulerTest, ExactlyOneBatchIsFormedAhead) {
  Start();
  MakeBusy();
  MustSubmit({19, 18, 19, 18, 19, 18});
  // The assistant forms it on its own thread; what it must never do is form a second one.
  while (scheduler_->Stats().prefetched_requests == 0) std::this_thread::yield();
  const SchedulerStats stats = scheduler_->Stats();
  EXPECT_EQ(stats.prefetched_requests, 2);
  EXPECT_EQ(stats.queued_requests, 6);  // prefetched ones keep their places
  EXPECT_EQ(stats.executing_requests, 1);
}

TEST_F(SchedulerTest, APrefetchedBatchStaysOpenUntilItStarts) {
  Start();
  MakeBusy();
  MustSubmit({4}, {}, 100);
  while (scheduler_->Stats().prefetched_requests == 0) std::this_thread::yield();
  auto last = MustSubmit({5}, {}, 200);
  executor_->Release(2);
  last->Wait();
  EXPECT_EQ(FirstTokens(executor_->calls()[1]), (std::vector<std::int32_t>{100, 200}));
}

TEST_F(SchedulerTest, ABatchHoldsOneTableAndARequestKeepsItsOwn) {
  Start();
  MakeBusy();
  auto before = MustSubmit({3}, {}, 10);
  table_ = MakeTable(2, 11);  // a candidate joined
  auto after = MustSubmit({3}, {}, 20);
  executor_->Release(3);
  before->Wait();
  after->Wait();
  ExpectRightProbabilities(*before);
  ExpectRightProbabilities(*after);
  EXPECT_EQ(after->probabilities().size(), 11u);
  EXPECT_EQ(executor_->calls()[1].table_version, 1u);
  EXPECT_EQ(executor_->calls()[2].table_version, 2u);
}

TEST_F(SchedulerTest, ATableIsFreedWithItsLastRequest) {
  Start();
  std::weak_ptr<const CandidateTable> old_table = table_;
  auto submission = MustSubmit({3});
  table_ = MakeTable(2);
  executor_->Release();
  submission->Wait();
  EXPECT_TRUE(scheduler_->Drain());
  submission.reset();
  scheduler_->Close();
  EXPECT_TRUE(old_table.expired());
}

TEST_F(SchedulerTest, HigherPrioritiesGoFirstAndEqualOnesInOrder) {
  SchedulerOptions options;
  options.max_batch_requests = 1;
  Start(options);
  MakeBusy();
  MustSubmit({1}, WithPriority(-1), 7777);  // prefetched at once
  while (scheduler_->Stats().prefetched_requests == 0) std::this_thread::yield();
  MustSubmit({1}, WithPriority(0), 1);
  MustSubmit({1}, WithPriority(2), 2);
  MustSubmit({1}, WithPriority(-3), 3);
  MustSubmit({1}, WithPriority(2), 4);
  auto last = MustSubmit({1}, WithPriority(0), 5);
  executor_->Release(100);
  EXPECT_TRUE(scheduler_->Drain());
  std::vector<std::int32_t> order;
  for (const auto& call : executor_->calls()) order.push_back(FirstTokens(call)[0]);
  EXPECT_EQ(order, (std::vector<std::int32_t>{9000, 7777, 2, 4, 1, 5, 3}));
}

TEST_F(SchedulerTest, WaitingOutweighsPriority) {
  SchedulerOptions options;
  options.max_batch_requests = 1;
  options.ageing_us = 1000;
  Start(options);
  MakeBusy();
  MustSubmit({1}, WithPriority(0), 7777);
  while (scheduler_->Stats().prefetched_requests == 0) std::this_thread::yield();
  MustSubmit({1}, WithPriority(-1), 1);
  clock_.AdvanceUs(2999);
  MustSubmit({1}, WithPriority(2), 2);  // three levels higher, 2999 us younger: still first
  clock_.AdvanceUs(2);
  MustSubmit({1}, WithPriority(2), 3);  // 3001 us younger: behind
  executor_->Release(100);
  EXPECT_TRUE(scheduler_->Drain());
  std::vector<std::int32_t> order;
  for (const auto& call : executor_->calls()) order.push_back(FirstTokens(call)[0]);
  EXPECT_EQ(order, (std::vector<std::int32_t>{9000, 7777, 2, 1, 3}));
}

TEST_F(SchedulerTest, ADeadlineFiresInTheQueueWhileTheExecutorIsBusy) {
  Start();
  auto blocker = MakeBusy();
  auto submission = MustSubmit({3, 4}, WithTimeoutUs(500));
  clock_.AdvanceUs(499);
  EXPECT_FALSE(submission->done());
  clock_.AdvanceUs(1);
  submission->Wait();
  EXPECT_EQ(submission->status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(submission->answer(1).queue_us, 500);
  EXPECT_FALSE(blocker->done());
  const SchedulerStats stats = scheduler_->Stats();
  EXPECT_EQ(stats.late_in_queue, 2);
  EXPECT_EQ(stats.queued_requests, 0);
  EXPECT_EQ(stats.queued_tokens, 0);
  executor_->Release();
  blocker->Wait();
  EXPECT_EQ(executor_->calls().size(), 1u);  // what expired never reached the executor
}

TEST_F(SchedulerTest, ADeadlineFiresForARequestTheExecutorHangsOn) {
  Start();
  auto submission = MustSubmit({3}, WithTimeoutUs(500));
  executor_->WaitForCall(1);
  clock_.AdvanceUs(500);
  submission->Wait();
  EXPECT_EQ(submission->status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(scheduler_->Stats().late_in_execution, 1);
  executor_->Release();
  EXPECT_TRUE(scheduler_->Drain());
  EXPECT_EQ(submission->probabilities(),
            std::vector<float>(3, 0.0f));  // the late result is dropped
  EXPECT_EQ(scheduler_->Stats().answered[static_cast<int>(StatusCode::kOk)], 0);
}

TEST_F(SchedulerTest, AListKeepsTheAnswersItGotBeforeItsDeadline) {
  Start();
  MakeBusy();
  auto submission = MustSubmit({1, 2, 3, 4, 5, 6, 7, 8}, WithTimeoutUs(1000));  // 5 and 3
  executor_->Release(2);
  executor_->WaitForCall(3);
  clock_.AdvanceUs(1000);
  submission->Wait();
  EXPECT_EQ(submission->status().code(), StatusCode::kDeadlineExceeded);
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(submission->answer(i).code, i < 5 ? StatusCode::kOk : StatusCode::kDeadlineExceeded);
  }
}

TEST_F(SchedulerTest, ADeadlineInThePastIsRefused) {
  Start();
  EXPECT_EQ(SubmitCode({3}, WithTimeoutUs(0)), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(SubmitCode({3}, WithTimeoutUs(-100)), StatusCode::kDeadlineExceeded);
  const SchedulerStats stats = scheduler_->Stats();
  EXPECT_EQ(stats.rejected[static_cast<int>(StatusCode::kDeadlineExceeded)], 2);
  EXPECT_EQ(stats.accepted, 0);
}

TEST_F(SchedulerTest, ManyDeadlinesFireEachAtItsTime) {
  Start();
  MakeBusy();
  std::vector<std::shared_ptr<Submission>> submissions;
  for (int i = 0; i < 61; ++i) submissions.push_back(MustSubmit({1}, WithTimeoutUs(1 + i * 1009)));
  for (int i = 0; i < 61; ++i) {
    clock_.AdvanceUs(i == 0 ? 1 : 1009);
    submissions[i]->Wait();
    EXPECT_EQ(submissions[i]->answer(0).queue_us, 1 + i * 1009);
    if (i < 60) {
      EXPECT_FALSE(submissions[i + 1]->done());
    }
  }
}

TEST_F(SchedulerTest, CancellingFreesThePlaceAtOnce) {
  SchedulerOptions options;
  options.max_queue_requests = 3;
  Start(options);
  MakeBusy();
  auto submission = MustSubmit({2, 3, 4});
  EXPECT_EQ(SubmitCode({1}), StatusCode::kOverloaded);
  EXPECT_TRUE(scheduler_->Cancel(submission));
  EXPECT_FALSE(scheduler_->Cancel(submission));
  EXPECT_EQ(SubmitCode({1, 1, 1}), StatusCode::kOk);
  submission->Wait();
  EXPECT_EQ(submission->status().code(), StatusCode::kCancelled);
}

TEST_F(SchedulerTest, CancelledRequestsLeaveThePrefetchedBatch) {
  Start();
  MakeBusy();
  auto a = MustSubmit({3}, {}, 100);
  while (scheduler_->Stats().prefetched_requests == 0) std::this_thread::yield();
  auto b = MustSubmit({3}, {}, 200);
  EXPECT_TRUE(scheduler_->Cancel(a));
  EXPECT_EQ(scheduler_->Stats().prefetched_requests, 0);
  executor_->Release(2);
  b->Wait();
  ExpectRightProbabilities(*b);
  EXPECT_EQ(FirstTokens(executor_->calls()[1]), (std::vector<std::int32_t>{200}));
}

TEST_F(SchedulerTest, CancellingWhatRunsAnswersAtOnceAndDropsTheResult) {
  Start();
  auto submission = MustSubmit({3});
  executor_->WaitForCall(1);
  EXPECT_TRUE(scheduler_->Cancel(submission));
  submission->Wait();
  EXPECT_EQ(submission->status().code(), StatusCode::kCancelled);
  executor_->Release();
  EXPECT_TRUE(scheduler_->Drain());
  EXPECT_EQ(submission->answer(0).code, StatusCode::kCancelled);
}

TEST_F(SchedulerTest, CancellingWhatIsAnsweredOrUnknownDoesNothing) {
  Start();
  auto submission = MustSubmit({3});
  executor_->Release();
  submission->Wait();
  EXPECT_FALSE(scheduler_->Cancel(submission));
  EXPECT_FALSE(scheduler_->Cancel(Make({1})));
  ExpectRightProbabilities(*submission);
}

TEST_F(SchedulerTest, AListIsAdmittedWholeOrNotAtAll) {
  SchedulerOptions options;
  options.max_queue_requests = 7;
  options.max_queue_tokens = 23;
  Start(options);
  MakeBusy();
  MustSubmit({1, 1, 1, 1, 1});
  EXPECT_EQ(SubmitCode({1, 1, 1}), StatusCode::kOverloaded);
  EXPECT_EQ(scheduler_->Stats().queued_requests, 5);
  EXPECT_EQ(SubmitCode({9, 10}), StatusCode::kOverloaded);
  EXPECT_EQ(SubmitCode({9, 9}), StatusCode::kOk);
  const SchedulerStats stats = scheduler_->Stats();
  EXPECT_EQ(stats.rejected[static_cast<int>(StatusCode::kOverloaded)], 5);
  EXPECT_EQ(stats.queued_tokens, 23);
}

TEST_F(SchedulerTest, AFullQueueOfExpiredRequestsRefusesNobody) {
  SchedulerOptions options;
  options.max_queue_requests = 2;
  Start(options);
  MakeBusy();
  auto expired = MustSubmit({1, 1}, WithTimeoutUs(10));
  clock_.AdvanceUs(10);
  EXPECT_EQ(SubmitCode({1, 1}), StatusCode::kOk);
  expired->Wait();
}

TEST_F(SchedulerTest, WhatCanNeverFitIsTooLarge) {
  SchedulerOptions options;
  options.max_queue_requests = 7;
  options.max_queue_tokens = 50;
  Start(options);
  EXPECT_EQ(SubmitCode({20}), StatusCode::kTooLarge);
  EXPECT_EQ(SubmitCode({1, 1, 1, 1, 1, 1, 1, 1}), StatusCode::kTooLarge);
  EXPECT_EQ(SubmitCode({19, 19, 19}), StatusCode::kTooLarge);
  EXPECT_EQ(scheduler_->Stats().rejected[static_cast<int>(StatusCode::kTooLarge)], 12);
}

TEST_F(SchedulerTest, BadInputIsRefused) {
  Start();
  EXPECT_EQ(SubmitCode({1}, WithPriority(4)), StatusCode::kInvalidArgument);
  EXPECT_EQ(SubmitCode({1}, WithPriority(-4)), StatusCode::kInvalidArgument);
  EXPECT_EQ(SubmitCode({0}), StatusCode::kInvalidArgument);
  table_ = MakeTable(1, 0);
  EXPECT_EQ(SubmitCode({1}), StatusCode::kInvalidArgument);
}

TEST_F(SchedulerTest, ASubmissionIsSubmittedOnce) {
  Start();
  auto submission = MustSubmit({3});
  EXPECT_EQ(scheduler_->Submit(submission).code(), StatusCode::kInvalidArgument);
  executor_->Release();
  submission->Wait();
  EXPECT_EQ(scheduler_->Submit(submission).code(), StatusCode::kInvalidArgument);
}

TEST_F(SchedulerTest, AnEmptyListIsAnswered) {
  Start();
  auto submission = MustSubmit({});
  submission->Wait();
  EXPECT_TRUE(submission->status().ok());
  EXPECT_TRUE(scheduler_->Drain());
}

TEST_F(SchedulerTest, AnExecutorErrorFailsItsOwnBatchOnly) {
  Start();
  executor_->SetBehaviour([] { return Status(StatusCode::kExecutorError, "out of memory"); });
  auto first = MakeBusy();
  auto second = MustSubmit({4, 5});
  executor_->Release();
  first->Wait();
  EXPECT_EQ(first->status().code(), StatusCode::kExecutorError);
  EXPECT_EQ(first->status().message(), "out of memory");
  executor_->WaitForCall(2);
  executor_->SetBehaviour(nullptr);
  executor_->Release();
  second->Wait();
  ExpectRightProbabilities(*second);
  EXPECT_EQ(scheduler_->Stats().failed_batches, 1);
}

TEST_F(SchedulerTest, AListReportsTheBatchThatFailed) {
  Start();
  auto submission = MustSubmit({1, 1, 1, 1, 1, 2, 2});
  executor_->WaitForCall(1);
  executor_->Release();
  executor_->WaitForCall(2);
  executor_->SetBehaviour([]() -> Status { throw std::runtime_error("device lost"); });
  executor_->Release();
  submission->Wait();
  EXPECT_EQ(submission->status().code(), StatusCode::kExecutorError);
  EXPECT_EQ(submission->status().message(), "the executor failed: device lost");
  EXPECT_EQ(submission->answer(4).code, StatusCode::kOk);
  EXPECT_EQ(submission->answer(5).code, StatusCode::kExecutorError);
  EXPECT_EQ(submission->probabilities()[5 * 3], 0.0f);
}

TEST_F(SchedulerTest, AnythingMayBeThrown) {
  Start();
  executor_->SetBehaviour([]() -> Status { throw 7; });
  auto submission = MustSubmit({3});
  executor_->Release();
  submission->Wait();
  EXPECT_EQ(submission->status().code(), StatusCode::kExecutorError);
}

TEST_F(SchedulerTest, ASinkHearsOnceOfWhatABatchFinished) {
  Start();
  auto sink = std::make_shared<CountingSink>();
  auto other = std::make_shared<CountingSink>();
  SubmitOptions to_sink, to_other;
  to_sink.sink = sink;
  to_other.sink = other;
  MakeBusy();
  MustSubmit({1}, to_sink);
  MustSubmit({1}, to_other);
  MustSubmit({1, 1}, to_sink);
  executor_->Release(2);
  EXPECT_TRUE(scheduler_->Drain());
  EXPECT_EQ(sink->sizes(), std::vector<std::size_t>{2});
  EXPECT_EQ(other->sizes(), std::vector<std::size_t>{1});
}

TEST_F(SchedulerTest, ARefusedSubmissionIsNotDelivered) {
  Start();
  auto sink = std::make_shared<CountingSink>();
  SubmitOptions options;
  options.sink = sink;
  EXPECT_EQ(SubmitCode({20}, options), StatusCode::kTooLarge);
  scheduler_->Close();
  EXPECT_TRUE(sink->sizes().empty());
}

TEST_F(SchedulerTest, DrainAnswersEverythingAndAdmitsNothingNew) {
  Start();
  MakeBusy();
  auto submission = MustSubmit({3});
  std::thread drain([&] { EXPECT_TRUE(scheduler_->Drain()); });
  while (true) {
    auto probe = Make({1});
    if (scheduler_->Submit(probe).code() == StatusCode::kShuttingDown) break;
    std::this_thread::yield();
  }
  EXPECT_FALSE(submission->done());
  executor_->Release(1000);
  drain.join();
  ExpectRightProbabilities(*submission);
}

TEST_F(SchedulerTest, DrainGivesUpAtItsTime) {
  Start();
  auto submission = MustSubmit({3});
  executor_->WaitForCall(1);
  const std::int64_t time_us = clock_.NowUs() + 50;
  std::thread drain([&] { EXPECT_FALSE(scheduler_->Drain(time_us)); });
  clock_.AdvanceUs(50);
  drain.join();
}

TEST_F(SchedulerTest, CloseWakesEveryWaiter) {
  Start();
  auto running = MakeBusy();
  auto prefetched = MustSubmit({19, 18});
  while (scheduler_->Stats().prefetched_requests == 0) std::this_thread::yield();
  auto queued = MustSubmit({19, 18, 3});
  std::thread waiter([&] { queued->Wait(); });
  std::thread close([&] { scheduler_->Close(); });
  prefetched->Wait();  // both while the executor is still busy
  waiter.join();
  EXPECT_EQ(prefetched->status().code(), StatusCode::kShuttingDown);
  EXPECT_EQ(queued->status().code(), StatusCode::kShuttingDown);
  EXPECT_FALSE(running->done());
  executor_->Release();
  close.join();
  ExpectRightProbabilities(*running);
  EXPECT_EQ(SubmitCode({1}), StatusCode::kShuttingDown);
  EXPECT_EQ(executor_->calls().size(), 1u);
  scheduler_->Close();
}

TEST_F(SchedulerTest, CloseLetsTheRunningPartOfAListFinish) {
  Start();
  auto submission = MustSubmit({1, 1, 1, 1, 1, 2, 2});
  executor_->WaitForCall(1);
  std::thread close([&] { scheduler_->Close(); });
  while (scheduler_->Stats().queued_requests > 0) std::this_thread::yield();
  executor_->Release();
  submission->Wait();
  close.join();
  for (int i = 0; i < 7; ++i) {
    EXPECT_EQ(submission->answer(i).code, i < 5 ? StatusCode::kOk : StatusCode::kShuttingDown);
  }
}

TEST_F(SchedulerTest, ClosePassesOverAListThatEndedWhileABatchHeldIt) {
  for (const bool cancelled : {true, false}) {
    Start();
    auto submission = MustSubmit({1, 1, 1, 1, 1, 2, 2}, WithTimeoutUs(100));
    executor_->WaitForCall(1);
    while (scheduler_->Stats().prefetched_requests == 0) std::this_thread::yield();
    if (cancelled) {
      EXPECT_TRUE(scheduler_->Cancel(submission));
    } else {
      clock_.AdvanceUs(100);
    }
    submission->Wait();
    std::thread close([&] { scheduler_->Close(); });
    executor_->Release();
    close.join();
    const StatusCode expected = cancelled ? StatusCode::kCancelled : StatusCode::kDeadlineExceeded;
    for (int i = 0; i < 7; ++i) EXPECT_EQ(submission->answer(i).code, expected);
    EXPECT_EQ(scheduler_->Stats().answered[static_cast<int>(expected)], 7);
    EXPECT_EQ(scheduler_->Stats().unanswered_submissions, 0);
  }
}

TEST_F(SchedulerTest, DeadlinesStillFireWhileClosing) {
  Start();
  auto submission = MustSubmit({1, 1, 1, 1, 1, 2, 2}, WithTimeoutUs(100));
  executor_->WaitForCall(1);
  std::thread close([&] { scheduler_->Close(); });
  while (scheduler_->Stats().queued_requests > 0) std::this_thread::yield();
  clock_.AdvanceUs(100);
  submission->Wait();
  EXPECT_EQ(submission->answer(0).code, StatusCode::kDeadlineExceeded);
  EXPECT_EQ(submission->answer(6).code, StatusCode::kShuttingDown);
  executor_->Release();
  close.join();
  EXPECT_EQ(submission->answer(0).code, StatusCode::kDeadlineExceeded);
}

TEST_F(SchedulerTest, ASinkMayDropTheLastReferenceToTheScheduler) {
  class DroppingSink final : public CompletionSink {
   public:
    explicit DroppingSink(std::unique_ptr<BatchScheduler>* scheduler) : scheduler_(scheduler) {}
    void Deliver(std::vector<std::shared_ptr<Submission>>) noexcept override {
      scheduler_->reset();
      dropped.Lock();
      is_dropped = true;
      condition.NotifyAll();
      dropped.Unlock();
    }
    Mutex dropped;
    CondVar condition;
    bool is_dropped = false;

   private:
    std::unique_ptr<BatchScheduler>* const scheduler_;
  };
  // Its threads end some time after the test, so they need a clock that lives as long.
  executor_ = std::make_shared<ManualExecutor>(kLimits);
  scheduler_ = std::make_unique<BatchScheduler>(executor_, SchedulerOptions(), RealClock::Get());
  auto sink = std::make_shared<DroppingSink>(&scheduler_);
  SubmitOptions options;
  options.sink = sink;
  auto submission = Make({3}, options);
  ASSERT_TRUE(scheduler_->Submit(submission).ok());
  executor_->Release();
  MutexLock lock(&sink->dropped);
  while (!sink->is_dropped) sink->condition.Wait(&sink->dropped);
  EXPECT_EQ(scheduler_, nullptr);
}

TEST_F(SchedulerTest, StatsCountBatchesAndFill) {
  Start();
  MakeBusy();
  auto submission = MustSubmit({19, 18, 1, 1, 1, 1, 1});
  executor_->Release(3);
  submission->Wait();
  EXPECT_TRUE(scheduler_->Drain());
  const SchedulerStats stats = scheduler_->Stats();
  EXPECT_EQ(stats.accepted, 8);
  EXPECT_EQ(stats.answered[static_cast<int>(StatusCode::kOk)], 8);
  EXPECT_EQ(stats.batches, 3);
  EXPECT_EQ(stats.batch_tokens.sum(), 43);
  EXPECT_EQ(stats.batch_requests.max(), 5);
  EXPECT_EQ(stats.batch_fill_percent.max(), 100);
  EXPECT_EQ(stats.queue_us.count(), 8);
  EXPECT_EQ(stats.execute_us.count(), 3);
  EXPECT_EQ(stats.executing_requests, 0);
  EXPECT_EQ(stats.unanswered_submissions, 0);
}

}  // namespace
}  // namespace modelsat
