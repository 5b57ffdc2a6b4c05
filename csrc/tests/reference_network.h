// The network of a RandomNetwork in double precision, one pair of instruction and candidate at a
// time, with dequantised weights: what the native executor approximates.

#ifndef MODELSAT_TESTS_REFERENCE_NETWORK_H_
#define MODELSAT_TESTS_REFERENCE_NETWORK_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "random_network.h"

namespace modelsat {

class ReferenceNetwork {
 public:
  using Row = std::vector<double>;

  explicit ReferenceNetwork(const RandomNetwork& network)
      : network_(network), config_(network.config()) {}

  // Probabilities of all candidates for one instruction; arrays as NativeExecutor::MakeTable.
  std::vector<double> Score(const std::int32_t* tokens, int count, const std::vector<float>& starts,
                            const std::vector<float>& memory, int candidates) const {
    const int width = config_.hidden + config_.evidence_size;
    const int late = config_.layers - config_.inject_at;
    const std::size_t block = std::size_t(late) * 2 * config_.memory_rows * config_.hidden;
    std::vector<double> probabilities(candidates, 0.0);
    for (int i = 0; i < candidates * config_.views; ++i) {
      const float* const start = starts.data() + std::size_t(i) * width;
      const double logit = Logit(tokens, count, start,
                                 memory.empty() ? nullptr : memory.data() + std::size_t(i) * block);
      const double calibrated = logit / Tensor("temperature")[0] + Tensor("calibration_bias")[0];
      probabilities[i / config_.views] += 1.0 / (1.0 + std::exp(-calibrated)) / config_.views;
    }
    return probabilities;
  }

 private:
  // Read once, because a look-up by name for every weight would take minutes.
  const std::vector<double>& Tensor(const std::string& name) const {
    std::vector<double>& values = tensors_[name];
    if (values.empty()) values = network_.Read(name);
    return values;
  }

  Row Linear(const std::string& name, const Row& x, int out) const {
    const std::vector<double>& weights = Tensor(name + ".weight");
    const std::vector<double>& scales = Tensor(name + ".weight_scale");
    const std::vector<double>& biases = Tensor(name + ".bias");
    Row y(out);
    for (int n = 0; n < out; ++n) {
      double sum = 0.0;
      for (std::size_t k = 0; k < x.size(); ++k) sum += x[k] * weights[n * x.size() + k];
      y[n] = sum * scales[n] + biases[n];
    }
    return y;
  }

  Row Norm(const std::string& name, const Row& x) const {
    double mean = 0.0;
    double variance = 0.0;
    for (const double v : x) mean += v / x.size();
    for (const double v : x) variance += (v - mean) * (v - mean) / x.size();
    Row y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      y[i] = (x[i] - mean) / std::sqrt(variance + config_.layer_norm_eps) *
                 Tensor(name + ".weight")[i] +
             Tensor(name + ".bias")[i];
    }
    return y;
  }

  static double Gelu(double x) { return 0.5 * x * std::erfc(-x * std::sqrt(0.5)); }

  static void AddTo(Row* sum, const Row& x) {
    for (std::size_t i = 0; i < x.size(); ++i) (*sum)[i] += x[i];
  }

  // One row against keys and values, then the rest of the layer.
  Row Finish(const std::string& layer, const Row& row, const std::vector<Row>& keys,
             const std::vector<Row>& values) const {
    const int size = config_.hidden / config_.heads;
    const Row query = Linear(layer + "query", row, config_.hidden);
    Row attended(config_.hidden, 0.0);
    for (int h = 0; h < config_.heads; ++h) {
      std::vector<double> weights;
      for (const Row& key : keys) {
        double score = 0.0;
        for (int d = h * size; d < (h + 1) * size; ++d) score += query[d] * key[d];
        weights.push_back(score / std::sqrt(double(size)));
      }
      const double peak = *std::max_element(weights.begin(), weights.end());
      double total = 0.0;
      for (double& weight : weights) total += weight = std::exp(weight - peak);
      for (std::size_t j = 0; j < keys.size(); ++j) {
        for (int d = h * size; d < (h + 1) * size; ++d) {
          attended[d] += weights[j] / total * values[j][d];
        }
      }
    }
    Row state = Linear(layer + "attention_output", attended, config_.hidden);
    AddTo(&state, row);
    state = Norm(layer + "attention_norm", state);
    Row wide = Linear(layer + "up", state, config_.intermediate);
    for (double& x : wide) x = Gelu(x);
    Row output = Linear(layer + "down", wide, config_.hidden);
    AddTo(&output, state);
    return Norm(layer + "output_norm", output);
  }

  double Logit(const std::int32_t* tokens, int count, const float* start,
               const float* memory) const {
    const int d = config_.hidden;
    std::vector<Row> rows;
    for (int t = 0; t < count; ++t) {
      Row row(d);
      for (int i = 0; i < d; ++i) {
        row[i] = Embedded("trunk.embeddings.word", tokens[t], i) +
                 Embedded("trunk.embeddings.position", t, i);
      }
      rows.push_back(Norm("trunk.embeddings.norm", row));
    }
    Row inquiry(start, start + d);
    Row pooled;
    for (int l = 0; l < config_.layers; ++l) {
      const std::string layer = "trunk.layers." + std::to_string(l) + ".";
      pooled.assign(d, 0.0);
      for (const Row& row : rows) {
        for (int i = 0; i < d; ++i) pooled[i] += row[i] / count;
      }
      std::vector<Row> keys;
      std::vector<Row> values;
      for (const Row& row : rows) {
        keys.push_back(Linear(layer + "key", row, d));
        values.push_back(Linear(layer + "value", row, d));
      }
      for (Row& row : rows) row = Finish(layer, row, keys, values);
      if (l < config_.inject_at) continue;
      keys.push_back(Linear(layer + "key", inquiry, d));
      values.push_back(Linear(layer + "value", inquiry, d));
      const std::size_t half = std::size_t(config_.memory_rows) * d;
      const float* const remembered = memory + (l - config_.inject_at) * 2 * half;
      for (int j = 0; j < config_.memory_rows; ++j) {
        keys.emplace_back(remembered + j * d, remembered + (j + 1) * d);
        values.emplace_back(remembered + half + j * d, remembered + half + (j + 1) * d);
      }
      inquiry = Finish(layer, inquiry, keys, values);
    }
    return Head(inquiry) + Relevance(pooled, start + d);
  }

  double Embedded(const std::string& name, int row, int i) const {
    return Tensor(name + ".weight")[std::int64_t{row} * config_.hidden + i] *
           Tensor(name + ".weight_scale")[row];
  }

  double Head(const Row& state) const {
    const bool regression = network_.Has("head.weight");
    double logit = regression ? Tensor("head.bias")[0]
                              : Tensor("head.rows.bias")[0] - Tensor("head.rows.bias")[1];
    for (int i = 0; i < config_.hidden; ++i) {
      logit += state[i] * (regression ? Tensor("head.weight")[i]
                                      : Tensor("head.rows.weight")[i] -
                                            Tensor("head.rows.weight")[config_.hidden + i]);
    }
    return logit;
  }

  double Relevance(Row pooled, const float* evidence) const {
    if (config_.evidence_size == 0) return 0.0;
    for (int i = 0; i < config_.hidden; ++i) {
      pooled[i] = (pooled[i] - Tensor("relevance.center")[i]) * Tensor("relevance.scale")[i];
    }
    Row hidden = Linear("relevance.hidden", pooled, config_.relevance_hidden);
    for (double& x : hidden) x = Gelu(x);
    const Row weights = Linear("relevance.tasks", hidden, config_.evidence_size);
    double sum = 0.0;
    for (int e = 0; e < config_.evidence_size; ++e) sum += weights[e] * evidence[e];
    return sum;
  }

  const RandomNetwork& network_;
  const NativeConfig config_;
  mutable std::map<std::string, std::vector<double>> tensors_;
};

}  // namespace modelsat

#endif  // MODELSAT_TESTS_REFERENCE_NETWORK_H_
