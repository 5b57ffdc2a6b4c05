// The relevance head: what an instruction is about weighs what a candidate has shown on each task.

#ifndef MODELSAT_CPU_RELEVANCE_H_
#define MODELSAT_CPU_RELEVANCE_H_

#include <cstdint>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/kernels.h"
#include "cpu/weights_file.h"

namespace modelsat {

// relevance(x) = W2 gelu(W1 (xbar - center) * scale + b1) + b2, with xbar the mean of the
// instruction's rows before the last layer. A few thousand products per instruction: in float, with
// the weights dequantised when they are loaded.
class RelevanceHead {
 public:
  // No head: size() is 0.
  RelevanceHead() = default;

  // `hidden` D, `width` of the head's own hidden layer, `evidence` E. Throws as WeightsFile does.
  RelevanceHead(const WeightsFile& file, int hidden, int width, int evidence);

  int size() const { return evidence_; }  // E
  int padded_size() const { return PadToLanes(evidence_); }
  int scratch_floats() const { return padded_hidden_ + padded_width_; }

  // Relevance float [padded_size], zeros in the padding, of rows [tokens, padded hidden]. `scratch`
  // has scratch_floats() floats.
  void Weigh(const Kernels& kernels, const float* rows, int tokens, float* scratch,
             float* relevance) const;

 private:
  int hidden_ = 0;
  int padded_hidden_ = 0;
  int width_ = 0;
  int padded_width_ = 0;
  int evidence_ = 0;
  std::vector<float> center_;         // [hidden]
  std::vector<float> scale_;          // [hidden]
  LineVector<float> hidden_weights_;  // [width, padded hidden]
  std::vector<float> hidden_biases_;  // [width]
  LineVector<float> task_weights_;    // [evidence, padded width]
  std::vector<float> task_biases_;    // [evidence]
};

}  // namespace modelsat

#endif  // MODELSAT_CPU_RELEVANCE_H_
