#include "cpu/packing.h"

#include <algorithm>

namespace modelsat {

AxisMap PaddedAxis(int size) {
  AxisMap map(PadToLanes(size), -1);
  for (int i = 0; i < size; ++i) map[i] = i;
  return map;
}

AxisMap PaddedHeads(int heads, int head_size) {
  const int width = PadToLanes(head_size);
  AxisMap map(heads * width, -1);
  for (int h = 0; h < heads; ++h) {
    for (int i = 0; i < head_size; ++i) map[h * width + i] = h * head_size + i;
  }
  return map;
}

void PackWeights(const std::int8_t* weights, int in, const AxisMap& outs, const AxisMap& ins,
                 std::int8_t* packed, int blocks, ChannelSum* channel_sums) {
  constexpr int kInputsPerStep = 4;
  const int panels_in_all = static_cast<int>(outs.size()) / kLanes;
  int panels = 0;
  for (int first = 0; first < panels_in_all; first += panels) {
    panels = PanelsOfGroup(panels_in_all - first);
    const int channels = panels * kLanes;
    for (int c = 0; c < channels; ++c) {
      const int out = outs[first * kLanes + c];
      std::vector<std::int32_t> sums(blocks, 0);
      for (std::size_t k = 0; k < ins.size(); ++k) {
        const bool padding = out < 0 || ins[k] < 0;
        const std::int8_t weight =
            padding ? std::int8_t{0} : weights[static_cast<std::int64_t>(out) * in + ins[k]];
        const std::size_t step = k / kInputsPerStep;
        packed[(step * channels + c) * kInputsPerStep + k % kInputsPerStep] = weight;
        sums[blocks == 1 ? 0 : k / kBlock] += weight;
      }
      for (int block = 0; block < blocks; ++block) {
        channel_sums[block * outs.size() + first * kLanes + c] = ChannelSum::Of(sums[block]);
      }
    }
    packed += static_cast<std::int64_t>(ins.size()) * channels;
  }
}

}  // namespace modelsat
