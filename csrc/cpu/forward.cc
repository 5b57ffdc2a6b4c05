#include "cpu/forward.h"

#include <algorithm>
#include <cmath>

namespace modelsat {

int InstructionsOfPass(const std::int32_t* cu_seqlens, int instructions, int most_tokens, int views,
                       const PassLimits& limits) {
  const int most = std::min(instructions, std::max(1, limits.inquiry_rows / views));
  int padded_tokens = PadToLanes(cu_seqlens[1] - cu_seqlens[0]);
  int count = 1;
  while (count < most) {
    padded_tokens += PadToLanes(cu_seqlens[count + 1] - cu_seqlens[count]);
    if (padded_tokens > limits.tokens || padded_tokens > most_tokens) break;
    ++count;
  }
  return count;
}

void Forward::Score(const std::int32_t* token_ids, const std::int32_t* cu_seqlens, int instructions,
                    const NativeZoo& zoo, float* probabilities) {
  cu_seqlens_ = cu_seqlens;
  instructions_ = instructions;
  tokens_ = TokensBefore(instructions);
  zoo_ = &zoo;
  if (zoo.rows() == 0) return;
  Embed(token_ids);
  const NativeConfig& config = model_.config();
  for (int l = 0; l < config.inject_at; ++l) EarlyLayer(model_.layer(l));

  const int views = config.views;
  const int most = workspace_.limits().inquiry_rows / instructions / views * views;
  for (block_begin_ = 0; block_begin_ < zoo.rows(); block_begin_ += block_rows_) {
    block_rows_ = std::min(most, zoo.rows() - block_begin_);
    StartInquiry();
    for (int l = config.inject_at; l < config.layers; ++l) LateLayer(l, block_begin_ == 0);
    ReadOut(probabilities);
  }
}

void Forward::Embed(const std::int32_t* token_ids) {
  for (int b = 0; b < instructions_; ++b) {
    const int begin = TokensBefore(b);
    kernels_.embed(model_.embedding_norm(), model_.embeddings(), token_ids + begin,
                   TokensBefore(b + 1) - begin,
                   workspace_.state() + std::int64_t{begin} * model_.hidden_width(),
                   workspace_.state_quantized().From(begin));
  }
}

// Rows of the state through one of query (0), key (1) and value (2).
void Forward::Project(const PackedLinear& layer, RowRange rows, int column) {
  const std::int64_t stride = model_.qkv_stride();
  kernels_.linear(layer, workspace_.state_quantized().From(rows.begin), rows.size(),
                  workspace_.qkv() + rows.begin * stride + column * model_.attention_width(),
                  stride);
}

void Forward::EarlyLayer(const NativeLayer& layer) {
  const RowRange rows{0, tokens_};
  Project(layer.query, rows, 0);
  Project(layer.key, rows, 1);
  Project(layer.value, rows, 2);
  const int width = model_.head_width();
  const int attention = model_.attention_width();
  const std::int64_t stride = model_.qkv_stride();
  AttentionArgs args;
  args.query_stride = stride;
  args.value_stride = stride;
  args.head_width = width;
  args.scores = workspace_.scores();
  args.output_stride = attention;
  for (int b = 0; b < instructions_; ++b) {
    const std::int64_t begin = TokensBefore(b);
    args.tokens = TokensBefore(b + 1) - static_cast<int>(begin);
    args.rows = args.tokens;
    args.keys = workspace_.head_keys();
    for (int head = 0; head < model_.config().heads; ++head) {
      const float* const row = workspace_.qkv() + begin * stride + head * width;
      kernels_.pack_keys(row + attention, stride, args.tokens, width, workspace_.head_keys());
      args.queries = row;
      args.values = row + 2 * attention;
      args.output = workspace_.attended() + begin * attention + head * width;
      kernels_.attend(args);
    }
  }
  Finish(layer, rows);
}

void Forward::StartInquiry() {
  const std::int64_t width = model_.hidden_width();
  for (int b = 0; b < instructions_; ++b) {
    std::copy_n(zoo_->start() + block_begin_ * width, block_rows_ * width,
                workspace_.state() + (tokens_ + std::int64_t{b} * block_rows_) * width);
  }
}

// Which evidence counts for each instruction, from the mean of its rows before the last layer.
void Forward::WeighEvidence() {
  if (model_.relevance().size() == 0) return;
  for (int b = 0; b < instructions_; ++b) {
    const std::int64_t begin = TokensBefore(b);
    model_.relevance().Weigh(kernels_, workspace_.state() + begin * model_.hidden_width(),
                             TokensBefore(b + 1) - static_cast<int>(begin),
                             workspace_.relevance_scratch(), workspace_.relevance(b));
  }
}

// In the last layer nobody reads what becomes of the instruction rows: their keys and values are
// enough. In layer inject_at the inquiry rows are the same for every instruction, so their query,
// key and value come out of the zoo.
void Forward::LateLayer(int index, bool first_block) {
  const NativeLayer& layer = model_.layer(index);
  const bool last = index + 1 == model_.config().layers;
  if (last && first_block) WeighEvidence();
  const bool cached = index == model_.config().inject_at;
  const int begin = first_block ? 0 : tokens_;
  const int end = tokens_ + instructions_ * block_rows_;
  Project(layer.query, {last ? tokens_ : begin, cached ? tokens_ : end}, 0);
  Project(layer.key, {begin, cached ? tokens_ : end}, 1);
  Project(layer.value, {begin, cached ? tokens_ : end}, 2);
  AttendLate(index, first_block, first_block && !last);
  Finish(layer, {last ? tokens_ : begin, end});
}

void Forward::AttendLate(int index, bool first_block, bool instruction_rows) {
  const int width = model_.head_width();
  const int attention = model_.attention_width();
  const std::int64_t stride = model_.qkv_stride();
  const int late = index - model_.config().inject_at;
  float* packed = workspace_.late_keys_values(late);
  AttentionArgs args;
  args.query_stride = stride;
  args.value_stride = width;
  args.head_width = width;
  args.own_stride = stride;
  args.memory_stride = zoo_->memory_block();
  args.memory_rows = model_.config().memory_rows;
  args.scores = workspace_.scores();
  args.output_stride = attention;
  for (int b = 0; b < instructions_; ++b) {
    const std::int64_t begin = TokensBefore(b);
    const std::int64_t inquiry_row = tokens_ + std::int64_t{b} * block_rows_;
    const float* const inquiry = late == 0 ? zoo_->first_qkv() + block_begin_ * stride
                                           : workspace_.qkv() + inquiry_row * stride;
    args.tokens = TokensBefore(b + 1) - static_cast<int>(begin);
    for (int head = 0; head < model_.config().heads; ++head) {
      float* const keys = packed;
      float* const values = keys + std::int64_t{width} * PadToLanes(args.tokens);
      packed = values + std::int64_t{width} * args.tokens;
      args.keys = keys;
      args.values = values;
      const float* const row = workspace_.qkv() + begin * stride + head * width;
      if (first_block) {
        kernels_.pack_keys(row + attention, stride, args.tokens, width, keys);
        for (int j = 0; j < args.tokens; ++j) {
          std::copy_n(row + 2 * attention + j * stride, width, values + std::int64_t{j} * width);
        }
      }
      if (instruction_rows) {
        args.queries = row;
        args.rows = args.tokens;
        args.own_keys = nullptr;
        args.own_values = nullptr;
        args.output = workspace_.attended() + begin * attention + head * width;
        kernels_.attend(args);
      }
      args.queries = inquiry + head * width;
      args.rows = block_rows_;
      args.own_keys = args.queries + attention;
      args.own_values = args.queries + 2 * attention;
      args.memory = zoo_->memory(late, head) + block_begin_ * zoo_->memory_block();
      args.output = workspace_.attended() + inquiry_row * attention + head * width;
      kernels_.attend(args);
    }
  }
}

// Output projection, residuals, norms and feed-forward.
void Forward::Finish(const NativeLayer& layer, RowRange rows) {
  const std::int64_t hidden = model_.hidden_width();
  const std::int64_t attention = model_.attention_width();
  const QuantizedRows state_quantized = workspace_.state_quantized().From(rows.begin);
  float* const state = workspace_.state() + rows.begin * hidden;
  float* const projected = workspace_.projected();
  kernels_.quantize(workspace_.attended() + rows.begin * attention, attention, rows.size(),
                    workspace_.attended_quantized());
  kernels_.linear(layer.attention_output, workspace_.attended_quantized(), rows.size(), projected,
                  hidden);
  kernels_.add_norm_quantize(layer.attention_norm, projected, hidden, rows.size(), state,
                             state_quantized);
  // Blocks of nearly equal height
  const int most = workspace_.limits().feed_forward_rows;
  const int blocks = (rows.size() + most - 1) / most;
  for (int i = 0; i < blocks; ++i) {
    const int begin = static_cast<int>(std::int64_t{rows.size()} * i / blocks);
    const int end = static_cast<int>(std::int64_t{rows.size()} * (i + 1) / blocks);
    const QuantizedRows block = state_quantized.From(begin);
    kernels_.linear_gelu_quantize(layer.up, block, end - begin, workspace_.wide_quantized(),
                                  workspace_.wide_block());
    kernels_.linear(layer.down, workspace_.wide_quantized(), end - begin, projected, hidden);
    kernels_.add_norm_quantize(layer.output_norm, projected, hidden, end - begin,
                               state + begin * hidden, block);
  }
}

// Equation (4), calibrated and averaged over the views.
void Forward::ReadOut(float* probabilities) {
  const int views = model_.config().views;
  const int candidates = zoo_->rows() / views;
  const int width = model_.hidden_width();
  const int evidence_width = model_.relevance().padded_size();
  const float* row = workspace_.state() + std::int64_t{tokens_} * width;
  for (int b = 0; b < instructions_; ++b) {
    const float* evidence = zoo_->evidence() + std::int64_t{block_begin_} * evidence_width;
    float* const out = probabilities + std::int64_t{b} * candidates + block_begin_ / views;
    for (int m = 0; m < block_rows_ / views; ++m) {
      double sum = 0.0;
      for (int r = 0; r < views; ++r, row += width, evidence += evidence_width) {
        const double logit = double{kernels_.dot(row, model_.head_weight(), width)} +
                             model_.head_bias() +
                             kernels_.dot(workspace_.relevance(b), evidence, evidence_width);
        sum += 1.0 / (1.0 + std::exp(-(logit / model_.temperature() + model_.calibration_bias())));
      }
      out[m] = static_cast<float>(sum / views);
    }
  }
}

}  // namespace modelsat
