#include "modelsat/native_executor.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "cpu/forward.h"
#include "cpu/isa.h"
#include "cpu/kernels.h"
#include "cpu/model.h"
#include "cpu/model_cache.h"
#include "cpu/thread_pool.h"
#include "cpu/workspace.h"
#include "cpu/zoo.h"
#include "modelsat/cpu_count.h"
#include "modelsat/cpu_features.h"
#include "modelsat/fork_guard.h"
#include "modelsat/mutex.h"

namespace modelsat {
namespace {

// Memory that one call of Score uses alone.
struct Scratch {
  std::vector<std::unique_ptr<Workspace>> workspaces;  // one per worker
  std::vector<int> passes;  // first instruction of each pass, then the number of instructions
};

}  // namespace

struct NativeExecutor::State {
  State(std::shared_ptr<const NativeModel> loaded, const NativeOptions& given, Isa isa, int threads)
      : model(std::move(loaded)), options(given), kernels(KernelsFor(isa)), pool(threads) {}

  std::unique_ptr<Scratch> Take() {
    std::unique_ptr<Scratch> scratch;
    {
      MutexLock lock(&mutex);
      if (!idle.empty()) {
        scratch = std::move(idle.back());
        idle.pop_back();
      }
    }
    return scratch != nullptr ? std::move(scratch) : std::make_unique<Scratch>();
  }

  void Return(std::unique_ptr<Scratch> scratch) {
    MutexLock lock(&mutex);
    idle.push_back(std::move(scratch));
  }

  void SplitIntoPasses(const Batch& batch, Scratch* scratch) const;

  const std::shared_ptr<const NativeModel> model;
  const NativeOptions options;
  const Kernels& kernels;
  const ForkGuard fork_guard;
  ThreadPool pool;
  Mutex mutex;
  std::vector<std::unique_ptr<Scratch>> idle MODELSAT_GUARDED_BY(mutex);
};

NativeExecutor::NativeExecutor(const std::string& weights_path,
                               const std::map<std::string, NativeTensor>& tensors,
                               const NativeConfig& config, const NativeOptions& options)
    : state_([&] {
        const Isa isa = ChooseIsa(HostCpuFeatures(), options.isa);
        const int threads = options.threads == 0 ? UsableCpuCount() : options.threads;
        if (threads < 1 || options.max_batch_requests < 1 || options.max_batch_tokens < 1) {
          throw std::invalid_argument("threads and the bounds of a batch must be at least 1");
        }
        auto model = SharedModel(weights_path, tensors, config);
        return std::make_unique<State>(std::move(model), options, isa, threads);
      }()) {}

NativeExecutor::~NativeExecutor() = default;

ExecutorLimits NativeExecutor::limits() const {
  return {state_->options.max_batch_requests, state_->options.max_batch_tokens,
          config().max_instruction_tokens};
}

const NativeConfig& NativeExecutor::config() const { return state_->model->config(); }
const char* NativeExecutor::isa() const { return IsaName(state_->kernels.isa); }
int NativeExecutor::threads() const { return state_->pool.threads(); }

std::shared_ptr<CandidateTable> NativeExecutor::MakeTable(const float* inquiry_start,
                                                          const float* memory,
                                                          std::int32_t num_candidates,
                                                          std::uint64_t version) const {
  auto zoo = std::make_shared<const NativeZoo>(state_->model, state_->kernels, inquiry_start,
                                               memory, num_candidates);
  return std::make_shared<NativeCandidateTable>(num_candidates, config().hidden, version,
                                                std::move(zoo));
}

void NativeExecutor::State::SplitIntoPasses(const Batch& batch, Scratch* scratch) const {
  const PassLimits& limits = scratch->workspaces.front()->limits();
  const int instructions = batch.num_requests();
  const int share = (batch.num_tokens() + pool.threads() - 1) / pool.threads();
  const int most_tokens = std::min(limits.tokens, PadToLanes(share));
  scratch->passes.clear();
  for (int first = 0; first < instructions;) {
    scratch->passes.push_back(first);
    first += InstructionsOfPass(batch.cu_seqlens().data() + first, instructions - first,
                                most_tokens, model->config().views, limits);
  }
  scratch->passes.push_back(instructions);
}

Status NativeExecutor::Score(const Batch& batch, const CandidateTable& table,
                             float* probabilities) {
  State& state = *state_;
  if (state.fork_guard.forked()) {
    return Status(StatusCode::kForked,
                  "this executor was made before the process forked; make one in the child");
  }
  const auto* const native = dynamic_cast<const NativeCandidateTable*>(&table);
  if (native == nullptr || native->zoo().model() != state.model.get()) {
    return Status(StatusCode::kInvalidArgument,
                  table.ToString() + " was not made by this executor; use its make_table");
  }
  Status status = batch.CheckTokens(config().max_instruction_tokens, config().vocab);
  if (!status.ok() || batch.num_requests() == 0) return status;

  struct Call {
    State* state;
    Scratch* scratch;
    const Batch* batch;
    const NativeCandidateTable* table;
    float* probabilities;
  };
  std::unique_ptr<Scratch> scratch = state.Take();
  while (static_cast<int>(scratch->workspaces.size()) < state.pool.threads()) {
    scratch->workspaces.push_back(std::make_unique<Workspace>(*state.model));
  }
  state.SplitIntoPasses(batch, scratch.get());
  Call call{&state, scratch.get(), &batch, native, probabilities};
  state.pool.Run(
      static_cast<int>(scratch->passes.size()) - 1,
      [](void* context, int pass, int worker) {
        const Call& c = *static_cast<const Call*>(context);
        const int first = c.scratch->passes[pass];
        const int count = c.scratch->passes[pass + 1] - first;
        const std::int32_t* const offsets = c.batch->cu_seqlens().data() + first;
        Forward forward(*c.state->model, c.state->kernels, c.scratch->workspaces[worker].get());
        forward.Score(
            c.batch->token_ids().data() + offsets[0], offsets, count, c.table->zoo(),
            c.probabilities + static_cast<std::int64_t>(first) * c.table->num_candidates());
      },
      &call);
  state.Return(std::move(scratch));

  const std::int64_t count = std::int64_t{batch.num_requests()} * table.num_candidates();
  if (!std::all_of(probabilities, probabilities + count,
                   [](float p) { return std::isfinite(p); })) {
    return Status(StatusCode::kExecutorError,
                  "the network's arithmetic overflowed; the bundle's weights are damaged");
  }
  return Status();
}

std::vector<std::string> NativeIsas() {
  std::vector<std::string> names;
  for (const Isa isa : SupportedIsas(HostCpuFeatures())) names.push_back(IsaName(isa));
  return names;
}

}  // namespace modelsat
