// A network with random weights in a file of its own, for tests and benchmarks of the native
// executor.

#ifndef MODELSAT_TESTS_RANDOM_NETWORK_H_
#define MODELSAT_TESTS_RANDOM_NETWORK_H_

#include <stdlib.h>  // mkstemp
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "modelsat/native_executor.h"

namespace modelsat {

// Odd sizes, small enough to compute in double precision.
inline NativeConfig SmallConfig() {
  NativeConfig config;
  config.layers = 3;
  config.hidden = 48;
  config.heads = 4;  // of 12: padded
  config.intermediate = 72;
  config.vocab = 101;
  config.max_positions = 64;
  config.inject_at = 1;
  config.max_instruction_tokens = 61;
  return config;
}

// Tensors by name, written one after the other into a temporary file that lives as long as this.
class RandomNetwork {
 public:
  RandomNetwork(const NativeConfig& config, std::uint32_t seed, bool regression_head = false)
      : config_(config), random_(seed) {
    const std::int64_t d = config.hidden;
    const std::int64_t f = config.intermediate;
    AddQuantized("trunk.embeddings.word", config.vocab, d, 0.05f);
    AddQuantized("trunk.embeddings.position", config.max_positions, d, 0.05f);
    AddNorm("trunk.embeddings.norm");
    for (int l = 0; l < config.layers; ++l) {
      const std::string layer = "trunk.layers." + std::to_string(l) + ".";
      for (const char* name : {"query", "key", "value", "attention_output"}) {
        AddLinear(layer + name, d, d);
      }
      AddNorm(layer + "attention_norm");
      AddLinear(layer + "up", f, d);
      AddLinear(layer + "down", d, f);
      AddNorm(layer + "output_norm");
    }
    if (regression_head) {
      AddFloats("head.weight", {d}, 0.0f, 0.3f);
      AddFloats("head.bias", {}, 0.1f, 0.0f);
    } else {
      AddFloats("head.rows.weight", {2, d}, 0.0f, 0.2f);
      AddFloats("head.rows.bias", {2}, 0.0f, 0.1f);
    }
    AddFloats("temperature", {}, 1.25f, 0.0f);
    AddFloats("calibration_bias", {}, -0.125f, 0.0f);
    if (config.evidence_size > 0) {
      AddFloats("relevance.center", {d}, 0.0f, 0.2f);
      AddFloats("relevance.scale", {d}, 1.0f, 0.1f);
      AddLinear("relevance.hidden", config.relevance_hidden, d);
      AddLinear("relevance.tasks", config.evidence_size, config.relevance_hidden);
    }
  }

  const NativeConfig& config() const { return config_; }

  // The values of a tensor; int8 tensors as the integers they hold.
  std::vector<double> Read(const std::string& name) const {
    const Tensor& tensor = tensors_.at(name);
    if (tensor.floats.empty()) return {tensor.bytes.begin(), tensor.bytes.end()};
    return {tensor.floats.begin(), tensor.floats.end()};
  }

  bool Has(const std::string& name) const { return tensors_.count(name) > 0; }

  // For tests of damaged files.
  void SetFloat(const std::string& name, std::int64_t index, float value) {
    tensors_.at(name).floats.at(index) = value;
  }
  void FillInt8(const std::string& name, std::int8_t value) {
    for (std::int8_t& byte : tensors_.at(name).bytes) byte = value;
  }
  void Remove(const std::string& name) { tensors_.erase(name); }

  // Writes the file anew and returns where the tensors lie.
  std::map<std::string, NativeTensor> Write() {
    std::map<std::string, NativeTensor> places;
    std::ofstream file(path(), std::ios::binary | std::ios::trunc);
    file << "header ";  // an odd number of bytes: nothing in the file may count on being aligned
    for (const auto& [name, tensor] : tensors_) {
      const bool floats = !tensor.floats.empty();
      const std::uint64_t size = floats ? tensor.floats.size() * 4 : tensor.bytes.size();
      places[name] = {floats ? "F32" : "I8", tensor.shape, static_cast<std::uint64_t>(file.tellp()),
                      size};
      file.write(floats ? reinterpret_cast<const char*>(tensor.floats.data())
                        : reinterpret_cast<const char*>(tensor.bytes.data()),
                 static_cast<std::streamsize>(size));
    }
    return places;
  }

  const std::string& path() const { return file_->path; }

  std::unique_ptr<NativeExecutor> Load(const NativeOptions& options) {
    const std::map<std::string, NativeTensor> places = Write();
    return std::make_unique<NativeExecutor>(path(), places, config_, options);
  }

  std::vector<float> Floats(std::size_t count, float deviation) {
    std::normal_distribution<float> normal(0.0f, deviation);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random_);
    return values;
  }

  // Instructions of 1 to most tokens.
  Batch Instructions(int count, int most) {
    std::vector<std::int32_t> tokens;
    std::vector<std::int32_t> offsets{0};
    for (int b = 0; b < count; ++b) {
      const int length = std::uniform_int_distribution<int>(1, most)(random_);
      for (int t = 0; t < length; ++t) {
        tokens.push_back(std::uniform_int_distribution<int>(0, config_.vocab - 1)(random_));
      }
      offsets.push_back(static_cast<std::int32_t>(tokens.size()));
    }
    return Batch(std::move(tokens), std::move(offsets));
  }

 private:
  struct Tensor {
    std::vector<std::int64_t> shape;
    std::vector<float> floats;
    std::vector<std::int8_t> bytes;
  };

  struct TemporaryFile {
    TemporaryFile() {
      const char* const folder = std::getenv("TMPDIR");
      path = std::string(folder != nullptr ? folder : "/tmp") + "/modelsat_network_XXXXXX";
      const int file = mkstemp(path.data());
      if (file < 0) throw std::runtime_error("cannot make a temporary file " + path);
      close(file);
    }
    ~TemporaryFile() { std::remove(path.c_str()); }
    std::string path;
  };

  void AddFloats(const std::string& name, std::vector<std::int64_t> shape, float mean,
                 float deviation) {
    const std::int64_t count =
        std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    Tensor tensor;
    tensor.shape = std::move(shape);
    tensor.floats = Floats(static_cast<std::size_t>(count), deviation);
    for (float& value : tensor.floats) value += mean;
    tensors_[name] = std::move(tensor);
  }

  void AddQuantized(const std::string& name, std::int64_t rows, std::int64_t columns,
                    float deviation) {
    Tensor tensor;
    tensor.shape = {rows, columns};
    tensor.bytes.resize(static_cast<std::size_t>(rows * columns));
    std::uniform_int_distribution<int> uniform(-127, 127);
    for (std::int8_t& byte : tensor.bytes) byte = static_cast<std::int8_t>(uniform(random_));
    tensors_[name + ".weight"] = std::move(tensor);
    // integers up to 127 deviate by 73
    AddFloats(name + ".weight_scale", {rows}, deviation / 73.0f, deviation / 730.0f);
  }

  void AddLinear(const std::string& name, std::int64_t out, std::int64_t in) {
    AddQuantized(name, out, in, 1.0f / std::sqrt(static_cast<float>(in)));
    AddFloats(name + ".bias", {out}, 0.0f, 0.1f);
  }

  void AddNorm(const std::string& name) {
    AddFloats(name + ".weight", {config_.hidden}, 1.0f, 0.1f);
    AddFloats(name + ".bias", {config_.hidden}, 0.0f, 0.1f);
  }

  const NativeConfig config_;
  std::mt19937 random_;
  std::map<std::string, Tensor> tensors_;
  std::shared_ptr<TemporaryFile> file_ = std::make_shared<TemporaryFile>();
};

}  // namespace modelsat

#endif  // MODELSAT_TESTS_RANDOM_NETWORK_H_
