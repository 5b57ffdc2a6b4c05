#include "cpu/model.h"

#include <cmath>
#include <stdexcept>

#include "cpu/packing.h"

namespace modelsat {
namespace {

// An int32 sum of this many products of uint8 and int8 cannot overflow, nor can a ChannelSum.
constexpr std::int32_t kMaxFeatures = 32640;

NativeConfig Checked(const NativeConfig& config) {
  const auto refuse = [](const std::string& why) {
    throw std::invalid_argument("router.json: " + why);
  };
  const auto at_least = [&](const char* name, std::int32_t value, std::int32_t least,
                            std::int32_t most) {
    if (value < least || value > most) {
      refuse(std::string(name) + " is " + std::to_string(value) + ", must be " +
             std::to_string(least) + " to " + std::to_string(most));
    }
  };
  constexpr std::int32_t kMany = 1 << 24;
  at_least("layers", config.layers, 1, 4096);
  at_least("hidden", config.hidden, 1, kMaxFeatures);
  at_least("heads", config.heads, 1, config.hidden);
  at_least("intermediate", config.intermediate, 1, kMaxFeatures);
  at_least("vocab", config.vocab, 1, kMany);
  at_least("max_positions", config.max_positions, 1, kMany);
  at_least("inject_at", config.inject_at, 0, config.layers - 1);
  at_least("memory_rows", config.memory_rows, 0, 65536);
  at_least("views", config.views, 1, 1024);
  at_least("max_instruction_tokens", config.max_instruction_tokens, 1, config.max_positions);
  at_least("evidence_size", config.evidence_size, 0, kMaxFeatures);
  if (config.evidence_size > 0) {
    at_least("relevance_hidden", config.relevance_hidden, 1, kMaxFeatures);
  }
  if (config.hidden % config.heads != 0) {
    refuse("hidden " + std::to_string(config.hidden) + " is not a multiple of heads " +
           std::to_string(config.heads));
  }
  if (!(config.layer_norm_eps >= 0.0f) || !std::isfinite(config.layer_norm_eps)) {
    refuse("layer_norm_eps must be a number, 0 or more");
  }
  return config;
}

}  // namespace

// Packs linear layers one after the other into the model's buffer.
class LinearPacker {
 public:
  explicit LinearPacker(NativeModel* model) : model_(model) {}

  // `factor` multiplies the layer's output; `blocks` are those of the rows that it will read.
  PackedLinear Pack(const std::string& name, int out, int in, const AxisMap& outs,
                    const AxisMap& ins, float factor, int blocks = 1) {
    const std::int8_t* const weights = model_->file_.Int8(name + ".weight", {out, in});
    const std::vector<float> scales = model_->file_.Floats(name + ".weight_scale", {out});
    const std::vector<float> biases = model_->file_.Floats(name + ".bias", {out});
    std::int8_t* const packed = model_->packed_.at<std::int8_t>(offset_);
    offset_ += outs.size() * ins.size();
    LineVector<ChannelSum> channel_sums(outs.size() * blocks);
    PackWeights(weights, in, outs, ins, packed, blocks, channel_sums.data());
    PackedLinear layer;
    layer.weights = packed;
    layer.channel_sums = model_->channel_sums_.emplace_back(std::move(channel_sums)).data();
    layer.scales = Channels(scales, outs, factor);
    layer.biases = Channels(biases, outs, factor);
    layer.in = static_cast<int>(ins.size());
    layer.out = static_cast<int>(outs.size());
    layer.blocks = blocks;
    return layer;
  }

 private:
  const float* Channels(const std::vector<float>& values, const AxisMap& outs, float factor) {
    LineVector<float> padded(outs.size(), 0.0f);
    for (std::size_t i = 0; i < outs.size(); ++i) {
      if (outs[i] >= 0) padded[i] = values[outs[i]] * factor;
    }
    return model_->floats_.emplace_back(std::move(padded)).data();
  }

  NativeModel* const model_;
  std::size_t offset_ = 0;
};

NativeModel::NativeModel(const std::string& weights_path,
                         const std::map<std::string, NativeTensor>& tensors,
                         const NativeConfig& config)
    : config_(Checked(config)),
      hidden_width_(PadToLanes(config.hidden)),
      head_width_(PadToLanes(config.hidden / config.heads)),
      intermediate_width_(PadToLanes(config.intermediate)),
      file_(weights_path, tensors) {
  LoadEmbeddings();
  LoadLayers();
  LoadHead();
}

const float* NativeModel::KeepPadded(const std::vector<float>& values) {
  LineVector<float> padded(values.begin(), values.end());
  padded.resize(PadToLanes(static_cast<int>(values.size())), 0.0f);
  return floats_.emplace_back(std::move(padded)).data();
}

LayerNormWeights NativeModel::LoadNorm(const std::string& name) {
  LayerNormWeights norm;
  norm.gamma = KeepPadded(file_.Floats(name + ".weight", {config_.hidden}));
  norm.beta = KeepPadded(file_.Floats(name + ".bias", {config_.hidden}));
  norm.size = config_.hidden;
  norm.width = hidden_width_;
  norm.epsilon = config_.layer_norm_eps;
  return norm;
}

void NativeModel::LoadEmbeddings() {
  const std::string name = "trunk.embeddings.";
  words_ = file_.Int8(name + "word.weight", {config_.vocab, config_.hidden});
  word_scales_ = file_.Floats(name + "word.weight_scale", {config_.vocab});
  positions_ = file_.Int8(name + "position.weight", {config_.max_positions, config_.hidden});
  position_scales_ = file_.Floats(name + "position.weight_scale", {config_.max_positions});
  embedding_norm_ = LoadNorm(name + "norm");
}

void NativeModel::LoadLayers() {
  const int head_size = config_.hidden / config_.heads;
  const AxisMap hidden = PaddedAxis(config_.hidden);
  const AxisMap heads = PaddedHeads(config_.heads, head_size);
  const AxisMap intermediate = PaddedAxis(config_.intermediate);
  const std::size_t per_layer =
      hidden.size() * heads.size() * 4 + hidden.size() * intermediate.size() * 2;
  packed_ = Buffer(per_layer * config_.layers);
  const float query_factor =
      static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(head_size)));
  LinearPacker packer(this);
  for (int index = 0; index < config_.layers; ++index) {
    const std::string name = "trunk.layers." + std::to_string(index) + ".";
    const int d = config_.hidden;
    const int f = config_.intermediate;
    NativeLayer layer;
    layer.query = packer.Pack(name + "query", d, d, heads, hidden, query_factor);
    layer.key = packer.Pack(name + "key", d, d, heads, hidden, 1.0f);
    layer.value = packer.Pack(name + "value", d, d, heads, hidden, 1.0f);
    layer.attention_output = packer.Pack(name + "attention_output", d, d, hidden, heads, 1.0f);
    layer.attention_norm = LoadNorm(name + "attention_norm");
    layer.up = packer.Pack(name + "up", f, d, intermediate, hidden, 1.0f);
    layer.down =
        packer.Pack(name + "down", d, f, hidden, intermediate, 1.0f, BlocksOf(intermediate_width_));
    layer.output_norm = LoadNorm(name + "output_norm");
    layers_.push_back(layer);
  }
}

void NativeModel::LoadHead() {
  if (file_.Has("head.rows.weight")) {
    const std::vector<float> rows = file_.Floats("head.rows.weight", {2, config_.hidden});
    const std::vector<float> biases = file_.Floats("head.rows.bias", {2});
    std::vector<float> difference(config_.hidden);
    for (int i = 0; i < config_.hidden; ++i) difference[i] = rows[i] - rows[config_.hidden + i];
    head_weight_ = KeepPadded(difference);
    head_bias_ = biases[0] - biases[1];
  } else {
    head_weight_ = KeepPadded(file_.Floats("head.weight", {config_.hidden}));
    head_bias_ = file_.Floats("head.bias", {})[0];
  }
  temperature_ = file_.Floats("temperature", {})[0];
  calibration_bias_ = file_.Floats("calibration_bias", {})[0];
  if (!(temperature_ > 0.0f)) {
    throw std::invalid_argument("the calibration temperature must be above 0; export again");
  }
  if (config_.evidence_size > 0) {
    relevance_ =
        RelevanceHead(file_, config_.hidden, config_.relevance_hidden, config_.evidence_size);
  }
}

}  // namespace modelsat
