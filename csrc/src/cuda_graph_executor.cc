#include "modelsat/cuda_graph_executor.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <thread>
#include <utility>

namespace modelsat {
namespace {

// Unique in the process: an address may be given out again.
std::uint64_t NextTableId() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

std::vector<CudaPass> SmallestFirst(std::vector<CudaPass> passes) {
  std::sort(passes.begin(), passes.end(), [](const CudaPass& a, const CudaPass& b) {
    return a.requests != b.requests ? a.requests < b.requests : a.tokens < b.tokens;
  });
  return passes;
}

// Makes the context current in this thread for a scope, whatever was current before.
class ContextScope {
 public:
  ContextScope(const CudaDriver& driver, CudaContext context)
      : driver_(driver), status_(driver.PushContext(context)) {}
  ~ContextScope() {
    if (status_.ok()) driver_.PopContext().ok();
  }
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

  const Status& status() const { return status_; }

 private:
  const CudaDriver& driver_;
  const Status status_;
};

}  // namespace

// A snapshot on the device.
class CudaGraphExecutor::Table final : public CandidateTable {
 public:
  Table(std::int32_t num_candidates, std::int32_t hidden_size, std::uint64_t version,
        std::shared_ptr<const void> payload, const CudaGraphExecutor* executor,
        std::shared_ptr<CudaZoo> zoo, std::vector<std::uint64_t> sources,
        std::shared_ptr<const void> owner)
      : CandidateTable(num_candidates, hidden_size, version, std::move(payload)),
        id(NextTableId()),
        executor(executor),
        zoo(std::move(zoo)),
        sources(std::move(sources)),
        owner(std::move(owner)) {}

  const std::uint64_t id;
  const CudaGraphExecutor* const executor;  // compared, not followed
  const std::shared_ptr<CudaZoo> zoo;
  const std::vector<std::uint64_t> sources;
  const std::shared_ptr<const void> owner;
};

CudaZoo::CudaZoo(std::int32_t candidates, std::int32_t* inputs, const float* scores,
                 std::vector<CudaRegion> regions, std::vector<CudaPass> passes,
                 std::shared_ptr<const void> owner)
    : candidates_(candidates),
      inputs_(inputs),
      scores_(scores),
      regions_(std::move(regions)),
      passes_(SmallestFirst(std::move(passes))),
      most_requests_(passes_.empty() ? 0 : passes_.back().requests),
      owner_(std::move(owner)) {
  if (candidates < 1 || passes_.empty()) {
    throw std::invalid_argument("a zoo needs room for a candidate, and a captured pass");
  }
  const auto missing = [](const CudaPass& pass) {
    return pass.graph == nullptr || pass.requests < 1 || pass.tokens < 1;
  };
  if (inputs == nullptr || scores == nullptr ||
      std::any_of(passes_.begin(), passes_.end(), missing)) {
    throw std::invalid_argument("inputs, scores and every pass of a zoo must be there");
  }
}

const CudaPass* CudaZoo::Find(std::int32_t requests, std::int32_t tokens) const {
  const auto found = std::find_if(passes_.begin(), passes_.end(), [&](const CudaPass& pass) {
    return pass.requests >= requests && pass.tokens >= tokens;
  });
  return found == passes_.end() ? nullptr : &*found;
}

void WritePassInputs(const Batch& batch, std::int32_t first, std::int32_t count,
                     std::int32_t requests, std::int32_t tokens, std::int32_t* inputs) {
  const std::vector<std::int32_t>& offsets = batch.cu_seqlens();
  const std::int32_t begin = offsets[first];
  const std::int32_t used = offsets[first + count] - begin;
  std::int32_t* const positions = inputs + tokens;
  std::int32_t* const lengths = inputs + 2 * std::size_t(tokens);
  std::copy_n(batch.token_ids().data() + begin, used, inputs);
  std::fill(inputs + used, inputs + tokens, 0);
  for (std::int32_t b = 0; b < count; ++b) {
    const std::int32_t start = offsets[first + b] - begin;
    const std::int32_t end = offsets[first + b + 1] - begin;
    for (std::int32_t t = start; t < end; ++t) positions[t] = t - start;
    lengths[b] = start;
  }
  std::fill(positions + used, positions + tokens, 0);
  std::fill(lengths + count, lengths + requests + 1, used);
}

CudaGraphExecutor::CudaGraphExecutor(std::shared_ptr<const CudaDriver> driver,
                                     const CudaOptions& options, OpenFallback open_fallback)
    : driver_(std::move(driver)), options_(options), open_fallback_(std::move(open_fallback)) {
  Status status = driver_->CurrentContext(&context_);
  if (status.ok() && context_ == nullptr) {
    throw std::runtime_error("no CUDA context is current in this thread; use the device first");
  }
  if (status.ok()) status = driver_->CreateStream(&stream_);
  if (status.ok()) status = driver_->CreateEvent(&event_);
  if (!status.ok()) {
    if (stream_ != nullptr) driver_->DestroyStream(stream_).ok();
    throw std::runtime_error(status.message());
  }
}

CudaGraphExecutor::~CudaGraphExecutor() {
  if (fork_guard_.forked()) return;  // the context stayed in the parent
  const ContextScope scope(*driver_, context_);
  if (!scope.status().ok()) return;
  // what they say does not matter: a lost device holds nothing, and an exiting process has no
  // driver
  driver_->DestroyEvent(event_).ok();
  driver_->DestroyStream(stream_).ok();
}

std::shared_ptr<CandidateTable> CudaGraphExecutor::MakeTable(
    std::int32_t num_candidates, std::int32_t hidden_size, std::uint64_t version,
    std::shared_ptr<const void> payload, std::shared_ptr<CudaZoo> zoo,
    std::vector<std::uint64_t> sources, std::shared_ptr<const void> owner) const {
  if (zoo == nullptr || num_candidates > zoo->candidates() ||
      sources.size() != zoo->regions().size()) {
    throw std::invalid_argument("the candidate table does not fit the zoo it was made for");
  }
  return std::make_shared<Table>(num_candidates, hidden_size, version, std::move(payload), this,
                                 std::move(zoo), std::move(sources), std::move(owner));
}

Status CudaGraphExecutor::Score(const Batch& batch, const CandidateTable& table,
                                float* probabilities) {
  if (fork_guard_.forked()) {
    return Status(StatusCode::kForked,
                  "this executor was made before the process forked; make one in the child");
  }
  Status status = batch.CheckTokens(options_.limits.max_instruction_tokens, options_.vocabulary);
  if (!status.ok() || batch.num_requests() == 0) return status;
  std::shared_ptr<Executor> fallback;
  {
    MutexLock lock(&mutex_);
    if (!failed()) {
      const auto* const loaded = dynamic_cast<const Table*>(&table);
      if (loaded == nullptr || loaded->executor != this) {
        return Status(StatusCode::kInvalidArgument,
                      table.ToString() + " was not made by this executor; use its make_table");
      }
      status = Run(batch, *loaded, probabilities);
      if (status.ok()) {
        return CheckFinite(probabilities,
                           std::int64_t{batch.num_requests()} * table.num_candidates());
      }
      if (status.code() != StatusCode::kExecutorError) return status;
    }
    status = Fallback(status.message(), &fallback);
    if (!status.ok()) return status;
  }
  return fallback->Score(batch, table, probabilities);
}

Status CudaGraphExecutor::GiveUp(const std::string& reason) {
  MutexLock lock(&mutex_);
  std::shared_ptr<Executor> fallback;
  return Fallback(reason, &fallback);
}

Status CudaGraphExecutor::Run(const Batch& batch, const Table& table, float* probabilities) {
  const ContextScope scope(*driver_, context_);
  if (!scope.status().ok()) return scope.status();
  Status status = MakeResident(table);
  const std::int32_t columns = table.num_candidates();
  for (std::int32_t first = 0; status.ok() && first < batch.num_requests();) {
    const std::int32_t count = std::min(table.zoo->most_requests(), batch.num_requests() - first);
    status = RunPass(batch, first, count, table, probabilities + std::int64_t{first} * columns);
    first += count;
  }
  if (!status.ok()) {
    // what was queued reads and writes memory: wait for it where that is possible still, and let go
    // of nothing where it is not
    if (driver_->RecordEvent(event_, stream_).ok()) driver_->WaitForEvent(event_).ok();
    in_flight_ = {table.zoo, table.owner};
  }
  return status;
}

Status CudaGraphExecutor::CheckFinite(const float* probabilities, std::int64_t count) const {
  if (std::all_of(probabilities, probabilities + count, [](float p) { return std::isfinite(p); })) {
    return Status();
  }
  return Status(StatusCode::kExecutorError,
                "the network's arithmetic overflowed in " + options_.dtype +
                    "; set MODELSAT_CUDA_DTYPE=bfloat16, or use executor='native'");
}

Status CudaGraphExecutor::MakeResident(const Table& table) {
  CudaZoo& zoo = *table.zoo;
  if (zoo.resident_ == table.id) return Status();
  zoo.resident_ = 0;
  for (std::size_t i = 0; i < zoo.regions().size(); ++i) {
    const CudaRegion& region = zoo.regions()[i];
    Status status = driver_->Copy(region.address, table.sources[i], region.size_bytes, stream_);
    if (!status.ok()) return status;
  }
  zoo.resident_ = table.id;
  return Status();
}

Status CudaGraphExecutor::RunPass(const Batch& batch, std::int32_t first, std::int32_t count,
                                  const Table& table, float* probabilities) {
  const CudaZoo& zoo = *table.zoo;
  const std::int32_t tokens = batch.TokensOf(first, count);
  const CudaPass* const pass = zoo.Find(count, tokens);
  if (pass == nullptr) {
    return Status(StatusCode::kInvalidArgument, "no pass was captured for " +
                                                    std::to_string(count) + " instructions of " +
                                                    std::to_string(tokens) + " tokens together");
  }
  WritePassInputs(batch, first, count, pass->requests, pass->tokens, zoo.inputs_);
  Status status = driver_->Launch(pass->graph, stream_);
  if (status.ok()) status = driver_->RecordEvent(event_, stream_);
  if (status.ok()) status = WaitForPass();
  if (!status.ok()) return status;
  const std::int32_t columns = table.num_candidates();
  for (std::int32_t b = 0; b < count; ++b) {
    std::copy_n(zoo.scores_ + std::int64_t{b} * zoo.candidates(), columns,
                probabilities + std::int64_t{b} * columns);
  }
  return status;
}

Status CudaGraphExecutor::WaitForPass() {
  const auto until = std::chrono::steady_clock::now() + options_.poll;
  while (std::chrono::steady_clock::now() < until) {
    bool happened = false;
    Status status = driver_->QueryEvent(event_, &happened);
    if (!status.ok() || happened) return status;
    std::this_thread::yield();
  }
  return driver_->WaitForEvent(event_);
}

Status CudaGraphExecutor::Fallback(const std::string& reason, std::shared_ptr<Executor>* executor) {
  if (!failed()) failure_ = reason;
  failed_.store(true);
  if (fallback_ == nullptr) {
    Status status = open_fallback_(failure_, &fallback_);
    if (!status.ok()) return status;
  }
  *executor = fallback_;
  return Status();
}

}  // namespace modelsat
