// out = x W^T + bias with 8- or 4-bit weights: the entry, and the kernels for vector registers.
#include "quantized.h"

#include <omp.h>

#include "linear.h"
#include "tiles.h"

namespace {

// ---- Kernels: one block of 16 channels, ROWS rows. Activations lie as [in / 4][ROWS][planes][4].

#if defined(__AVX512F__)
constexpr int kMaxSums = 16;  // of the 32 registers
#else
constexpr int kMaxSums = 4;  // of a block each: AVX2 has 16 registers, and a block takes two
#endif

template <int PLANES, int ROWS>
void start_sums(vi (&sums)[ROWS][kVectors][PLANES], const int32_t* offsets) {
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < kVectors; v++)
      for (int p = 0; p < PLANES; p++) sums[r][v][p] = offsets[r * PLANES + p] - vi{};
}

template <int BITS, int PLANES, int ROWS>
inline void add_products(vi (&sums)[ROWS][kVectors][PLANES], const vi (&w)[kVectors],
                         const int8_t* x) {
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
    for (int p = 0; p < PLANES; p++) {
      vi quad = splat_quad(x + (r * PLANES + p) * 4);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) sums[r][v][p] = dot4<BITS>(sums[r][v][p], w[v], quad);
    }
}

template <int PLANES, int ROWS>
void kernel8(const Weights& weights, const Activations& from, long block, long row, float* out) {
  const uint8_t* at = weights.block(block);
  const int8_t* x = from.bytes + row * PLANES * weights.padded_in;
  vi sums[ROWS][kVectors][PLANES], w[kVectors];
  start_sums<PLANES, ROWS>(sums, from.offsets + row * PLANES);
  for (long k = 0; k < weights.padded_in; k += 4) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; v++) w[v] = load_bytes(at + v * SIMD_BYTES);
    __builtin_prefetch(at + kAhead);
    add_products<8, PLANES, ROWS>(sums, w, x);
    at += 64;
    x += 4 * ROWS * PLANES;
  }
  const float *scales = (const float*)weights.scales + block * kChannels,
              *bias = weights.bias + block * kChannels;
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < kVectors; v++) {
      vf scale = load(scales + v * kWidth) * from.scales[row + r];
      store(as_float<PLANES>(sums[r][v]) * scale + load(bias + v * kWidth),
            out + r * kChannels + v * kWidth);
    }
}

template <int PLANES, int ROWS>
void kernel4(const Weights& weights, const Activations& from, long block, long row, float* out) {
  const uint8_t* at = weights.block(block);
  const bf16* scales = weights.group_scales(block);
  const int8_t* x = from.bytes + row * PLANES * weights.padded_in;
  const float* bias = weights.bias + block * kChannels;
  vf totals[ROWS][kVectors];
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < kVectors; v++) totals[r][v] = load(bias + v * kWidth);
  for (long g = 0; g < from.num_groups; g++) {
    vi sums[ROWS][kVectors][PLANES], low[kVectors], high[kVectors];
    start_sums<PLANES, ROWS>(sums, from.offsets + (g * from.rows + row) * PLANES);
#pragma GCC unroll 4
    for (int i = 0; i < kGroup / 8; i++) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) {
        vi both = load_bytes(at + v * SIMD_BYTES);
        low[v] = both & 0x0F0F0F0F;
        high[v] = both >> 4 & 0x0F0F0F0F;
      }
      __builtin_prefetch(at + kAhead);
      add_products<4, PLANES, ROWS>(sums, low, x);
      add_products<4, PLANES, ROWS>(sums, high, x + 4 * ROWS * PLANES);
      at += 64;
      x += 8 * ROWS * PLANES;
    }
    for (int v = 0; v < kVectors; v++) {
      vf scale = load(scales + v * kWidth);
      for (int r = 0; r < ROWS; r++)
        totals[r][v] +=
            as_float<PLANES>(sums[r][v]) * (scale * from.scales[g * from.rows + row + r]);
    }
    scales += kChannels;
  }
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < kVectors; v++) store(totals[r][v], out + r * kChannels + v * kWidth);
}

typedef void (*Kernel)(const Weights&, const Activations&, long, long, float*);

template <int PLANES>
struct Kernels {
  // More rows at once than registers hold would go through memory.
  template <int ROWS>
  static constexpr int most = ROWS * PLANES <= kMaxSums ? ROWS : kMaxSums / PLANES;
  template <int ROWS>
  static constexpr int most4 = ROWS < 8 ? most<ROWS> : (most<8>);
  static Kernel choose(int bits, int rows) {
    switch (rows) {
      case 1: return bits == 8 ? kernel8<PLANES, 1> : kernel4<PLANES, 1>;
      case 2: return bits == 8 ? kernel8<PLANES, most<2>> : kernel4<PLANES, most4<2>>;
      case 4: return bits == 8 ? kernel8<PLANES, most<4>> : kernel4<PLANES, most4<4>>;
      case 8: return bits == 8 ? kernel8<PLANES, most<8>> : kernel4<PLANES, most4<8>>;
      default: return bits == 8 ? kernel8<PLANES, most<16>> : kernel4<PLANES, most4<16>>;
    }
  }
};

// The largest power of two of rows, of those left, that a kernel takes at once.
long rows_at_once(int bits, int planes, long left) {
  long most = kMaxSums / planes, rows = 1;
  if (bits == 4 && most > 8) most = 8;  // a total beside each sum
  while (rows * 2 <= left && rows * 2 <= most) rows *= 2;
  return rows;
}

// ---- The work of a team

struct Call {
  const void* x;
  void* out;
  long x_stride;
  int dtype;
  bool amx;
};

constexpr long kRowTile = 16;

Place place_of(const Weights& weights, const Activations& to, const Call& call, long row,
               long first_row, long rows) {
  if (call.amx) {  // tiles [in / 64][16 rows][64], one for each plane
    long plane = kRowTile * weights.padded_in;
    int8_t* tile = to.bytes + row / kRowTile * to.planes * plane;
    return {tile + row % kRowTile * kChunk, 4, kRowTile * kChunk, plane};
  }
  long quad = 4 * rows * to.planes;
  int8_t* start = to.bytes + first_row * to.planes * weights.padded_in;
  return {start + (row - first_row) * to.planes * 4, quad, kChunk / 4 * quad, 4};
}

void quantize_rows(const Weights& weights, const Activations& to, const Call& call, long first_row,
                   long rows) {
  size_t size = call.dtype == kFloat32 ? 4 : 2;
  int zero_point = weights.bits == 4 && !call.amx ? kZeroPoint4 : kZeroPoint8;
  for (long row = first_row; row < first_row + rows; row++)
    quantize_row((const char*)call.x + row * call.x_stride * size, call.dtype, weights.in,
                 weights.padded_in, to, row, place_of(weights, to, call, row, first_row, rows),
                 zero_point);
}

void map_block(const Weights& weights, const Activations& from, const Call& call, long block,
               long first_row, long end_row) {
  alignas(64) float results[kRowTile * kChannels];
  long left = weights.out - block * kChannels;
  int channels = left < kChannels ? left : kChannels;
  for (long row = first_row; row < end_row;) {
    long rows = rows_at_once(weights.bits, from.planes, end_row - row);
    Kernel kernel = from.planes == 1 ? Kernels<1>::choose(weights.bits, rows)
                                     : Kernels<2>::choose(weights.bits, rows);
    kernel(weights, from, block, row, results);
    for (long r = 0; r < rows; r++)
      store_channels(results + r * kChannels, call.out,
                     (row + r) * weights.out + block * kChannels, channels, call.dtype);
    row += rows;
  }
}

// Activations beyond this would not stay in the core's cache while they meet every block.
constexpr long kCachedBytes = 512 * 1024;

long num_tiled_rows(long rows) { return (rows + kRowTile - 1) / kRowTile * kRowTile; }

int planes_of(const LinearMap& map, long rows, int dtype) {
  return dtype == kFloat32 || rows <= map.exact_rows ? 2 : 1;
}

// As they lie in scratch.
Activations activations_of(const LinearCall& call, const Weights& weights, bool amx) {
  const int planes = planes_of(call.map, call.rows, call.dtype);
  const bool grouped = weights.bits == 4 && !amx;
  const long group = grouped ? kGroup : weights.padded_in, num_groups = weights.padded_in / group;
  float* scales =
      (float*)(call.scratch + num_tiled_rows(call.rows) * planes * weights.padded_in);
  return {call.rows, planes, group, num_groups, (int8_t*)call.scratch, scales,
          (int32_t*)(scales + call.rows * num_groups)};
}

}  // namespace

size_t quantized_scratch_bytes(const LinearMap& map, long rows) {
  const long padded_in = (map.inputs + kChunk - 1) / kChunk * kChunk;
  return num_tiled_rows(rows) * 2 * padded_in + rows * (padded_in / kGroup) * 4 * 3;
}

// 4-bit weights meet activations with a scale for each group of 32; in tiles, AMX, they become 8-bit
// ones with a scale for each channel, and activations have one for each row.
void quantized_team(const LinearCall& work) {
  const LinearMap& map = work.map;
  const long padded_in = (map.inputs + kChunk - 1) / kChunk * kChunk;
  const Weights weights = {(const uint8_t*)map.weight, map.scales, map.bias,   (int)map.kind,
                           map.inputs,                 padded_in,  map.outputs};
  // As tiles take them, 4-bit weights lose a little, which float32 is not asked to.
  const bool in_tiles = work.rows >= map.tile_rows && (map.kind == kInt8 || work.dtype != kFloat32);
  const Call call = {work.x, work.out, work.x_stride, work.dtype, in_tiles && tiles_allowed()};
  const Activations from = activations_of(work, weights, call.amx);
  long chunk = kCachedBytes / (weights.padded_in * from.planes) / 32 * 32;
  if (chunk < 32) chunk = 32;
  long num_blocks = weights.num_blocks(), step = call.amx ? 2 : 1;  // blocks at once
  // Where there are enough for every thread: longer pieces of each output row are then written, of
  // which few are in a cache.
  if (call.amx && num_blocks >= 16 * omp_get_num_threads()) step = kMostBlocks;
#pragma omp for schedule(static)
  for (long tile = 0; tile < num_tiled_rows(from.rows) / kRowTile; tile++) {
    long end = (tile + 1) * kRowTile < from.rows ? (tile + 1) * kRowTile : from.rows;
    for (long row = tile * kRowTile; row < end;) {
      long rows = rows_at_once(weights.bits, from.planes, end - row);
      quantize_rows(weights, from, call, row, rows);
      row += rows;
    }
  }
  for (long row = 0; row < from.rows; row += chunk) {
    long end = row + chunk < from.rows ? row + chunk : from.rows;
#pragma omp for schedule(static) nowait
    for (long block = 0; block < num_blocks; block += step) {
      long end_block = block + step < num_blocks ? block + step : num_blocks;
      if (call.amx)
        amx_blocks(weights, from, block, end_block, row, end, call.out, call.dtype);
      else
        map_block(weights, from, call, block, row, end);
    }
  }
#pragma omp barrier
}
