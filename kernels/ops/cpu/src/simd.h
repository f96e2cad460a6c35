// Vectors of floats as wide as the machine's registers, and rows of any dtype read as such.
//
// GCC's vector extensions: one source for every instruction set; the compiler's -march decides how
// wide a vector is. Arithmetic is float32 throughout; bfloat16 and float16 are read and rounded to
// (nearest, ties to even).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
// GCC 12's own headers warn of the registers that they leave undefined on purpose.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#if defined(__AVX512F__)
#define SIMD_BYTES 64
#elif defined(__AVX2__)
#define SIMD_BYTES 32
#else
#define SIMD_BYTES 16
#endif

constexpr int kWidth = SIMD_BYTES / 4;  // floats in a vector

typedef float vf __attribute__((vector_size(SIMD_BYTES)));
typedef int32_t vi __attribute__((vector_size(SIMD_BYTES)));
typedef uint32_t vu __attribute__((vector_size(SIMD_BYTES)));
typedef uint16_t vh __attribute__((vector_size(SIMD_BYTES / 2)));  // as many 16-bit numbers

struct bf16 {
  uint16_t bits;
};
typedef _Float16 f16;

// The numbers that Python passes for a dtype.
enum Dtype : int { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

static inline vf splat(float x) { return x - vf{}; }
static inline vf bits_as_float(vu x) { return (vf)x; }
static inline vu float_as_bits(vf x) { return (vu)x; }
static inline vf vmax(vf a, vf b) { return a > b ? a : b; }
static inline vf vmin(vf a, vf b) { return a < b ? a : b; }

// ---- one number

static inline float to_float(float x) { return x; }
static inline float to_float(f16 x) { return (float)x; }
static inline float to_float(bf16 x) {
  uint32_t bits = (uint32_t)x.bits << 16;
  float out;
  memcpy(&out, &bits, 4);
  return out;
}

static inline void from_float(float x, float* out) { *out = x; }
static inline void from_float(float x, f16* out) { *out = (f16)x; }
static inline void from_float(float x, bf16* out) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  out->bits = std::isnan(x) ? 0x7FC0 : (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// ---- kWidth numbers

static inline vf load(const float* at) {
  vf out;
  memcpy(&out, at, sizeof out);
  return out;
}

static inline vf load(const bf16* at) {
#if defined(__AVX512F__)
  return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at)), 16);
#elif defined(__AVX2__)
  return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)at)), 16);
#else
  vh raw;
  memcpy(&raw, at, sizeof raw);
  return bits_as_float(__builtin_convertvector(raw, vu) << 16);
#endif
}

static inline vf load(const f16* at) {
#if defined(__AVX512F__)
  return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)at));
#elif defined(__F16C__)
  return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)at));
#else
  vf out;
  for (int i = 0; i < kWidth; i++) out[i] = (float)at[i];
  return out;
#endif
}

static inline void store(vf x, float* at) { memcpy(at, &x, sizeof x); }

// With __AVX512BF16__, numbers below 1.2e-38, which are subnormal, become 0.
static inline void store(vf x, bf16* at) {
#if defined(__AVX512BF16__)
  _mm256_storeu_si256((__m256i*)at, (__m256i)_mm512_cvtneps_pbh((__m512)x));
#else
  vu bits = float_as_bits(x);
  vu rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  rounded = x == x ? rounded : vu{} + 0x7FC0;
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i*)at, _mm512_cvtepi32_epi16((__m512i)rounded));
#else
  vh out = __builtin_convertvector(rounded, vh);
  memcpy(at, &out, sizeof out);
#endif
#endif
}

static inline void store(vf x, f16* at) {
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i*)at, _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128((__m128i*)at, _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < kWidth; i++) at[i] = (f16)x[i];
#endif
}

// The first count numbers (0 to kWidth), and fill after them.
template <typename T>
static inline vf load_some(const T* at, int count, float fill = 0.0f) {
  if (count == kWidth) return load(at);
  T part[kWidth] = {};
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  __mmask16 mask = (1u << count) - 1;
  if (sizeof(T) == 4)
    _mm512_storeu_ps(part, _mm512_maskz_loadu_ps(mask, at));
  else
    _mm256_storeu_epi16(part, _mm256_maskz_loadu_epi16(mask, at));
#else
  memcpy(part, at, count * sizeof(T));
#endif
  vi lane;
  for (int i = 0; i < kWidth; i++) lane[i] = i;
  return lane < count ? load(part) : splat(fill);
}

template <typename T>
static inline void store_some(vf x, T* at, int count) {
  if (count == kWidth) return store(x, at);
  T part[kWidth];
  store(x, part);
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  __mmask16 mask = (1u << count) - 1;
  if (sizeof(T) == 4)
    _mm512_mask_storeu_ps(at, mask, _mm512_loadu_ps(part));
  else
    _mm256_mask_storeu_epi16(at, mask, _mm256_loadu_epi16(part));
#else
  memcpy(at, part, count * sizeof(T));
#endif
}

// ---- over a vector

static inline float sum_of(vf x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)x);
#else
  float out = 0;
  for (int i = 0; i < kWidth; i++) out += x[i];
  return out;
#endif
}

static inline float max_of(vf x) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)x);
#else
  float out = x[0];
  for (int i = 1; i < kWidth; i++) out = out > x[i] ? out : x[i];
  return out;
#endif
}

// ---- functions; the errors are those over all floats of the stated range

// e**x within 2 units in the last place; 0 below -87.3, and exp(88.0) above that.
static inline vf exp_of(vf x) {
  vf clipped = x > splat(88.0f) ? splat(88.0f) : x;  // NaN stays NaN
  vf n = clipped * 1.44269504f;
  // Adding and taking away 1.5 * 2**23 rounds to a whole number.
  n = (n + 12582912.0f) - 12582912.0f;
  vf r = clipped - n * 0.693359375f;  // ln 2 in two parts, of which n times the first is exact
  r = r + n * 2.12194440e-4f;
  vf p = splat(1.9875691500e-4f);  // Cephes' expf
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  vi exponent = (__builtin_convertvector(n, vi) + 127) << 23;
  vf out = p * (vf)exponent;
  return x < splat(-87.3f) ? vf{} : out;
}
