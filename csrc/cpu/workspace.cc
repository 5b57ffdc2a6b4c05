#include "cpu/workspace.h"

#include <algorithm>

namespace modelsat {
namespace {

constexpr int kTokensPerPass = 128;
constexpr int kInquiryRowsPerPass = 256;
constexpr int kFeedForwardRows = 96;

struct QuantizedPlaces {
  QuantizedPlaces(Layout* layout, std::size_t rows, std::size_t width, int blocks = 1)
      : values(layout->Reserve<std::uint8_t>(rows * width)),
        scales(layout->Reserve<float>(rows * blocks)),
        zero_points(layout->Reserve<ZeroPoint>(rows * blocks)),
        width(static_cast<int>(width)),
        blocks(blocks) {}

  QuantizedRows In(const Buffer& buffer) const {
    return {buffer.at<std::uint8_t>(values), buffer.at<float>(scales),
            buffer.at<ZeroPoint>(zero_points), width, blocks};
  }

  std::size_t values;
  std::size_t scales;
  std::size_t zero_points;
  int width;
  int blocks;
};

}  // namespace

PassLimits LimitsOf(const NativeConfig& config) {
  PassLimits limits;
  limits.tokens = std::max(kTokensPerPass, PadToLanes(config.max_instruction_tokens));
  limits.inquiry_rows = std::max(kInquiryRowsPerPass, config.views);
  limits.feed_forward_rows = kFeedForwardRows;
  return limits;
}

Workspace::Workspace(const NativeModel& model) : limits_(LimitsOf(model.config())) {
  const std::size_t rows = std::size_t(limits_.tokens) + limits_.inquiry_rows;
  const std::size_t hidden = model.hidden_width();
  const std::size_t attention = model.attention_width();
  const std::size_t intermediate = model.intermediate_width();
  const std::size_t feed_forward_rows = limits_.feed_forward_rows;
  // keys are padded, values are not: at most twice the padded tokens
  const std::size_t keys_values = 2 * std::size_t(limits_.tokens) * model.head_width();
  late_stride_ = static_cast<std::int64_t>(keys_values) * model.config().heads;

  Layout layout;
  state_ = layout.Reserve<float>(rows * hidden);
  qkv_ = layout.Reserve<float>(rows * model.qkv_stride());
  attended_ = layout.Reserve<float>(rows * attention);
  projected_ = layout.Reserve<float>(rows * hidden);
  wide_block_ = layout.Reserve<float>(feed_forward_rows * kBlock);
  head_keys_ = layout.Reserve<float>(keys_values / 2);
  late_keys_values_ = layout.Reserve<float>(late_stride_ * model.late_layers());
  scores_ =
      layout.Reserve<float>(AttentionScratchFloats(limits_.tokens, model.config().memory_rows));
  // an instruction of one token takes kLanes of the padded tokens
  relevance_width_ = model.relevance().padded_size();
  relevance_ = layout.Reserve<float>(std::size_t(limits_.tokens) / kLanes * relevance_width_);
  relevance_scratch_ = layout.Reserve<float>(model.relevance().scratch_floats());
  const QuantizedPlaces state(&layout, rows, hidden);
  const QuantizedPlaces attended(&layout, rows, attention);
  const QuantizedPlaces wide(&layout, feed_forward_rows, intermediate,
                             BlocksOf(model.intermediate_width()));
  buffer_ = Buffer(layout.bytes());
  state_quantized_ = state.In(buffer_);
  attended_quantized_ = attended.In(buffer_);
  wide_quantized_ = wide.In(buffer_);
}

}  // namespace modelsat
