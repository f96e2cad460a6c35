// The softmax of attention over one tile of keys at a time, in powers of two.
#pragma once

#include "attention_gemm.h"

constexpr float kLog2E = 1.44269504f;

// How a row's products with its keys become scores, all in units of log2(e).
struct ScoreForm {
  float factor;  // products times this; before the softcap where there is one
  float cap;     // of softcap * tanh(score / softcap), 0: none
  float slope;   // ALiBi: taken away per position of distance, 0: none
};

// 2**x for x <= 1, exactly 1 at 0 and 0 at -infinity. kTerms 6: within 2 units in the last place;
// 4: within 3e-6 of its value, far below the rounding of a bfloat16.
template <int kTerms>
static inline vf exp2_of(vf x) {
#if defined(__AVX512F__)
  x = (vf)_mm512_max_ps((__m512)splat(-200.0f), (__m512)x);  // in this order NaN stays NaN
  vf whole = (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  vf r = x - whole;
#else
  vf clipped = x < splat(-126.0f) ? splat(-126.0f) : x;  // NaN stays NaN
  // Adding and taking away 1.5 * 2**23 rounds to a whole number.
  vf whole = (clipped + 12582912.0f) - 12582912.0f;
  vf r = clipped - whole;
#endif
  // Least largest relative error over [-0.5, 0.5], with 1 at 0.
  vf p;
  if (kTerms == 6) {
    p = splat(1.5353362e-4f);
    p = p * r + 1.3398874e-3f;
    p = p * r + 9.6184369e-3f;
    p = p * r + 5.5503324e-2f;
    p = p * r + 2.4022648e-1f;
    p = p * r + 6.9314718e-1f;
  } else {
    p = splat(9.5828529e-3f);
    p = p * r + 5.5906426e-2f;
    p = p * r + 2.4024099e-1f;
    p = p * r + 6.9312418e-1f;
  }
  p = p * r + 1.0f;
#if defined(__AVX512F__)
  return (vf)_mm512_scalef_ps((__m512)p, (__m512)whole);
#else
  vi exponent = (__builtin_convertvector(whole, vi) + 127) << 23;
  return x < splat(-126.0f) ? vf{} : p * (vf)exponent;
#endif
}

// tanh(x) within 3 units in the last place: Cephes' polynomial near 0, exponentials elsewhere.
static inline vf tanh_of(vf x) {
  vf size = x < 0.0f ? -x : x;
  vf square = x * x;
  vf p = splat(-5.70498872745e-3f);
  p = p * square + 2.06390887954e-2f;
  p = p * square - 5.37397155531e-2f;
  p = p * square + 1.33314422036e-1f;
  p = p * square - 3.33332819422e-1f;
  p = p * square * x + x;
  vf e = exp2_of<6>(size * (-2.0f * kLog2E));  // 0 to 1
  vf far = (1.0f - e) / (1.0f + e);
  far = x < 0.0f ? -far : far;
  return size < splat(0.625f) ? p : far;
}

static inline void store_weights(vf even, vf odd, float* at) {
  store(even, at);
  store(odd, at + kWidth);
}

#if defined(ATTENTION_PAIRS)
static inline void store_weights(vf even, vf odd, bf16* at) {
  __m512bh both = _mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
  memcpy(at, &both, sizeof both);
}
#endif

// The keys of a tile that are at hand, [first, last), and those of them that a row sees, [low, high).
struct Span {
  int first, last, low, high;
};

// What a row has seen so far: the largest score and the sum of 2**(score - peak).
struct Seen {
  float peak, total;
};

// Bend products into scores, in place; distance is that from the row to key 0 of the tile.
static inline void bend(float* scores, const Span& span, long distance, const ScoreForm& form) {
  vf lane;
  for (int i = 0; i < kWidth; i++) lane[i] = i;
  for (int key = span.first; key < span.last; key += kWidth) {
    vf score = load(scores + key) * form.factor;
    if (form.cap != 0.0f) score = tanh_of(score) * form.cap;
    if (form.slope != 0.0f) score = score - ((float)(distance - key) - lane) * form.slope;
    store(score, scores + key);
  }
}

// Turn products into weights 2**(score - peak) over span and bring seen up to date; first and last
// are multiples of 2 * kWidth. Returns what earlier sums are to be multiplied by. A key that the row
// does not see changes nothing, to the last bit.
template <typename Number>
static inline float weigh(float* scores, Number* weights, const Span& span, long distance,
                          const ScoreForm& form, Seen& seen) {
  constexpr int kTerms = sizeof(Number) == 4 ? 6 : 4;
  float factor = form.factor;
  if (form.cap != 0.0f || form.slope != 0.0f) {
    bend(scores, span, distance, form);
    factor = 1.0f;
  }
  for (int key = span.first; key < span.low; key++) scores[key] = -INFINITY;
  for (int key = span.high; key < span.last; key++) scores[key] = -INFINITY;
  vf even = splat(-INFINITY), odd = even;
  for (int key = span.first; key < span.last; key += 2 * kWidth) {
    even = vmax(even, load(scores + key) * factor);
    odd = vmax(odd, load(scores + key + kWidth) * factor);
  }
  const float before = seen.peak, most = max_of(vmax(even, odd));
  if (most > before) seen.peak = most;
  const float peak = seen.peak == -INFINITY ? 0.0f : seen.peak;
  even = odd = vf{};
  for (int key = span.first; key < span.last; key += 2 * kWidth) {
    vf left = exp2_of<kTerms>(load(scores + key) * factor - peak);
    vf right = exp2_of<kTerms>(load(scores + key + kWidth) * factor - peak);
    even += left;
    odd += right;
    store_weights(left, right, weights + key);
  }
  const float rescale = seen.peak == before ? 1.0f : exp2_of<6>(splat(before - peak))[0];
  seen.total = seen.total * rescale + sum_of(even + odd);
  return rescale;
}
