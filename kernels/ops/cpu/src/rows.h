// Walks over a row of numbers, and the choice of a template by dtype: what the row ops share.
#pragma once

#include "simd.h"

// Calls f with a null pointer to the dtype's C++ type: `by_dtype(dtype, [&](auto* type) {...})`.
template <typename F>
static inline void by_dtype(int dtype, F f) {
  if (dtype == kFloat32)
    f((float*)nullptr);
  else if (dtype == kBFloat16)
    f((bf16*)nullptr);
  else
    f((f16*)nullptr);
}

// The same for a row's dtype and its weight's, which is float32 or the row's.
template <typename F>
static inline void by_dtypes(int dtype, int weight_dtype, F f) {
  by_dtype(dtype, [&](auto* type) {
    if (weight_dtype == dtype)
      f(type, type);
    else
      f(type, (float*)nullptr);
  });
}

// Calls f(i, count) for each vector of a row: kWidth numbers from i, fewer in the last.
template <typename F>
static inline void over_vectors(long size, F f) {
  long i = 0;
  for (; i + kWidth <= size; i += kWidth) f(i, kWidth);
  if (i < size) f(i, (int)(size - i));
}

// The sum of f over a row; f(fill) must be 0. Four sums, as an addition takes four cycles.
template <typename T, typename F>
static inline float sum_over(const T* x, long size, float fill, F f) {
  vf sums[4] = {};
  long i = 0;
  for (; i + 4 * kWidth <= size; i += 4 * kWidth)
    for (int k = 0; k < 4; k++) sums[k] += f(load(x + i + k * kWidth));
  for (; i < size; i += kWidth) {
    int count = size - i < kWidth ? size - i : kWidth;
    sums[0] += f(load_some(x + i, count, fill));
  }
  return sum_of((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// x rounded to T.
template <typename T>
static inline vf round_to(vf x) {
  T rounded[kWidth];
  store(x, rounded);
  return load(rounded);
}

// weight * x / sqrt(mean(x^2) + eps); a weight that is not float32 multiplies what was rounded to
// its dtype, as in reference.rms_norm. out may be x.
template <typename T, typename W>
static inline void rms_norm_row(const T* x, const W* weight, T* out, long size, float eps) {
  float squares = sum_over(x, size, 0.0f, [](vf v) { return v * v; });
  float scale = 1.0f / std::sqrt(squares / size + eps);
  over_vectors(size, [&](long i, int count) {
    vf normed = round_to<W>(load_some(x + i, count) * scale);
    store_some(load_some(weight + i, count) * normed, out + i, count);
  });
}
