// What the scheduler costs per request, with an executor that does nothing.
//   build/default/modelsat_benchmarks

#include <benchmark/benchmark.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "modelsat/scheduler.h"

namespace modelsat {
namespace {

constexpr ExecutorLimits kLimits{/*max_batch_requests=*/64, /*max_batch_tokens=*/16384,
                                 /*max_instruction_tokens=*/512};

std::shared_ptr<const CandidateTable> MakeTable() {
  return std::make_shared<CandidateTable>(10, 384, 1, nullptr);
}

// One instruction of 64 tokens.
std::shared_ptr<Submission> MakeSubmission(const std::shared_ptr<const CandidateTable>& table,
                                           const SubmitOptions& options) {
  return std::make_shared<Submission>(Batch(std::vector<std::int32_t>(64, 7), {0, 64}), table,
                                      options);
}

class CountingSink final : public CompletionSink {
 public:
  void Deliver(std::vector<std::shared_ptr<Submission>> finished) noexcept override {
    delivered.fetch_add(static_cast<std::int64_t>(finished.size()), std::memory_order_release);
  }
  std::atomic<std::int64_t> delivered{0};
};

// Blocks Score until it is opened.
class GatedExecutor final : public Executor {
 public:
  ExecutorLimits limits() const override { return kLimits; }
  Status Score(const Batch&, const CandidateTable&, float*) override {
    MutexLock lock(&mutex_);
    while (!open_) condition_.Wait(&mutex_);
    return Status();
  }
  void Open() {
    MutexLock lock(&mutex_);
    open_ = true;
    condition_.NotifyAll();
  }

 private:
  Mutex mutex_;
  CondVar condition_;
  bool open_ MODELSAT_GUARDED_BY(mutex_) = false;
};

std::int64_t ProcessCpuNs() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// Creating and enqueueing a request while the executor is busy.
void BM_Enqueue(benchmark::State& state) {
  const auto table = MakeTable();
  auto executor = std::make_shared<GatedExecutor>();
  SchedulerOptions options;
  options.max_queue_requests = 1 << 30;
  options.max_queue_tokens = std::int64_t{1} << 40;
  BatchScheduler scheduler(executor, options);
  SubmitOptions submit;
  submit.deadline_us = state.range(0) != 0 ? RealClock::Get()->NowUs() + 3'600'000'000 : kNever;
  for (auto _ : state) {
    const Status status = scheduler.Submit(MakeSubmission(table, submit));
    if (!status.ok()) state.SkipWithError(status.message().c_str());
  }
  executor->Open();
}
BENCHMARK(BM_Enqueue)->ArgName("deadline")->Arg(0)->Arg(1)->Iterations(100'000);

// Enqueueing and cancelling, with `waiting` requests in the queue: constant in their number.
void BM_Cancel(benchmark::State& state) {
  const auto table = MakeTable();
  auto executor = std::make_shared<GatedExecutor>();
  SchedulerOptions options;
  options.max_queue_requests = 1 << 30;
  options.max_queue_tokens = std::int64_t{1} << 40;
  BatchScheduler scheduler(executor, options);
  SubmitOptions submit;
  submit.deadline_us = RealClock::Get()->NowUs() + 3'600'000'000;
  for (int i = 0; i < state.range(0); ++i) {
    if (!scheduler.Submit(MakeSubmission(table, submit)).ok()) state.SkipWithError("refused");
  }
  for (auto _ : state) {
    const auto submission = MakeSubmission(table, submit);
    if (!scheduler.Submit(submission).ok()) state.SkipWithError("refused");
    scheduler.Cancel(submission);
  }
  executor->Open();
}
BENCHMARK(BM_Cancel)->ArgName("waiting")->Arg(10)->Arg(1000)->Arg(50'000);

// Batch formation, execution of nothing, and completion: one list of many requests, per request.
void BM_ListThroughput(benchmark::State& state) {
  const auto table = MakeTable();
  SchedulerOptions options;
  options.max_queue_requests = 1 << 20;
  options.max_queue_tokens = std::int64_t{1} << 30;
  BatchScheduler scheduler(std::make_shared<NoOpExecutor>(kLimits), options);
  Batch requests;
  const Batch one(std::vector<std::int32_t>(64, 7), {0, 64});
  for (int i = 0; i < state.range(0); ++i) requests.Append(one, 0, 1);
  for (auto _ : state) {
    auto submission = std::make_shared<Submission>(requests, table, SubmitOptions());
    if (!scheduler.Submit(submission).ok()) state.SkipWithError("refused");
    submission->Wait();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_ListThroughput)->ArgName("requests")->Arg(1000)->Arg(10'000)->UseRealTime();

// One request at a time: submit, wait, answer. Two thread switches are most of it.
void BM_RoundTrip(benchmark::State& state) {
  const auto table = MakeTable();
  BatchScheduler scheduler(std::make_shared<NoOpExecutor>(kLimits), SchedulerOptions());
  for (auto _ : state) {
    auto submission = MakeSubmission(table, SubmitOptions());
    if (!scheduler.Submit(submission).ok()) state.SkipWithError("refused");
    submission->Wait();
  }
}
BENCHMARK(BM_RoundTrip)->UseRealTime();

// Four producers at 100,000 requests a second together, open loop. cpu_us_per_request is the
// processor time of the whole process, producers, scheduler and delivery, less that of producers
// that keep the same pace without a scheduler.
std::int64_t PaceProducers(BatchScheduler* scheduler, const std::shared_ptr<CountingSink>& sink,
                           std::int64_t* refused) {
  constexpr int kNumProducers = 4;
  constexpr int kRounds = 400;                            // of 1 ms
  constexpr int kBurst = 100'000 / 1000 / kNumProducers;  // 25 per producer and round
  const auto table = MakeTable();
  const std::int64_t cpu_start_ns = ProcessCpuNs();
  const auto start = std::chrono::steady_clock::now();
  std::atomic<std::int64_t> num_refused{0};
  std::vector<std::thread> producers;
  for (int p = 0; p < kNumProducers; ++p) {
    producers.emplace_back([&] {
      SubmitOptions options;
      options.sink = sink;
      for (int round = 0; round < kRounds; ++round) {
        std::this_thread::sleep_until(start + std::chrono::milliseconds(round));
        options.deadline_us = RealClock::Get()->NowUs() + 1'000'000;
        for (int i = 0; i < kBurst; ++i) {
          auto submission = MakeSubmission(table, options);
          if (scheduler != nullptr && !scheduler->Submit(submission).ok()) ++num_refused;
        }
      }
    });
  }
  for (auto& producer : producers) producer.join();
  if (scheduler != nullptr) scheduler->Drain();
  *refused = num_refused;
  return ProcessCpuNs() - cpu_start_ns;
}

void BM_FourProducers100k(benchmark::State& state) {
  constexpr double kNumRequests = 400 * 100;
  for (auto _ : state) {
    BatchScheduler scheduler(std::make_shared<NoOpExecutor>(kLimits), SchedulerOptions());
    auto sink = std::make_shared<CountingSink>();
    std::int64_t refused = 0, none = 0;
    const std::int64_t with_ns = PaceProducers(&scheduler, sink, &refused);
    const std::int64_t without_ns = PaceProducers(nullptr, sink, &none);
    const SchedulerStats stats = scheduler.Stats();
    state.counters["cpu_us_per_request"] =
        static_cast<double>(with_ns - without_ns) / 1e3 / kNumRequests;
    state.counters["refused"] = static_cast<double>(refused);
    state.counters["requests_per_batch"] =
        static_cast<double>(stats.batch_requests.sum()) / static_cast<double>(stats.batches);
    state.counters["queue_us_p99"] = static_cast<double>(stats.queue_us.Quantile(0.99));
  }
}
BENCHMARK(BM_FourProducers100k)->Iterations(1)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace modelsat
