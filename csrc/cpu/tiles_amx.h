// The eight tile registers of AMX, each up to 16 rows of 64 bytes. Included by kernels_amx.cc,
// inside its namespace. Not the compiler's intrinsics: theirs do not say that a tile is stored to
// memory.

#ifndef MODELSAT_CPU_TILES_AMX_H_
#define MODELSAT_CPU_TILES_AMX_H_

inline constexpr int kTileRows = 16;
inline constexpr int kTileBytes = 64;  // of a row

// What each tile register holds.
inline constexpr int kSumTiles = 6;  // registers 0 to 5: kLanes int32 per row
inline constexpr int kRowTile = 6;   // kTileBytes uint8 per row
inline constexpr int kWeightTile = 7;

// The shapes of the tile registers, for as long as it lives: `rows` rows of sums and activations.
class TileShapes {
 public:
  explicit TileShapes(int rows) {
    struct {
      std::uint8_t palette;
      std::uint8_t start_row;
      std::uint8_t reserved[14];
      std::uint16_t row_bytes[16];
      std::uint8_t rows[16];
    } shapes = {};
    static_assert(sizeof(shapes) == 64, "the layout that the processor reads");
    shapes.palette = 1;
    for (int tile = 0; tile < 8; ++tile) {
      shapes.row_bytes[tile] = kTileBytes;
      shapes.rows[tile] = static_cast<std::uint8_t>(tile == kWeightTile ? kTileRows : rows);
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(shapes));
  }
  ~TileShapes() { __asm__ volatile("tilerelease" : :); }
  TileShapes(const TileShapes&) = delete;
  TileShapes& operator=(const TileShapes&) = delete;
};

template <int kTile>
inline __attribute__((always_inline)) void ClearTile() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

template <int kTile>
inline __attribute__((always_inline)) void ReadTile(const void* rows, std::int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(rows), "r"(stride), "i"(kTile));
}

template <int kTile>
inline __attribute__((always_inline)) void WriteTile(void* rows, std::int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                   :
                   : "r"(rows), "r"(stride), "i"(kTile)
                   : "memory");
}

// Each sum += the inner product of a row of uint8 and a channel's int8 weights, which lie as
// PackedLinear says.
template <int kSum>
inline __attribute__((always_inline)) void MultiplyTiles() {
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0"
                   :
                   : "i"(kSum), "i"(kRowTile), "i"(kWeightTile));
}

#endif  // MODELSAT_CPU_TILES_AMX_H_
