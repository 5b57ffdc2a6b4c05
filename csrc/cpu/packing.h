// Bringing the int8 weights of a linear layer into the order that the GEMM reads.

#ifndef MODELSAT_CPU_PACKING_H_
#define MODELSAT_CPU_PACKING_H_

#include <cstdint>
#include <vector>

#include "cpu/kernels.h"

namespace modelsat {

// Padded index -> index in the stored tensor, or -1 for padding.
using AxisMap = std::vector<int>;

// Index i for i < size, then padding up to a multiple of kLanes.
AxisMap PaddedAxis(int size);

// Each head's `head_size` features, then padding up to a multiple of kLanes.
AxisMap PaddedHeads(int heads, int head_size);

// Writes outs.size() * ins.size() packed weights to `packed` and the sums of each output channel's
// weights to `channel_sums` [blocks, outs.size()]. `weights` is [out, in], row-major, `in` its row
// length.
void PackWeights(const std::int8_t* weights, int in, const AxisMap& outs, const AxisMap& ins,
                 std::int8_t* packed, int blocks, ChannelSum* channel_sums);

}  // namespace modelsat

#endif  // MODELSAT_CPU_PACKING_H_
