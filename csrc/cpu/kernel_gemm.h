// The linear layers: int8 inner products, then a float epilogue on each tile while it is still in
// registers. Included once per instruction set, inside its namespace.
//
//   y[r, n] = float(sum_k a[r, k] w[n, k] - zero_point[r] * channel_sum[n]) * (scale[r] * scale[n])
//             + bias[n]                                               the last two steps fused
//
// The weights of a group of panels stay in the first-level cache while all rows pass them; what is
// read kAhead bytes later is fetched meanwhile, evenly.

#ifndef MODELSAT_CPU_KERNEL_GEMM_H_
#define MODELSAT_CPU_KERNEL_GEMM_H_

constexpr std::int64_t kAhead = 8 * 18432;

struct TileTask {
  const std::uint8_t* rows;
  std::int64_t stride;
  const float* row_scales;       // [rows, blocks]
  const ZeroPoint* zero_points;  // [rows, blocks]
  int blocks;
  const std::int8_t* weights;
  const std::int8_t* prefetch;
  int depth;
  const ChannelSum* channel_sums;  // [blocks, channels]
  int channels;
  const float* scales;
  const float* biases;
  float* output;
  std::int64_t output_stride;
  float* ranges;  // [rows, 2 * kLanes]: lowest and highest value so far, per lane
};

// GELU of kRows rows of a tile, in place, and their lowest and highest values.
template <int kRows, int kPanels>
inline __attribute__((always_inline)) void ApplyGelu(float* output, std::int64_t stride,
                                                     float* ranges) {
  Lanes x[kRows * kPanels];
#pragma GCC unroll 6
  for (int i = 0; i < kRows * kPanels; ++i) {
    x[i] = Load(output + i / kPanels * stride + i % kPanels * kLanes);
  }
  Gelu(x);
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
    float* const range = ranges + r * 2 * kLanes;
    Lanes low = Load(range);
    Lanes high = Load(range + kLanes);
#pragma GCC unroll 3
    for (int p = 0; p < kPanels; ++p) {
      const Lanes y = x[r * kPanels + p];
      low = Min(y, low);
      high = Max(y, high);
      Store(output + r * stride + p * kLanes, y);
    }
    Store(range, low);
    Store(range + kLanes, high);
  }
}

// output = what `total` stands for + bias, or with kMore output += what `total` stands for.
template <int kRows, int kPanels, bool kMore>
inline __attribute__((always_inline)) void StoreTile(const Accumulator (&total)[kRows][kPanels],
                                                     const TileTask& task, int blocks) {
#pragma GCC unroll 3
  for (int p = 0; p < kPanels; ++p) {
    const int n = p * kLanes;
    const Lanes scale = Load(task.scales + n);
    const Lanes bias = Load(task.biases + n);
#pragma GCC unroll 9
    for (int r = 0; r < kRows; ++r) {
      float* const output = task.output + r * task.output_stride + n;
      const Lanes sum = ToFloat(total[r][p], task.zero_points[r * blocks], task.channel_sums + n);
      Store(output, Fma(sum, Mul(Broadcast(task.row_scales[r * blocks]), scale),
                        kMore ? Load(output) : bias));
    }
  }
}

enum class Tile { kWholeRows, kWholeRowsGelu, kBlocks };

template <int kRows, int kPanels, Tile kTile>
void RunTile(const TileTask& given) {
  TileTask task = given;  // a copy of its own: no store below can change it
  Accumulator total[kRows][kPanels];
  if constexpr (kTile == Tile::kBlocks) {
    AccumulateTile<kRows, kPanels>(task.rows, task.stride, task.weights, kBlock, task.prefetch,
                                   total);
    StoreTile<kRows, kPanels, false>(total, task, task.blocks);
    for (int left = task.depth - kBlock; left > 0; left -= kBlock) {
      task.rows += kBlock;
      task.weights += kBlock * kPanels * kLanes;
      task.prefetch += kBlock / 8 * 64 * kFarLines<kRows>;
      ++task.row_scales;
      ++task.zero_points;
      task.channel_sums += task.channels;
      AccumulateTile<kRows, kPanels>(task.rows, task.stride, task.weights,
                                     left < kBlock ? left : kBlock, task.prefetch, total);
      StoreTile<kRows, kPanels, true>(total, task, task.blocks);
    }
  } else {
    AccumulateTile<kRows, kPanels>(task.rows, task.stride, task.weights, task.depth, task.prefetch,
                                   total);
    StoreTile<kRows, kPanels, false>(total, task, 1);
  }
  if constexpr (kTile == Tile::kWholeRowsGelu) {
    int r = 0;
    for (; r + 2 <= kRows; r += 2) {
      ApplyGelu<2, kPanels>(task.output + r * task.output_stride, task.output_stride,
                            task.ranges + r * 2 * kLanes);
    }
    if (r < kRows) {
      ApplyGelu<1, kPanels>(task.output + r * task.output_stride, task.output_stride,
                            task.ranges + r * 2 * kLanes);
    }
  }
}

using TileFunction = void (*)(const TileTask&);

template <int kPanels, Tile kTile>
TileFunction TileOf(int rows) {
  static_assert(kMaxTileRows <= 9, "add the tiles of more rows");
  switch (rows) {
    case 1:
      return &RunTile<1, kPanels, kTile>;
    case 2:
      return &RunTile < kMaxTileRows < 2 ? 1 : 2, kPanels, kTile > ;
    case 3:
      return &RunTile < kMaxTileRows < 3 ? 1 : 3, kPanels, kTile > ;
    case 4:
      return &RunTile < kMaxTileRows < 4 ? 1 : 4, kPanels, kTile > ;
    case 5:
      return &RunTile < kMaxTileRows < 5 ? 1 : 5, kPanels, kTile > ;
    case 6:
      return &RunTile < kMaxTileRows < 6 ? 1 : 6, kPanels, kTile > ;
    case 7:
      return &RunTile < kMaxTileRows < 7 ? 1 : 7, kPanels, kTile > ;
    case 8:
      return &RunTile < kMaxTileRows < 8 ? 1 : 8, kPanels, kTile > ;
    default:
      return &RunTile < kMaxTileRows < 9 ? 1 : 9, kPanels, kTile > ;
  }
}

template <Tile kTile>
TileFunction TileOf(int rows, int panels) {
  return panels == 1 ? TileOf<1, kTile>(rows) : TileOf<kPanelsPerGroup, kTile>(rows);
}

// Rows in tiles of nearly equal height: a last tile of one row would keep the multipliers waiting.
struct Tiles {
  explicit Tiles(int rows)
      : count((rows + kMaxTileRows - 1) / kMaxTileRows), low(rows / count), taller(rows % count) {}
  int HeightOf(int tile) const { return low + (tile < taller ? 1 : 0); }

  int count;
  int low;
  int taller;  // the first ones, by a row
};

// Multiplies tiles of rows by groups of panels of one layer.
template <Tile kTile>
class TileRunner {
 public:
  TileRunner(const PackedLinear& layer, const QuantizedRows& input, const Tiles& tiles,
             std::int64_t output_stride, float* ranges)
      : layer_(layer), input_(input), tiles_(tiles) {
    task_.stride = input.width;
    task_.depth = layer.in;
    task_.blocks = layer.blocks;
    task_.channels = layer.out;
    task_.output_stride = output_stride;
    task_.ranges = ranges;
  }

  // Goes to the group that begins with channel n and returns how many channels it has.
  int SetGroup(int n) {
    const int panels = PanelsOfGroup((layer_.out - n) / kLanes);
    if (panels != panels_) {
      panels_ = panels;
      share_ = std::int64_t{layer_.in} * panels * kLanes / tiles_.count;
      tall_ = TileOf<kTile>(tiles_.low + 1, panels);
      low_ = TileOf<kTile>(tiles_.low, panels);
    }
    task_.weights = layer_.weights + static_cast<std::int64_t>(layer_.in) * n;
    task_.channel_sums = layer_.channel_sums + n;
    task_.scales = layer_.scales + n;
    task_.biases = layer_.biases + n;
    return panels * kLanes;
  }

  void Run(int tile, int row, float* output) {
    const std::int64_t block = static_cast<std::int64_t>(row) * input_.blocks;
    task_.rows = input_.values + static_cast<std::int64_t>(row) * input_.width;
    task_.row_scales = input_.scales + block;
    task_.zero_points = input_.zero_points + block;
    task_.prefetch = task_.weights + kAhead + share_ * tile;
    task_.output = output;
    (tile < tiles_.taller ? tall_ : low_)(task_);
  }

 private:
  const PackedLinear layer_;
  const QuantizedRows input_;
  const Tiles tiles_;
  TileTask task_{};
  int panels_ = 0;
  std::int64_t share_ = 0;  // of the fetching ahead, in bytes
  TileFunction tall_ = nullptr;
  TileFunction low_ = nullptr;
};

template <Tile kTile>
void RunLinear(const PackedLinear& layer, const QuantizedRows& input, int rows, float* output,
               std::int64_t output_stride) {
  const Tiles tiles(rows);
  TileRunner<kTile> runner(layer, input, tiles, output_stride, nullptr);
  int channels = 0;
  for (int n = 0; n < layer.out; n += channels) {
    channels = runner.SetGroup(n);
    int row = 0;
    for (int t = 0; t < tiles.count; ++t) {
      runner.Run(t, row, output + row * output_stride + n);
      row += tiles.HeightOf(t);
    }
  }
}

void Linear(const PackedLinear& layer, const QuantizedRows& input, int rows, float* output,
            std::int64_t output_stride) {
  if (rows == 0) return;
  if (layer.blocks > 1) {
    RunLinear<Tile::kBlocks>(layer, input, rows, output, output_stride);
  } else {
    RunLinear<Tile::kWholeRows>(layer, input, rows, output, output_stride);
  }
}

void LinearGeluQuantize(const PackedLinear& layer, const QuantizedRows& input, int rows,
                        const QuantizedRows& output, float* scratch) {
  if (rows == 0) return;
  alignas(64) float ranges[kMaxTileRows * 2 * kLanes];
  const Tiles tiles(rows);
  TileRunner<Tile::kWholeRowsGelu> runner(layer, input, tiles, kBlock, ranges);
  for (int block = 0; block < output.blocks; ++block) {
    const int begin = block * kBlock;
    const int width = output.WidthOf(block);
    int row = 0;
    for (int t = 0; t < tiles.count; ++t) {
      const int height = tiles.HeightOf(t);
      for (int i = 0; i < height * 2; ++i) Store(ranges + i * kLanes, Zero());
      int channels = 0;
      for (int n = 0; n < width; n += channels) {
        channels = runner.SetGroup(begin + n);
        runner.Run(t, row, scratch + n);
      }
      for (int r = 0; r < height; ++r) {
        const float* const range = ranges + r * 2 * kLanes;
        const std::int64_t place = static_cast<std::int64_t>(row + r) * output.blocks + block;
        const RowScale scale = ChooseScale(MinLanes(Load(range)), MaxLanes(Load(range + kLanes)),
                                           output.scales + place, output.zero_points + place);
        RoundRow(scratch + r * kBlock, scale, width,
                 output.values + static_cast<std::int64_t>(row + r) * output.width + begin);
      }
      row += height;
    }
  }
}

#endif  // MODELSAT_CPU_KERNEL_GEMM_H_
