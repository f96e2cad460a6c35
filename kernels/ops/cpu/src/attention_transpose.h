// A square matrix of 32-bit numbers in kWidth vectors, transposed in place.
#pragma once

#include "simd.h"

#if defined(__SSE2__)
#if defined(__AVX512F__)
#define LANES(name) _mm512_##name
typedef __m512 Lanes;
typedef __m512d DoubleLanes;
#elif defined(__AVX2__)
#define LANES(name) _mm256_##name
typedef __m256 Lanes;
typedef __m256d DoubleLanes;
#else
#define LANES(name) _mm_##name
typedef __m128 Lanes;
typedef __m128d DoubleLanes;
#endif

// Within each 128 bits: row 4 g + c comes to hold columns c, c + 4, c + 8 ... of rows 4 g to 4 g + 3.
static inline void transpose_lanes(vf* rows) {
#pragma GCC unroll 4
  for (int g = 0; g < kWidth; g += 4) {
    vf* r = rows + g;
    Lanes low01 = LANES(unpacklo_ps)((Lanes)r[0], (Lanes)r[1]);
    Lanes high01 = LANES(unpackhi_ps)((Lanes)r[0], (Lanes)r[1]);
    Lanes low23 = LANES(unpacklo_ps)((Lanes)r[2], (Lanes)r[3]);
    Lanes high23 = LANES(unpackhi_ps)((Lanes)r[2], (Lanes)r[3]);
    r[0] = (vf)LANES(unpacklo_pd)((DoubleLanes)low01, (DoubleLanes)low23);
    r[1] = (vf)LANES(unpackhi_pd)((DoubleLanes)low01, (DoubleLanes)low23);
    r[2] = (vf)LANES(unpacklo_pd)((DoubleLanes)high01, (DoubleLanes)high23);
    r[3] = (vf)LANES(unpackhi_pd)((DoubleLanes)high01, (DoubleLanes)high23);
  }
}
#undef LANES
#endif

static inline void transpose(vf* rows) {
#if defined(__AVX512F__)
  transpose_lanes(rows);
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    // Even and odd lanes of rows 0-7 and 8-15.
    __m512 even0 = _mm512_shuffle_f32x4((__m512)rows[c], (__m512)rows[4 + c], 0x88);
    __m512 odd0 = _mm512_shuffle_f32x4((__m512)rows[c], (__m512)rows[4 + c], 0xDD);
    __m512 even1 = _mm512_shuffle_f32x4((__m512)rows[8 + c], (__m512)rows[12 + c], 0x88);
    __m512 odd1 = _mm512_shuffle_f32x4((__m512)rows[8 + c], (__m512)rows[12 + c], 0xDD);
    rows[c] = (vf)_mm512_shuffle_f32x4(even0, even1, 0x88);
    rows[4 + c] = (vf)_mm512_shuffle_f32x4(odd0, odd1, 0x88);
    rows[8 + c] = (vf)_mm512_shuffle_f32x4(even0, even1, 0xDD);
    rows[12 + c] = (vf)_mm512_shuffle_f32x4(odd0, odd1, 0xDD);
  }
#elif defined(__AVX2__)
  transpose_lanes(rows);
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    __m256 first = (__m256)rows[c], second = (__m256)rows[4 + c];
    rows[c] = (vf)_mm256_permute2f128_ps(first, second, 0x20);
    rows[4 + c] = (vf)_mm256_permute2f128_ps(first, second, 0x31);
  }
#elif defined(__SSE2__)
  transpose_lanes(rows);
#else
  for (int i = 0; i < kWidth; i++)
    for (int j = 0; j < i; j++) {
      float kept = rows[i][j];
      rows[i][j] = rows[j][i];
      rows[j][i] = kept;
    }
#endif
}
