// What the native executor keeps of a zoo: everything that depends on the candidates alone.

#ifndef MODELSAT_CPU_ZOO_H_
#define MODELSAT_CPU_ZOO_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "cpu/buffer.h"
#include "cpu/kernels.h"
#include "cpu/model.h"
#include "modelsat/candidate_table.h"

namespace modelsat {

// Row m * R + r is view r of candidate m.
class NativeZoo {
 public:
  // As NativeExecutor::MakeTable. Throws std::invalid_argument for NaN or infinity.
  NativeZoo(std::shared_ptr<const NativeModel> model, const Kernels& kernels,
            const float* inquiry_start, const float* memory, int num_candidates);

  const NativeModel* model() const { return model_.get(); }
  int rows() const { return rows_; }

  // Where the inquiry rows start, [rows, hidden_width].
  const float* start() const { return buffer_.at<float>(start_); }

  // Evidence for the relevance head, [rows, relevance padded_size].
  const float* evidence() const { return buffer_.at<float>(evidence_); }

  // Query, key and value of the inquiry rows in layer inject_at, [rows, qkv_stride].
  const float* first_qkv() const { return buffer_.at<float>(first_qkv_); }

  // Memory of one late layer and head: per row, memory_block() floats, first the keys
  // [head_width, padded K], then the values [K, head_width].
  const float* memory(int late_layer, int head) const;
  std::int64_t memory_block() const { return memory_block_; }

 private:
  void CopyStart(const float* inquiry_start);
  void ComputeFirstQkv(const Kernels& kernels);
  void PackMemory(const Kernels& kernels, const float* memory);

  const std::shared_ptr<const NativeModel> model_;
  const int rows_;
  std::int64_t memory_block_ = 0;
  std::size_t start_ = 0;
  std::size_t evidence_ = 0;
  std::size_t first_qkv_ = 0;
  std::size_t memory_ = 0;
  Buffer buffer_;
};

// The table that Python and the scheduler hand around. The zoo is no payload, which other executors
// take for an object of theirs: its owner is told by the type of the table.
class NativeCandidateTable final : public CandidateTable {
 public:
  NativeCandidateTable(std::int32_t num_candidates, std::int32_t hidden_size, std::uint64_t version,
                       std::shared_ptr<const NativeZoo> zoo)
      : CandidateTable(num_candidates, hidden_size, version, nullptr), zoo_(std::move(zoo)) {}

  const NativeZoo& zoo() const { return *zoo_; }

 private:
  const std::shared_ptr<const NativeZoo> zoo_;
};

}  // namespace modelsat

#endif  // MODELSAT_CPU_ZOO_H_
