// The linear layers on AMX tiles. Integer sums are exact and the float steps those of
// kernel_gemm.h, so that the bits are the same. Included by kernels_amx.cc, inside its namespace.
//
// A panel of weights passes all rows of a chunk, one tile of weights after another: none is read
// twice. The rows' tiles stay in the first-level cache.

#ifndef MODELSAT_CPU_KERNEL_GEMM_AMX_H_
#define MODELSAT_CPU_KERNEL_GEMM_AMX_H_

constexpr int kChunkRows = kSumTiles * kTileRows;

// Rows in tiles of one height. The last tile begins early enough to end with the rows; what it has
// in common with the one before is computed twice.
struct RowTiles {
  explicit RowTiles(int rows)
      : count((rows + kTileRows - 1) / kTileRows),
        height((rows + count - 1) / count),
        last(rows - height) {}
  int Begin(int tile) const { return tile * height < last ? tile * height : last; }

  int count;
  int height;
  int last;
};

// The rows of a layer's input that are worked on together, and a block of their values.
struct RowBlock {
  const std::uint8_t* values;
  std::int64_t stride;
  const float* scales;           // from row to row: `blocks`
  const ZeroPoint* zero_points;  // the same
  int blocks;
  int rows;
  int depth;
};

// kLanes channels of a layer, and a block of their inputs.
struct WeightPanel {
  WeightPanel() = default;
  WeightPanel(const PackedLinear& layer, int channel, int block) {
    const int panels_before = channel / kLanes % kPanelsPerGroup;
    const int in_group = PanelsOfGroup(layer.out / kLanes - channel / kLanes + panels_before);
    const int first = channel - (in_group == 1 ? 0 : panels_before * kLanes);
    stride = std::int64_t{in_group} * kTileBytes;
    ahead = static_cast<std::int64_t>(layer.in) * kPanelsPerGroup * kLanes;
    weights = layer.weights + static_cast<std::int64_t>(layer.in) * first +
              (channel - first) / kLanes * kTileBytes + block * (kBlock / 4) * stride;
    sums = layer.channel_sums + static_cast<std::int64_t>(block) * layer.out + channel;
    scales = layer.scales + channel;
    biases = layer.biases + channel;
  }

  const std::int8_t* weights;
  std::int64_t stride;  // from four inputs to the next four
  std::int64_t ahead;   // weights so many bytes on are fetched
  const ChannelSum* sums;
  const float* scales;
  const float* biases;
};

// sums[r] = the inner products of row r and the panel's channels.
template <int... kTiles>
void SumTiles(const RowBlock& rows, const RowTiles& tiles, const WeightPanel& panel,
              std::int32_t* sums) {
  (ClearTile<kTiles>(), ...);
  const std::uint8_t* const begin[] = {rows.values + tiles.Begin(kTiles) * rows.stride...};
  const std::int64_t stride = rows.stride;
  const std::int8_t* weights = panel.weights;
  for (int k = 0; k < rows.depth; k += kTileBytes) {
    ReadTile<kWeightTile>(weights, panel.stride);
    ((ReadTile<kRowTile>(begin[kTiles] + k, stride), MultiplyTiles<kTiles>()), ...);
    const char* const ahead = reinterpret_cast<const char*>(weights + panel.ahead);
#pragma GCC unroll 16
    for (int line = 0; line < kTileRows; ++line) {
      _mm_prefetch(ahead + line * panel.stride, _MM_HINT_T1);
    }
    weights += panel.stride * kTileRows;
  }
  (WriteTile<kTiles>(sums + tiles.Begin(kTiles) * kLanes, kLanes * sizeof(std::int32_t)), ...);
}

void SumPanel(const RowBlock& rows, const RowTiles& tiles, const WeightPanel& panel,
              std::int32_t* sums) {
  static_assert(kSumTiles == 6, "one case per number of tiles");
  switch (tiles.count) {
    case 1:
      return SumTiles<0>(rows, tiles, panel, sums);
    case 2:
      return SumTiles<0, 1>(rows, tiles, panel, sums);
    case 3:
      return SumTiles<0, 1, 2>(rows, tiles, panel, sums);
    case 4:
      return SumTiles<0, 1, 2, 3>(rows, tiles, panel, sums);
    case 5:
      return SumTiles<0, 1, 2, 3, 4>(rows, tiles, panel, sums);
    default:
      return SumTiles<0, 1, 2, 3, 4, 5>(rows, tiles, panel, sums);
  }
}

// What the sums of a row stand for + `start`.
inline __attribute__((always_inline)) Lanes Dequantize(const RowBlock& rows, std::int64_t row,
                                                       const std::int32_t* sums,
                                                       const ChannelSum* channel_sums, Lanes scale,
                                                       Lanes start) {
  const Accumulator total{_mm512_load_si512(sums + row * kLanes)};
  const std::int64_t place = row * rows.blocks;
  return Fma(ToFloat(total, rows.zero_points[place], channel_sums),
             Mul(Broadcast(rows.scales[place]), scale), start);
}

template <bool kMore>
void StoreSums(const RowBlock& given, const WeightPanel& panel, const std::int32_t* sums,
               float* output, std::int64_t stride) {
  const RowBlock rows = given;  // a copy of its own: no store below can change it
  const ChannelSum* const channel_sums = panel.sums;
  const Lanes scale = Load(panel.scales);
  const Lanes bias = Load(panel.biases);
#pragma GCC unroll 4
  for (std::int64_t r = 0; r < rows.rows; ++r) {
    float* const place = output + r * stride;
    Store(place, Dequantize(rows, r, sums, channel_sums, scale, kMore ? Load(place) : bias));
  }
}

template <int kRows>
inline __attribute__((always_inline)) void StoreGelu(const RowBlock& rows, int row,
                                                     const WeightPanel& panel,
                                                     const std::int32_t* sums, float* output) {
  const Lanes scale = Load(panel.scales);
  const Lanes bias = Load(panel.biases);
  Lanes x[kRows];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) x[r] = Dequantize(rows, row + r, sums, panel.sums, scale, bias);
  Gelu(x);
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) Store(output + (row + r) * kBlock, x[r]);
}

void StoreGelus(const RowBlock& given, const WeightPanel& panel, const std::int32_t* sums,
                float* output) {
  const RowBlock rows = given;
  int r = 0;
  for (; r + 4 <= rows.rows; r += 4) StoreGelu<4>(rows, r, panel, sums, output);
  for (; r < rows.rows; ++r) StoreGelu<1>(rows, r, panel, sums, output);
}

// Calls work(first row, rows) for chunks of nearly equal height that fit the tile registers.
template <typename Work>
void ForEachChunk(int rows, const Work& work) {
  const int chunks = (rows + kChunkRows - 1) / kChunkRows;
  for (int i = 0; i < chunks; ++i) {
    const int begin = static_cast<int>(std::int64_t{rows} * i / chunks);
    work(begin, static_cast<int>(std::int64_t{rows} * (i + 1) / chunks) - begin);
  }
}

RowBlock BlockOf(const QuantizedRows& input, int row, int rows, int block) {
  const QuantizedRows from = input.From(row);
  return {from.values + block * kBlock, input.width,  from.scales + block,
          from.zero_points + block,     input.blocks, rows,
          input.WidthOf(block)};
}

void LinearAmx(const PackedLinear& layer, const QuantizedRows& input, int rows, float* output,
               std::int64_t output_stride) {
  if (layer.in % kTileBytes != 0) return Linear(layer, input, rows, output, output_stride);
  alignas(64) std::int32_t sums[kChunkRows * kLanes];
  ForEachChunk(rows, [&](int first, int count) {
    const RowTiles tiles(count);
    const TileShapes shapes(tiles.height);
    for (int block = 0; block < layer.blocks; ++block) {
      const RowBlock block_rows = BlockOf(input, first, count, block);
      const auto store = block == 0 ? StoreSums<false> : StoreSums<true>;
      for (int n = 0; n < layer.out; n += kLanes) {
        const WeightPanel panel(layer, n, block);
        SumPanel(block_rows, tiles, panel, sums);
        store(block_rows, panel, sums, output + first * output_stride + n, output_stride);
      }
    }
  });
}

void LinearGeluQuantizeAmx(const PackedLinear& layer, const QuantizedRows& input, int rows,
                           const QuantizedRows& output, float* scratch) {
  if (layer.in % kTileBytes != 0) return LinearGeluQuantize(layer, input, rows, output, scratch);
  alignas(64) std::int32_t sums[kChunkRows * kLanes];
  ForEachChunk(rows, [&](int first, int count) {
    const RowTiles tiles(count);
    const TileShapes shapes(tiles.height);
    const RowBlock block_rows = BlockOf(input, first, count, 0);
    for (int block = 0; block < output.blocks; ++block) {
      for (int n = 0; n < output.WidthOf(block); n += kLanes) {
        const WeightPanel panel(layer, block * kBlock + n, 0);
        SumPanel(block_rows, tiles, panel, sums);
        StoreGelus(block_rows, panel, sums, scratch + n);
      }
      QuantizeBlock(scratch, kBlock, count, output.From(first), block);
    }
  });
}

#endif  // MODELSAT_CPU_KERNEL_GEMM_AMX_H_
