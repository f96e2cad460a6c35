// Linear maps with 8- and 4-bit weights in AMX tiles: 32 rows x 32 channels at a time.
#include "quantized.h"

#if defined(__AMX_INT8__)
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

bool amx_available() {
  // Linux gives a process the tiles' registers when it asks for them.
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
}

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

void multiply(const int8_t* a0, const int8_t* a1, const uint8_t* b0, const uint8_t* b1,
              long num_chunks, Sums& sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (long i = 0; i < num_chunks; i++) {
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

template <int PLANES>
void finish_row(const int32_t* high, const int32_t* low, const Activations& from, long row,
                const float* scales, const float* bias, float* out) {
  const int32_t* offsets = from.offsets + row * PLANES;
  vi sums[PLANES];
  memcpy(&sums[0], high, sizeof sums[0]);
  sums[0] += offsets[0];
  if (PLANES == 2) {
    memcpy(&sums[PLANES - 1], low, sizeof sums[0]);
    sums[PLANES - 1] += offsets[PLANES - 1];
  }
  store(as_float<PLANES>(sums) * (load(scales) * from.scales[row]) + load(bias), out);
}

template <int PLANES>
void map_panel(const Weights& weights, const Panel& panel, const Activations& from, long block,
               long first_row, long end_row, void* out, int dtype) {
  long num_chunks = weights.padded_in / kChunk, tile_bytes = kTileRows * weights.padded_in;
  constexpr int kRows = 2 * kTileRows / PLANES;  // rows of two tiles
  alignas(64) Sums sums;
  alignas(64) float result[kChannels];
  for (long row = first_row; row < end_row; row += kRows) {
    const int8_t* a0 = from.bytes + row / kTileRows * PLANES * tile_bytes;
    bool two = PLANES == 2 || row + kTileRows < end_row;
    multiply(a0, two ? a0 + tile_bytes : a0, panel.block0, panel.block1, num_chunks, sums);
    for (int half = 0; half < 2; half++) {
      long channel = block * kChannels + half * kChannels, left = weights.out - channel;
      if (left <= 0) break;
      for (long r = 0; r < kRows && row + r < end_row; r++) {
        const int32_t *high = sums[r / kTileRows][half][r % kTileRows],
                      *low = sums[1][half][r % kTileRows];
        finish_row<PLANES>(high, low, from, row + r, panel.scales + half * kChannels,
                           weights.bias + channel, result);
        store_channels(result, out, (row + r) * weights.out + channel,
                       left < kChannels ? left : kChannels, dtype);
      }
    }
  }
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

Panel expand(const Weights& weights, long block, float* scales) {
  static thread_local std::vector<uint8_t> buffer;
  long size = kChannels * weights.padded_in;
  buffer.resize(2 * size + 64);
  uint8_t* start = (uint8_t*)(((uintptr_t)buffer.data() + 63) / 64 * 64);
  for (int half = 0; half < 2; half++)
    expand_block(weights.block(block + half), weights.group_scales(block + half),
                 weights.padded_in / kGroup, start + half * size, scales + half * kChannels);
  return {start, start + size, scales};
}

}  // namespace

void amx_panel(const Weights& weights, const Activations& from, long block, long first_row,
               long end_row, void* out, int dtype) {
  alignas(64) float scales[kPanel];
  Panel panel = weights.bits == 4
                    ? expand(weights, block, scales)
                    : Panel{weights.block(block), weights.block(block + 1),
                            (const float*)weights.scales + block * kChannels};
  Tiles configured;
  if (from.planes == 1)
    map_panel<1>(weights, panel, from, block, first_row, end_row, out, dtype);
  else
    map_panel<2>(weights, panel, from, block, first_row, end_row, out, dtype);
}

#else

bool amx_available() { return false; }

void amx_panel(const Weights&, const Activations&, long, long, long, void*, int) {}

#endif

// Whether AMX tiles can be used: compiled for, and granted by the operating system.
EXPORT void find_tiles(int* answer) { *answer = amx_available(); }
