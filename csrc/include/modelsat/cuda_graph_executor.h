// Scores batches on an NVIDIA GPU by launching graphs that somebody else has captured: the Executor
// of the CUDA runtime. Capturing needs Python and PyTorch, launching needs neither.

#ifndef MODELSAT_CUDA_GRAPH_EXECUTOR_H_
#define MODELSAT_CUDA_GRAPH_EXECUTOR_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "modelsat/batch.h"
#include "modelsat/candidate_table.h"
#include "modelsat/cuda_driver.h"
#include "modelsat/executor.h"
#include "modelsat/fork_guard.h"
#include "modelsat/mutex.h"

namespace modelsat {

// A captured pass: copies its inputs from host memory, runs, copies its scores to host memory.
struct CudaPass {
  std::int32_t requests = 0;  // B and
  std::int32_t tokens = 0;    // T are upper bounds of what it holds
  CudaGraph graph = nullptr;
};

// Device memory from which graphs read candidates.
struct CudaRegion {
  std::uint64_t address = 0;
  std::size_t size_bytes = 0;
};

// The passes for zoos of up to `candidates`: they share their memory, so one runs at a time.
class CudaZoo {
 public:
  // `inputs` int32 [2 T + B + 1] and `scores` float [B, candidates] are page-locked host memory, as
  // large as the largest pass needs; `regions` hold the candidates; `owner` keeps all of this and
  // the graphs alive. Throws std::invalid_argument without a pass, or for a missing address.
  CudaZoo(std::int32_t candidates, std::int32_t* inputs, const float* scores,
          std::vector<CudaRegion> regions, std::vector<CudaPass> passes,
          std::shared_ptr<const void> owner);

  std::int32_t candidates() const { return candidates_; }
  std::int32_t most_requests() const { return most_requests_; }  // of one pass
  const std::vector<CudaRegion>& regions() const { return regions_; }

  // The smallest pass that holds so much: fewest requests first, then fewest tokens. Null without.
  const CudaPass* Find(std::int32_t requests, std::int32_t tokens) const;

 private:
  friend class CudaGraphExecutor;

  const std::int32_t candidates_;
  std::int32_t* const inputs_;
  const float* const scores_;
  const std::vector<CudaRegion> regions_;
  const std::vector<CudaPass> passes_;  // in the order of Find
  const std::int32_t most_requests_;
  const std::shared_ptr<const void> owner_;
  std::uint64_t resident_ = 0;  // id of the table in `regions_`; the executor's mutex guards it
};

// Describes instructions first .. first + count - 1 of a batch as a pass of `requests` and `tokens`
// reads them: token ids [T], each one's position in its instruction [T], cu_seqlens [B + 1].
// Padding is token 0 at position 0, and instructions without tokens.
void WritePassInputs(const Batch& batch, std::int32_t first, std::int32_t count,
                     std::int32_t requests, std::int32_t tokens, std::int32_t* inputs);

struct CudaOptions {
  ExecutorLimits limits;
  std::int32_t vocabulary = 0;  // token ids are below it
  std::string dtype;            // what the graphs compute in, for messages
  // How long a caller asks whether a pass is through before it sleeps: longer than the bar of a
  // short pass, 150 us, since to be woken takes tens of microseconds more.
  std::chrono::microseconds poll{200};
};

// Makes the executor that takes over from a device that failed for `reason`.
using OpenFallback =
    std::function<Status(const std::string& reason, std::shared_ptr<Executor>* executor)>;

// Thread-safe; one call at a time uses the device. While the device works, a caller first asks it
// again and again, giving way each time to whoever has work for the core, then sleeps.
//
// When the driver reports an error (out of memory, device lost), the batch at hand and all that
// follow go to the fallback: a device that failed once is not trusted again.
class CudaGraphExecutor final : public Executor {
 public:
  // Works in the calling thread's current context, on a stream of its own. Throws
  // std::runtime_error when there is no context, or when the driver refuses.
  CudaGraphExecutor(std::shared_ptr<const CudaDriver> driver, const CudaOptions& options,
                    OpenFallback open_fallback);
  ~CudaGraphExecutor() override;

  ExecutorLimits limits() const override { return options_.limits; }

  // kInvalidArgument for a batch that is malformed, outside the limits or the vocabulary, and for a
  // table that another executor made; kExecutorError when the arithmetic overflowed, or the device
  // failed and nobody takes over; kForked in a forked child.
  Status Score(const Batch& batch, const CandidateTable& table, float* probabilities) override;

  // A snapshot that lies on the device at `sources`, laid out as the zoo's regions; `owner` keeps
  // it there, `payload` is what the fallback reads. It is copied into the regions when a batch asks
  // for it. Throws std::invalid_argument when it does not fit the zoo.
  std::shared_ptr<CandidateTable> MakeTable(std::int32_t num_candidates, std::int32_t hidden_size,
                                            std::uint64_t version,
                                            std::shared_ptr<const void> payload,
                                            std::shared_ptr<CudaZoo> zoo,
                                            std::vector<std::uint64_t> sources,
                                            std::shared_ptr<const void> owner) const;

  // Lets the fallback take over now. Not Ok when it cannot be opened; the device is given up still.
  Status GiveUp(const std::string& reason);

  bool failed() const { return failed_.load(); }
  const CudaDriver& driver() const { return *driver_; }

 private:
  class Table;

  // These four give kExecutorError when the device failed, and for nothing else.
  Status Run(const Batch& batch, const Table& table, float* probabilities)
      MODELSAT_REQUIRES(mutex_);
  Status MakeResident(const Table& table) MODELSAT_REQUIRES(mutex_);
  Status RunPass(const Batch& batch, std::int32_t first, std::int32_t count, const Table& table,
                 float* probabilities) MODELSAT_REQUIRES(mutex_);
  Status WaitForPass() MODELSAT_REQUIRES(mutex_);
  Status CheckFinite(const float* probabilities, std::int64_t count) const;
  Status Fallback(const std::string& reason, std::shared_ptr<Executor>* executor)
      MODELSAT_REQUIRES(mutex_);

  const std::shared_ptr<const CudaDriver> driver_;
  const CudaOptions options_;
  const OpenFallback open_fallback_;
  const ForkGuard fork_guard_;
  CudaContext context_ = nullptr;
  CudaStream stream_ = nullptr;
  CudaEvent event_ = nullptr;  // the end of what was queued last
  std::atomic<bool> failed_{false};
  Mutex mutex_;
  std::string failure_ MODELSAT_GUARDED_BY(mutex_);
  std::shared_ptr<Executor> fallback_ MODELSAT_GUARDED_BY(mutex_);
  // what a device that failed may use still
  std::vector<std::shared_ptr<const void>> in_flight_ MODELSAT_GUARDED_BY(mutex_);
};

}  // namespace modelsat

#endif  // MODELSAT_CUDA_GRAPH_EXECUTOR_H_
