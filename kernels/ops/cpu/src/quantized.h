// Linear maps with 8- and 4-bit weights: layouts, and the dot product of bytes that all is built on.
//
// Arithmetic is on integers. Weights are unsigned with a zero point (u8 - 128, u4 - 8), a row of
// activations becomes one or two signed bytes a number, times a scale. Sums of products are exact
// in int32, so that neither their order nor the instructions that form them change a result.
//
// Weights lie in blocks of 16 output channels, [in / 4][16 channels][4 numbers of in], so that 64
// bytes hold four products of each channel, and 16 times that are a tile of AMX. With 4 bits, a
// byte's low half belongs to one such 64 bytes, and its high half to the next.
#pragma once

#include "simd.h"
#include "threads.h"

constexpr int kChannels = 16;                    // in a block of weights
constexpr int kVectors = kChannels / kWidth;     // that hold a block's sums
constexpr int kGroup = 32;                       // 4-bit weights that share a scale
constexpr int kChunk = 64;                       // in_features is padded to a multiple with zeros
constexpr int kBlockBytes = kChannels * kChunk;  // 8-bit weights of a block and chunk: an AMX tile
constexpr int kAhead = 2048;                     // bytes; measured: 15 % less time for one row
constexpr int kZeroPoint8 = 128, kZeroPoint4 = 8;

struct Weights {
  const uint8_t* bytes;
  const void* scales;  // 8 bits: float [channels]; 4 bits: bf16 [blocks, groups, 16]
  const float* bias;   // [channels]
  int bits;
  long in, padded_in, out;

  long num_blocks() const { return (out + kChannels - 1) / kChannels; }
  const uint8_t* block(long b) const { return bytes + b * kChannels * padded_in * bits / 8; }
  const bf16* group_scales(long b) const {
    return (const bf16*)scales + b * (padded_in / kGroup) * kChannels;
  }
};

// Rows of activations as signed bytes. x = scale * byte (one plane), or
// x = scale * (255 * high + low) with both in [-127, 127] (two planes: nearly 16 bits).
struct Activations {
  long rows;
  int planes;
  long group, num_groups;  // numbers that share a scale
  int8_t* bytes;           // where a row lies: Place
  float* scales;           // [num_groups, rows]
  int32_t* offsets;        // [num_groups, rows, planes]: -zero point * sum of the bytes
};

// Where a row's bytes lie: four numbers of in together, then a stride.
struct Place {
  int8_t* bytes;
  long quad_stride, chunk_stride, plane_stride;
};

constexpr float kLimit[] = {0, 127, 255 * 127 + 127};  // the largest number of one and two planes
constexpr float kHigh = 255;

static inline vi splat_quad(const int8_t* at) {
  int32_t quad;
  memcpy(&quad, at, 4);
  return quad - vi{};
}

static inline vi load_bytes(const uint8_t* at) {
  vi out;
  memcpy(&out, at, sizeof out);
  return out;
}

// sum[c] += w[4c] x[4c] + ... + w[4c + 3] x[4c + 3]: w unsigned of BITS bits, x signed.
template <int BITS>
static inline vi dot4(vi sum, vi w, vi x) {
#if defined(__AVX512VNNI__)
  return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
#elif defined(__AVX512BW__)
  if (BITS == 4) {
    __m512i pairs = _mm512_maddubs_epi16((__m512i)w, (__m512i)x);
    return sum + (vi)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
  }
  // maddubs would saturate: even and odd bytes apart, as 16-bit numbers.
  __m512i even = _mm512_srai_epi16(_mm512_slli_epi16((__m512i)x, 8), 8);
  __m512i odd = _mm512_srai_epi16((__m512i)x, 8);
  return sum + (vi)_mm512_madd_epi16((__m512i)(w & 0x00FF00FF), even) +
         (vi)_mm512_madd_epi16(_mm512_srli_epi16((__m512i)w, 8), odd);
#elif defined(__AVX2__)
  if (BITS == 4) {
    __m256i pairs = _mm256_maddubs_epi16((__m256i)w, (__m256i)x);
    return sum + (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  }
  __m256i even = _mm256_srai_epi16(_mm256_slli_epi16((__m256i)x, 8), 8);
  __m256i odd = _mm256_srai_epi16((__m256i)x, 8);
  return sum + (vi)_mm256_madd_epi16((__m256i)(w & 0x00FF00FF), even) +
         (vi)_mm256_madd_epi16(_mm256_srli_epi16((__m256i)w, 8), odd);
#else
  for (int shift = 0; shift < 32; shift += 8) sum += (w >> shift & 255) * (x << (24 - shift) >> 24);
  return sum;
#endif
}

// The whole number that one or two planes' sums stand for, times the activations' scale.
template <int PLANES>
static inline vf as_float(const vi* sums) {
  vf first = __builtin_convertvector(sums[0], vf);
  return PLANES == 1 ? first : first * kHigh + __builtin_convertvector(sums[PLANES - 1], vf);
}

// count numbers of one row to out [rows, channels] of a dtype.
static inline void store_channels(const float* from, void* out, long at, int count, int dtype) {
  for (int i = 0; i < count; i += kWidth) {
    int some = count - i < kWidth ? count - i : kWidth;
    vf x = load(from + i);
    if (dtype == kFloat32)
      store_some(x, (float*)out + at + i, some);
    else if (dtype == kBFloat16)
      store_some(x, (bf16*)out + at + i, some);
    else
      store_some(x, (f16*)out + at + i, some);
  }
}

// quantized_rows.cpp: one row into planes of bytes, with its scales and offsets.
void quantize_row(const void* x, int dtype, long in, long padded_in, const Activations& to,
                  long row, const Place& place, int zero_point);

// quantized_amx.cpp
// Map rows [first_row, end_row) to the channels of blocks [block, end_block), at most kMostBlocks;
// block and first_row even and a multiple of 32.
void amx_blocks(const Weights& weights, const Activations& from, long block, long end_block,
                long first_row, long end_row, void* out, int dtype);
constexpr int kMostBlocks = 8;
