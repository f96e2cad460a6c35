// Linear maps with 8- and 4-bit weights in AMX tiles: 32 rows x 32 channels at a time.
#include "quantized.h"

#if defined(__AMX_INT8__)
#include <vector>

namespace {

constexpr int kTileRows = 16;
constexpr int kPanel = 2 * kChannels;

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};

  TileConfig() {
    for (int tile = 0; tile < 8; tile++) bytes_per_row[tile] = 64, rows[tile] = kTileRows;
  }
};

// oneDNN keeps its own configuration loaded between calls: leave what was found.
class Tiles {
 public:
  Tiles() {
    static const TileConfig ours;
    _tile_storeconfig(found_);
    _tile_loadconfig(&ours);
  }
  ~Tiles() {
    if (found_[0] != 0)
      _tile_loadconfig(found_);
    else
      _tile_release();
  }

 private:
  alignas(64) uint8_t found_[64];
};

// Sums of two tiles of activations with a panel's two blocks: [tile][block][16 rows][16].
typedef int32_t Sums[2][2][kTileRows][kChannels];

static inline void prefetch_tile(const uint8_t* at) {
  for (int i = 0; i < kBlockBytes; i += 64) __builtin_prefetch(at + i);
}

template <bool FROM_MEMORY>
void multiply(const int8_t* a0, const int8_t* a1, const uint8_t* b0, const uint8_t* b1,
              long num_chunks, Sums& sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (long i = 0; i < num_chunks; i++) {
    if (FROM_MEMORY) {
      prefetch_tile(b0 + i * kBlockBytes + kAhead);
      prefetch_tile(b1 + i * kBlockBytes + kAhead);
    }
    _tile_loadd(4, a0 + i * kBlockBytes, 64);
    _tile_loadd(6, b0 + i * kBlockBytes, 64);
    _tile_loadd(7, b1 + i * kBlockBytes, 64);
    _tile_loadd(5, a1 + i * kBlockBytes, 64);
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(1, 4, 7);
    _tile_dpbsud(2, 5, 6);
    _tile_dpbsud(3, 5, 7);
  }
  _tile_stored(0, sums[0][0], 64);
  _tile_stored(1, sums[0][1], 64);
  _tile_stored(2, sums[1][0], 64);
  _tile_stored(3, sums[1][1], 64);
}

// 8-bit weights of a panel with a scale for each channel.
struct Panel {
  const uint8_t *block0, *block1;
  const float* scales;
};

struct Part {  // of the output: rows from first_row on, a panel's channels from `channel` on
  long first_row, end_row, channel;
};

// Sums of bytes to numbers of T, in full or (channels < kPanel) fewer channels.
template <int PLANES, typename T>
void finish(const Sums& sums, const Weights& weights, const Panel& panel, const Activations& from,
            const Part& part, int channels, T* out) {
  const float* bias = weights.bias + part.channel;
  const vf scales[2] = {load(panel.scales), load(panel.scales + kChannels)},
           biases[2] = {load(bias), load(bias + kChannels)};
  long left = part.end_row - part.first_row, most = 2 * kTileRows / PLANES;
  int num_rows = left < most ? left : most, some = channels < kChannels ? channels : kChannels;
  for (int r = 0; r < num_rows; r++) {
    long row = part.first_row + r;
    const int32_t* offsets = from.offsets + row * PLANES;
    T* to = out + row * weights.out + part.channel;
    for (int half = 0; half < 2; half++) {
      vi numbers[PLANES];
      for (int p = 0; p < PLANES; p++) {
        const int32_t* at = sums[PLANES == 2 ? p : r / kTileRows][half][r % kTileRows];
        memcpy(&numbers[p], at, sizeof(vi));
        numbers[p] += offsets[p];
      }
      vf result = as_float<PLANES>(numbers) * (scales[half] * from.scales[row]) + biases[half];
      if (channels == kPanel)
        store(result, to + half * kChannels);
      else if (channels > half * kChannels)
        store_some(result, to + half * kChannels, half ? channels - kChannels : some);
    }
  }
}

// Two tiles of rows, from part.first_row on, of a panel.
template <int PLANES>
void map_tiles(const Weights& weights, const Panel& panel, const Activations& from,
               const Part& part, bool from_memory, void* out, int dtype) {
  long num_chunks = weights.padded_in / kChunk, tile_bytes = kTileRows * weights.padded_in;
  const int8_t* a0 = from.bytes + part.first_row / kTileRows * PLANES * tile_bytes;
  bool two = PLANES == 2 || part.first_row + kTileRows < part.end_row;
  const int8_t* a1 = two ? a0 + tile_bytes : a0;
  alignas(64) Sums sums;
  if (from_memory)
    multiply<true>(a0, a1, panel.block0, panel.block1, num_chunks, sums);
  else
    multiply<false>(a0, a1, panel.block0, panel.block1, num_chunks, sums);
  long left = weights.out - part.channel;
  int channels = left < kPanel ? left : kPanel;
  if (dtype == kFloat32)
    finish<PLANES>(sums, weights, panel, from, part, channels, (float*)out);
  else if (dtype == kBFloat16)
    finish<PLANES>(sums, weights, panel, from, part, channels, (bf16*)out);
  else
    finish<PLANES>(sums, weights, panel, from, part, channels, (f16*)out);
}

// ---- 4-bit weights with a scale for each group, as 8-bit ones with a scale for each channel

// A channel's largest group scale s gives it the scale s * 8 / 127; the number q of a group
// becomes the nearest whole number of those.
constexpr float kStepsOf8 = 127.0f / 8.0f;

void expand_block(const uint8_t* from, const bf16* group_scales, long num_groups, uint8_t* to,
                  float* scales) {
  vf largest = {};
  for (long g = 0; g < num_groups; g++) {
    vf scale = load(group_scales + g * kChannels);
    largest = vmax(vmax(scale, -scale), largest);
  }
  store(largest / kStepsOf8, scales);
  vf inverse = largest > 0.0f ? 2048.0f * kStepsOf8 / largest : vf{};
  const __m512i half = _mm512_set1_epi8(0x0F), zero4 = _mm512_set1_epi16(kZeroPoint4 << 4),
                zero8 = _mm512_set1_epi8((char)kZeroPoint8);
  for (long g = 0; g < num_groups; g++) {
    // The ratio of scales times 2048, below 2**15, twice: for two 16-bit numbers of a channel.
    vi ratio = __builtin_convertvector(load(group_scales + g * kChannels) * inverse, vi);
    __m512i factor = (__m512i)((ratio & 0xFFFF) | ratio << 16);
    for (int i = 0; i < kGroup / 8; i++, from += 64) {
      __m512i both = _mm512_loadu_si512(from);
      __builtin_prefetch(from + kAhead);
      for (int part = 0; part < 2; part++, to += 64) {
        __m512i q = _mm512_and_si512(part ? _mm512_srli_epi16(both, 4) : both, half);
        // (q - 8) * 16 * factor / 2**15, rounded, of even and odd bytes.
        __m512i even = _mm512_slli_epi16(_mm512_and_si512(q, _mm512_set1_epi16(0x00FF)), 4);
        __m512i odd = _mm512_slli_epi16(_mm512_srli_epi16(q, 8), 4);
        even = _mm512_mulhrs_epi16(_mm512_sub_epi16(even, zero4), factor);
        odd = _mm512_mulhrs_epi16(_mm512_sub_epi16(odd, zero4), factor);
        __m512i joined = _mm512_mask_blend_epi8(0xAAAAAAAAAAAAAAAAull, even,
                                                _mm512_slli_epi16(odd, 8));
        _mm512_storeu_si512(to, _mm512_xor_si512(joined, zero8));
      }
    }
  }
}

void expand(const Weights& weights, long block, Panel* panels, int num_panels) {
  static thread_local std::vector<uint8_t> buffer;
  static thread_local std::vector<float> scales;
  long size = kChannels * weights.padded_in;
  buffer.resize(2 * num_panels * size + 64);
  scales.resize(num_panels * kPanel);
  uint8_t* to = (uint8_t*)(((uintptr_t)buffer.data() + 63) / 64 * 64);
  for (int i = 0; i < 2 * num_panels; i++)
    expand_block(weights.block(block + i), weights.group_scales(block + i),
                 weights.padded_in / kGroup, to + i * size, scales.data() + i * kChannels);
  for (int i = 0; i < num_panels; i++)
    panels[i] = {to + 2 * i * size, to + (2 * i + 1) * size, scales.data() + i * kPanel};
}

}  // namespace

void amx_blocks(const Weights& weights, const Activations& from, long block, long end_block,
                long first_row, long end_row, void* out, int dtype) {
  Panel panels[kMostBlocks / 2];
  int num_panels = (end_block - block + 1) / 2;
  if (weights.bits == 4)
    expand(weights, block, panels, num_panels);
  else
    for (int i = 0; i < num_panels; i++)
      panels[i] = {weights.block(block + 2 * i), weights.block(block + 2 * i + 1),
                   (const float*)weights.scales + block * kChannels + i * kPanel};
  Tiles configured;
  for (long row = first_row; row < end_row; row += 2 * kTileRows / from.planes)
    for (int i = 0; i < num_panels; i++) {
      auto map = from.planes == 1 ? map_tiles<1> : map_tiles<2>;
      map(weights, panels[i], from, {row, end_row, block * kChannels + i * kPanel},
          row == first_row && weights.bits == 8, out, dtype);
    }
}

#else

void amx_blocks(const Weights&, const Activations&, long, long, long, long, void*, int) {}

#endif
