#include "cpu/relevance.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace modelsat {
namespace {

// int8 weights [out, in] times their scales, each row padded with zeros.
LineVector<float> Dequantised(const WeightsFile& file, const std::string& name, int out, int in) {
  const std::int8_t* const weights = file.Int8(name + ".weight", {out, in});
  const std::vector<float> scales = file.Floats(name + ".weight_scale", {out});
  const std::size_t padded = PadToLanes(in);
  LineVector<float> values(out * padded, 0.0f);
  for (int n = 0; n < out; ++n) {
    for (int k = 0; k < in; ++k) {
      values[n * padded + k] = scales[n] * weights[std::size_t(n) * in + k];
    }
  }
  return values;
}

}  // namespace

RelevanceHead::RelevanceHead(const WeightsFile& file, int hidden, int width, int evidence)
    : hidden_(hidden),
      padded_hidden_(PadToLanes(hidden)),
      width_(width),
      padded_width_(PadToLanes(width)),
      evidence_(evidence),
      center_(file.Floats("relevance.center", {hidden})),
      scale_(file.Floats("relevance.scale", {hidden})),
      hidden_weights_(Dequantised(file, "relevance.hidden", width, hidden)),
      hidden_biases_(file.Floats("relevance.hidden.bias", {width})),
      task_weights_(Dequantised(file, "relevance.tasks", evidence, width)),
      task_biases_(file.Floats("relevance.tasks.bias", {evidence})) {}

void RelevanceHead::Weigh(const Kernels& kernels, const float* rows, int tokens, float* scratch,
                          float* relevance) const {
  float* const mean = scratch;
  float* const active = scratch + padded_hidden_;
  std::fill_n(scratch, scratch_floats(), 0.0f);
  for (int t = 0; t < tokens; ++t) {
    for (int i = 0; i < hidden_; ++i) mean[i] += rows[std::int64_t{t} * padded_hidden_ + i];
  }
  for (int i = 0; i < hidden_; ++i) {
    mean[i] = (mean[i] / static_cast<float>(tokens) - center_[i]) * scale_[i];
  }
  for (int n = 0; n < width_; ++n) {
    const double x = kernels.dot(mean, hidden_weights_.data() + std::int64_t{n} * padded_hidden_,
                                 padded_hidden_) +
                     hidden_biases_[n];
    active[n] = static_cast<float>(0.5 * x * std::erfc(-x * std::sqrt(0.5)));
  }
  std::fill_n(relevance, padded_size(), 0.0f);
  for (int e = 0; e < evidence_; ++e) {
    relevance[e] =
        kernels.dot(active, task_weights_.data() + std::int64_t{e} * padded_width_, padded_width_) +
        task_biases_[e];
  }
}

}  // namespace modelsat
