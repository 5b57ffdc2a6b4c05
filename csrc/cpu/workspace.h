// The working memory of one thread: every intermediate of one pass, at its largest.

#ifndef MODELSAT_CPU_WORKSPACE_H_
#define MODELSAT_CPU_WORKSPACE_H_

#include <cstdint>

#include "cpu/buffer.h"
#include "cpu/kernels.h"
#include "cpu/model.h"

namespace modelsat {

// How much one pass takes on.
struct PassLimits {
  // Tokens of all instructions of a pass, each instruction's rounded up to a multiple of kLanes.
  int tokens = 0;
  int inquiry_rows = 0;       // of all instructions together
  int feed_forward_rows = 0;  // rows whose wide intermediate is kept at once
};

// A pass holds one long instruction or several short ones, about this many tokens: enough rows to
// read the weights rarely, few enough that their intermediates stay in the second-level cache.
PassLimits LimitsOf(const NativeConfig& config);

class Workspace {
 public:
  explicit Workspace(const NativeModel& model);

  const PassLimits& limits() const { return limits_; }

  // [rows, ...] with rows = tokens + inquiry_rows
  float* state() const { return buffer_.at<float>(state_); }  // [rows, hidden_width]
  const QuantizedRows& state_quantized() const { return state_quantized_; }
  float* qkv() const { return buffer_.at<float>(qkv_); }            // [rows, qkv_stride]
  float* attended() const { return buffer_.at<float>(attended_); }  // [rows, attention_width]
  const QuantizedRows& attended_quantized() const { return attended_quantized_; }
  float* projected() const { return buffer_.at<float>(projected_); }  // [rows, hidden_width]

  // [feed_forward_rows, intermediate_width], in blocks, and one block before it is quantized
  const QuantizedRows& wide_quantized() const { return wide_quantized_; }
  float* wide_block() const { return buffer_.at<float>(wide_block_); }

  // Packed keys of one head in an early layer; packed keys and values of all heads in late ones.
  float* head_keys() const { return buffer_.at<float>(head_keys_); }
  float* late_keys_values(int late_layer) const {
    return buffer_.at<float>(late_keys_values_) + late_layer * late_stride_;
  }
  float* scores() const { return buffer_.at<float>(scores_); }

  // Of one instruction, [relevance padded_size]; any instruction of a pass.
  float* relevance(int instruction) const {
    return buffer_.at<float>(relevance_) + std::int64_t{instruction} * relevance_width_;
  }
  float* relevance_scratch() const { return buffer_.at<float>(relevance_scratch_); }

 private:
  const PassLimits limits_;
  std::size_t state_, qkv_, attended_, projected_, wide_block_;
  std::size_t head_keys_, late_keys_values_, scores_;
  std::size_t relevance_, relevance_scratch_;
  std::int64_t late_stride_ = 0;
  int relevance_width_ = 0;
  QuantizedRows state_quantized_;
  QuantizedRows attended_quantized_;
  QuantizedRows wide_quantized_;
  Buffer buffer_;
};

}  // namespace modelsat

#endif  // MODELSAT_CPU_WORKSPACE_H_
