// The linear layers: int8 inner products, then a float epilogue on each tile while it is still in
// registers. Included once per instruction set, inside its namespace.
//
//   y[r, n] = float(sum_k a[r, k] w[n, k] - zero_point[r] * column_sum[n]) * (scale[r] * scale[n])
//             + bias[n]                                               the last two steps fused
//
// One group of panels stays in the first-level cache while all rows pass it, and the next group is
// fetched meanwhile.

#ifndef MODELSAT_CPU_KERNEL_GEMM_H_
#define MODELSAT_CPU_KERNEL_GEMM_H_

struct TileTask {
  const std::uint8_t* rows;
  std::int64_t stride;
  const float* row_scales;
  const std::int32_t* zero_points;
  const std::int8_t* weights;
  const std::int8_t* prefetch;
  int depth;
  const std::int32_t* column_sums;
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

template <int kRows, int kPanels, bool kGelu>
void RunTile(const TileTask& given) {
  const TileTask task = given;  // a copy of its own: no store below can change it
  Accumulator total[kRows][kPanels];
  AccumulateTile<kRows, kPanels>(task.rows, task.stride, task.weights, task.depth, task.prefetch,
                                 total);
#pragma GCC unroll 9
  for (int r = 0; r < kRows; ++r) {
    const Lanes row_scale = Broadcast(task.row_scales[r]);
    float* const output = task.output + r * task.output_stride;
#pragma GCC unroll 3
    for (int p = 0; p < kPanels; ++p) {
      const int n = p * kLanes;
      const Lanes sum = ToFloat(total[r][p], task.zero_points[r], task.column_sums + n);
      Store(output + n, Fma(sum, Mul(row_scale, Load(task.scales + n)), Load(task.biases + n)));
    }
  }
  if (kGelu) {
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

template <int kPanels, bool kGelu>
TileFunction TileOf(int rows) {
  static_assert(kMaxTileRows <= 9, "add the tiles of more rows");
  switch (rows) {
    case 1:
      return &RunTile<1, kPanels, kGelu>;
    case 2:
      return &RunTile < kMaxTileRows < 2 ? 1 : 2, kPanels, kGelu > ;
    case 3:
      return &RunTile < kMaxTileRows < 3 ? 1 : 3, kPanels, kGelu > ;
    case 4:
      return &RunTile < kMaxTileRows < 4 ? 1 : 4, kPanels, kGelu > ;
    case 5:
      return &RunTile < kMaxTileRows < 5 ? 1 : 5, kPanels, kGelu > ;
    case 6:
      return &RunTile < kMaxTileRows < 6 ? 1 : 6, kPanels, kGelu > ;
    case 7:
      return &RunTile < kMaxTileRows < 7 ? 1 : 7, kPanels, kGelu > ;
    case 8:
      return &RunTile < kMaxTileRows < 8 ? 1 : 8, kPanels, kGelu > ;
    default:
      return &RunTile < kMaxTileRows < 9 ? 1 : 9, kPanels, kGelu > ;
  }
}

template <bool kGelu>
TileFunction TileOf(int rows, int panels) {
  switch (panels) {
    case 1:
      return TileOf<1, kGelu>(rows);
    case 2:
      return TileOf<2, kGelu>(rows);
    default:
      return TileOf<3, kGelu>(rows);
  }
}

template <bool kGelu>
void RunLinear(const PackedLinear& layer, const QuantizedRows& input, int rows, float* output,
               std::int64_t output_stride, float* ranges) {
  if (rows == 0) return;
  // Tiles of nearly equal height: a last tile of one row would keep the multipliers waiting.
  const int tiles = (rows + kMaxTileRows - 1) / kMaxTileRows;
  const int height = rows / tiles;
  const int taller = rows % tiles;
  const std::int8_t* weights = layer.weights;
  for (int n = 0; n < layer.out; n += kPanelsPerGroup * kLanes) {
    const int left = (layer.out - n) / kLanes;
    const int panels = left < kPanelsPerGroup ? left : kPanelsPerGroup;
    const std::int64_t group_bytes = static_cast<std::int64_t>(layer.in) * panels * kLanes;
    const TileFunction tall = TileOf<kGelu>(height + (taller > 0 ? 1 : 0), panels);
    const TileFunction low = TileOf<kGelu>(height, panels);
    int row = 0;
    for (int t = 0; t < tiles; ++t) {
      TileTask task;
      task.rows = input.values + static_cast<std::int64_t>(row) * input.width;
      task.stride = input.width;
      task.row_scales = input.scales + row;
      task.zero_points = input.zero_points + row;
      task.weights = weights;
      task.prefetch = weights + group_bytes + group_bytes / tiles * t;
      task.depth = layer.in;
      task.column_sums = layer.column_sums + n;
      task.scales = layer.scales + n;
      task.biases = layer.biases + n;
      task.output = output + row * output_stride + n;
      task.output_stride = output_stride;
      task.ranges = kGelu ? ranges + static_cast<std::int64_t>(row) * 2 * kLanes : nullptr;
      (t < taller ? tall : low)(task);
      row += height + (t < taller ? 1 : 0);
    }
    weights += group_bytes;
  }
}

void Linear(const PackedLinear& layer, const QuantizedRows& input, int rows, float* output,
            std::int64_t output_stride) {
  RunLinear<false>(layer, input, rows, output, output_stride, nullptr);
}

void LinearGeluQuantize(const PackedLinear& layer, const QuantizedRows& input, int rows,
                        float* scratch, float* ranges, const QuantizedRows& output) {
  for (int i = 0; i < rows * 2; ++i) Store(ranges + i * kLanes, Zero());
  RunLinear<true>(layer, input, rows, scratch, layer.out, ranges);
  for (int r = 0; r < rows; ++r) {
    const float* const range = ranges + static_cast<std::int64_t>(r) * 2 * kLanes;
    QuantizeRow(scratch + static_cast<std::int64_t>(r) * layer.out, Load(range),
                Load(range + kLanes), layer.out,
                output.values + static_cast<std::int64_t>(r) * output.width, output.scales + r,
                output.zero_points + r);
  }
}

#endif  // MODELSAT_CPU_KERNEL_GEMM_H_
