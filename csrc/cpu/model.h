// The network's weights in the form that the kernels read, packed once when a bundle is loaded.

#ifndef MODELSAT_CPU_MODEL_H_
#define MODELSAT_CPU_MODEL_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/kernels.h"
#include "cpu/relevance.h"
#include "cpu/weights_file.h"
#include "modelsat/native_executor.h"

namespace modelsat {

struct NativeLayer {
  PackedLinear query;  // scaled by log2(e) / sqrt(head size): attention takes powers of two
  PackedLinear key;
  PackedLinear value;
  PackedLinear attention_output;
  LayerNormWeights attention_norm;
  PackedLinear up;
  PackedLinear down;
  LayerNormWeights output_norm;
};

class NativeModel {
 public:
  // Throws std::invalid_argument for a configuration or a tensor that cannot be used.
  NativeModel(const std::string& weights_path, const std::map<std::string, NativeTensor>& tensors,
              const NativeConfig& config);

  const NativeConfig& config() const { return config_; }
  int late_layers() const { return config_.layers - config_.inject_at; }

  // Padded sizes, in floats. Query, key, value and the attention's output hold heads side by side.
  int hidden_width() const { return hidden_width_; }
  int head_width() const { return head_width_; }
  int attention_width() const { return config_.heads * head_width_; }
  // From one row of query, key and value to the next: an odd number of cache lines, because rows a
  // multiple of a few lines apart would crowd into a part of the cache.
  int qkv_stride() const { return (3 * attention_width() / kLanes | 1) * kLanes; }
  int intermediate_width() const { return intermediate_width_; }

  EmbeddingTables embeddings() const {
    return {words_, word_scales_.data(), positions_, position_scales_.data()};
  }
  const LayerNormWeights& embedding_norm() const { return embedding_norm_; }
  const NativeLayer& layer(int index) const { return layers_[index]; }

  // logit = state . head_weight + head_bias;  P(Yes) = sigmoid(logit / temperature + bias)
  const float* head_weight() const { return head_weight_; }
  float head_bias() const { return head_bias_; }
  float temperature() const { return temperature_; }
  float calibration_bias() const { return calibration_bias_; }

  // Adds relevance . evidence to the logit; of size 0 when the router has none.
  const RelevanceHead& relevance() const { return relevance_; }

 private:
  void LoadEmbeddings();
  void LoadLayers();
  void LoadHead();
  const float* KeepPadded(const std::vector<float>& values);
  LayerNormWeights LoadNorm(const std::string& name);

  const NativeConfig config_;
  const int hidden_width_;
  const int head_width_;
  const int intermediate_width_;
  const WeightsFile file_;
  Buffer packed_;                          // all int8 weights, in the order in which they are read
  std::vector<LineVector<float>> floats_;  // norms, scales, biases
  std::vector<LineVector<ChannelSum>> channel_sums_;

  const std::int8_t* words_ = nullptr;
  std::vector<float> word_scales_;
  const std::int8_t* positions_ = nullptr;
  std::vector<float> position_scales_;
  LayerNormWeights embedding_norm_;
  std::vector<NativeLayer> layers_;
  const float* head_weight_ = nullptr;
  float head_bias_ = 0.0f;
  float temperature_ = 1.0f;
  float calibration_bias_ = 0.0f;
  RelevanceHead relevance_;

  friend class LinearPacker;
};

}  // namespace modelsat

#endif  // MODELSAT_CPU_MODEL_H_
