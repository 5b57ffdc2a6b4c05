#include "cpu/zoo.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace modelsat {
namespace {

void CheckFinite(const float* values, std::int64_t count, const char* name) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(values[i])) {
      throw std::invalid_argument(std::string(name) +
                                  " holds NaN or infinity; encode the candidates again");
    }
  }
}

}  // namespace

NativeZoo::NativeZoo(std::shared_ptr<const NativeModel> model, const Kernels& kernels,
                     const float* inquiry_start, const float* memory, int num_candidates)
    : model_(std::move(model)), rows_(num_candidates * model_->config().views) {
  const NativeConfig& config = model_->config();
  const int k = config.memory_rows;
  if (k > 0) memory_block_ = std::int64_t{model_->head_width()} * (PadToLanes(k) + k);
  Layout layout;
  start_ = layout.Reserve<float>(std::size_t(rows_) * model_->hidden_width());
  evidence_ = layout.Reserve<float>(std::size_t(rows_) * model_->relevance().padded_size());
  first_qkv_ = layout.Reserve<float>(std::size_t(rows_) * model_->qkv_stride());
  memory_ = layout.Reserve<float>(std::size_t(rows_) * model_->late_layers() * config.heads *
                                  memory_block_);
  buffer_ = Buffer(layout.bytes());
  CopyStart(inquiry_start);
  ComputeFirstQkv(kernels);
  if (k > 0) PackMemory(kernels, memory);
}

const float* NativeZoo::memory(int late_layer, int head) const {
  const std::int64_t heads = model_->config().heads;
  return buffer_.at<float>(memory_) + (late_layer * heads + head) * rows_ * memory_block_;
}

void NativeZoo::CopyStart(const float* inquiry_start) {
  const std::int64_t hidden = model_->config().hidden;
  const std::int64_t evidence = model_->config().evidence_size;
  CheckFinite(inquiry_start, rows_ * (hidden + evidence), "inquiry_start");
  for (std::int64_t r = 0; r < rows_; ++r) {
    const float* const row = inquiry_start + r * (hidden + evidence);
    std::copy_n(row, hidden, buffer_.at<float>(start_) + r * model_->hidden_width());
    std::copy_n(row + hidden, evidence,
                buffer_.at<float>(evidence_) + r * model_->relevance().padded_size());
  }
}

// In two terms, the second one what the first leaves: as good as float, and no request pays for it.
void NativeZoo::ComputeFirstQkv(const Kernels& kernels) {
  const int width = model_->hidden_width();
  const int attention = model_->attention_width();
  std::vector<std::uint8_t> values(std::size_t(rows_) * width);
  std::vector<float> scales(rows_);
  std::vector<ZeroPoint> zero_points(rows_);
  const QuantizedRows rows{values.data(), scales.data(), zero_points.data(), width};
  kernels.quantize(start(), width, rows_, rows);
  const NativeLayer& layer = model_->layer(model_->config().inject_at);
  const PackedLinear* const projections[] = {&layer.query, &layer.key, &layer.value};
  float* const output = buffer_.at<float>(first_qkv_);
  for (int i = 0; i < 3; ++i) {
    kernels.linear(*projections[i], rows, rows_, output + i * attention, model_->qkv_stride());
  }

  std::vector<float> rest(std::size_t(rows_) * width);
  for (std::size_t i = 0; i < rest.size(); ++i) {
    const std::size_t row = i / width;
    rest[i] = start()[i] - scales[row] * static_cast<float>(values[i] - zero_points[row].value());
  }
  kernels.quantize(rest.data(), width, rows_, rows);
  std::vector<float> correction(std::size_t(rows_) * attention);
  for (int i = 0; i < 3; ++i) {
    kernels.linear(*projections[i], rows, rows_, correction.data(), attention);
    for (int row = 0; row < rows_; ++row) {
      for (int j = 0; j < attention; ++j) {
        output[std::int64_t{row} * model_->qkv_stride() + i * attention + j] +=
            correction[std::int64_t{row} * attention + j] - projections[i]->biases[j];
      }
    }
  }
}

void NativeZoo::PackMemory(const Kernels& kernels, const float* memory) {
  const NativeConfig& config = model_->config();
  const int k = config.memory_rows;
  const int head_size = config.hidden / config.heads;
  const int head_width = model_->head_width();
  const std::int64_t half = std::int64_t{k} * config.hidden;  // keys, or values, of one layer
  CheckFinite(memory, half * 2 * model_->late_layers() * rows_, "memory");
  std::vector<float> padded(std::size_t{2} * k * head_width, 0.0f);  // [2, K, head_width]
  for (int late = 0; late < model_->late_layers(); ++late) {
    for (int head = 0; head < config.heads; ++head) {
      float* block = const_cast<float*>(this->memory(late, head));
      for (std::int64_t r = 0; r < rows_; ++r, block += memory_block_) {
        const float* const source =
            memory + (r * model_->late_layers() + late) * 2 * half + head * head_size;
        for (int j = 0; j < 2 * k; ++j) {
          std::copy_n(source + std::int64_t{j} * config.hidden, head_size,
                      padded.data() + std::int64_t{j} * head_width);
        }
        kernels.pack_keys(padded.data(), head_width, k, head_width, block);
        std::copy_n(padded.data() + std::int64_t{k} * head_width, std::int64_t{k} * head_width,
                    block + std::int64_t{head_width} * PadToLanes(k));
      }
    }
  }
}

}  // namespace modelsat
