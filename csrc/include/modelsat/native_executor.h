// The network on the CPU, in int8, without Python: the Executor of the native runtime.

#ifndef MODELSAT_NATIVE_EXECUTOR_H_
#define MODELSAT_NATIVE_EXECUTOR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "modelsat/candidate_table.h"
#include "modelsat/executor.h"

namespace modelsat {

// Shape of the network, as router.json has it.
struct NativeConfig {
  std::int32_t layers = 0;         // L
  std::int32_t hidden = 0;         // D
  std::int32_t heads = 0;          // H, divides D
  std::int32_t intermediate = 0;   // F
  std::int32_t vocab = 0;          // V
  std::int32_t max_positions = 0;  // P
  std::int32_t inject_at = 0;      // first layer of the inquiry rows, below L
  std::int32_t memory_rows = 0;    // K
  std::int32_t views = 1;          // R
  std::int32_t max_instruction_tokens = 0;
  std::int32_t evidence_size = 0;     // E of the relevance head; 0 for a router without one
  std::int32_t relevance_hidden = 0;  // width of that head's hidden layer
  float layer_norm_eps = 1e-12f;
};

// Where a tensor lies in the weights file.
struct NativeTensor {
  std::string dtype;                // "F32" or "I8"
  std::vector<std::int64_t> shape;  // row-major
  std::uint64_t offset_bytes = 0;   // from the start of the file
  std::uint64_t size_bytes = 0;
};

struct NativeOptions {
  int threads = 1;  // that work on one batch, the caller's own included; 0: UsableCpuCount()
  std::int32_t max_batch_requests = 64;
  std::int32_t max_batch_tokens = 8192;
  std::string isa;  // one of NativeIsas(); empty: the best of this processor
};

// Scores packed batches. An answer depends on its instruction and its candidate alone, to the bit:
// not on the batch, the threads or the instruction set.
//
// Thread-safe: calls of Score may overlap; each has its own working memory, and one of them at a
// time uses the additional threads. Nothing is allocated once a call of its kind has run before.
class NativeExecutor final : public Executor {
 public:
  // Maps the weights file and packs what the kernels read, once for all executors of a process that
  // share a router; the word embeddings are read in place,
  // so the file must stay as it is (replacing it by renaming another over it is fine).
  //
  // Throws std::invalid_argument when the file, a tensor or the configuration is not usable (a
  // missing tensor, another shape or type, a part outside the file, NaN or infinity), and
  // std::runtime_error when the processor lacks the instruction set.
  NativeExecutor(const std::string& weights_path,
                 const std::map<std::string, NativeTensor>& tensors, const NativeConfig& config,
                 const NativeOptions& options);
  ~NativeExecutor() override;

  ExecutorLimits limits() const override;

  // kInvalidArgument for a batch that is malformed, outside the limits or the vocabulary, and for a
  // table that an executor of another router made; kExecutorError when the arithmetic overflowed;
  // kForked in a forked child. Never throws for load.
  Status Score(const Batch& batch, const CandidateTable& table, float* probabilities) override;

  // A table that holds what depends on the candidates alone: where their inquiry rows start,
  // their query, key and value in layer inject_at, and their memory.
  //
  // inquiry_start float [M, R, D + E], the candidate's evidence behind the start; memory float [M,
  // R, L - inject_at, 2, K, D], null when K = 0. Throws std::invalid_argument for NaN or infinity.
  // Copies everything.
  std::shared_ptr<CandidateTable> MakeTable(const float* inquiry_start, const float* memory,
                                            std::int32_t num_candidates,
                                            std::uint64_t version) const;

  const NativeConfig& config() const;
  const char* isa() const;
  int threads() const;

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

// The instruction sets that this processor runs, best first; always ends with "portable".
std::vector<std::string> NativeIsas();

}  // namespace modelsat

#endif  // MODELSAT_NATIVE_EXECUTOR_H_
