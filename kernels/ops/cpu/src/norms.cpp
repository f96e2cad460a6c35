// Norms over the last dimension, alone or of a sum with the residual stream: reference.rms_norm,
// layer_norm and their add_ forms. One pass reads a row from memory, the others find it in the
// first-level cache.
#include "rows.h"
#include "threads.h"

// weight * (x - mean) / sqrt(var + eps) + bias in float32, rounded once; no bias if it is null.
template <typename T, typename W>
static inline void layer_norm_row(const T* x, const W* weight, const W* bias, T* out, long size,
                                  float eps) {
  float mean = sum_over(x, size, 0.0f, [](vf v) { return v; }) / size;
  float squares = sum_over(x, size, mean, [=](vf v) { return (v - mean) * (v - mean); });
  float scale = 1.0f / std::sqrt(squares / size + eps);
  over_vectors(size, [&](long i, int count) {
    vf normed = (load_some(x + i, count) - mean) * scale * load_some(weight + i, count);
    if (bias) normed += load_some(bias + i, count);
    store_some(normed, out + i, count);
  });
}

template <typename T>
static inline void add_row(const T* x, const T* residual, T* total, long size) {
  over_vectors(size, [&](long i, int count) {
    store_some(load_some(residual + i, count) + load_some(x + i, count), total + i, count);
  });
}

// x [num_outer, num_inner, size] with those strides, out contiguous. The weight of inner row j
// starts at j * weight_stride: 0 when all share one.
EXPORT void rms_norm(const void* x, const void* weight, void* out, long num_outer, long num_inner,
                     long size, long outer_stride, long inner_stride, long weight_stride, float eps,
                     int dtype, int weight_dtype) {
  by_dtypes(dtype, weight_dtype, [&](auto* type, auto* weight_type) {
    auto* from = (decltype(type))x;
    auto* to = (decltype(type))out;
    auto* scale = (decltype(weight_type))weight;
#pragma omp parallel for num_threads(num_threads) if (num_outer * num_inner * size > kWorthSharing)
    for (long i = 0; i < num_outer; i++)
      for (long j = 0; j < num_inner; j++)
        rms_norm_row(from + i * outer_stride + j * inner_stride, scale + j * weight_stride,
                     to + (i * num_inner + j) * size, size, eps);
  });
}

// As rms_norm; bias, of the weight's shape and dtype, may be null.
EXPORT void layer_norm(const void* x, const void* weight, const void* bias, void* out,
                       long num_outer, long num_inner, long size, long outer_stride,
                       long inner_stride, long weight_stride, float eps, int dtype,
                       int weight_dtype) {
  by_dtypes(dtype, weight_dtype, [&](auto* type, auto* weight_type) {
    auto* from = (decltype(type))x;
    auto* to = (decltype(type))out;
    auto* scale = (decltype(weight_type))weight;
    auto* shift = (decltype(weight_type))bias;
#pragma omp parallel for num_threads(num_threads) if (num_outer * num_inner * size > kWorthSharing)
    for (long i = 0; i < num_outer; i++)
      for (long j = 0; j < num_inner; j++)
        layer_norm_row(from + i * outer_stride + j * inner_stride, scale + j * weight_stride,
                       shift ? shift + j * weight_stride : nullptr,
                       to + (i * num_inner + j) * size, size, eps);
  });
}

// x, residual, out and total [num_rows, size], contiguous; total = residual + x in their dtype.
EXPORT void add_rms_norm(const void* x, const void* residual, const void* weight, void* out,
                         void* total, long num_rows, long size, float eps, int dtype,
                         int weight_dtype) {
  by_dtypes(dtype, weight_dtype, [&](auto* type, auto* weight_type) {
    using Rows = decltype(type);
#pragma omp parallel for num_threads(num_threads) if (num_rows * size > kWorthSharing)
    for (long row = 0; row < num_rows; row++) {
      long at = row * size;
      add_row((Rows)x + at, (Rows)residual + at, (Rows)total + at, size);
      rms_norm_row((Rows)total + at, (decltype(weight_type))weight, (Rows)out + at, size, eps);
    }
  });
}

// As add_rms_norm; bias may be null.
EXPORT void add_layer_norm(const void* x, const void* residual, const void* weight,
                           const void* bias, void* out, void* total, long num_rows, long size,
                           float eps, int dtype, int weight_dtype) {
  by_dtypes(dtype, weight_dtype, [&](auto* type, auto* weight_type) {
    using Rows = decltype(type);
    using Weights = decltype(weight_type);
#pragma omp parallel for num_threads(num_threads) if (num_rows * size > kWorthSharing)
    for (long row = 0; row < num_rows; row++) {
      long at = row * size;
      add_row((Rows)x + at, (Rows)residual + at, (Rows)total + at, size);
      layer_norm_row((Rows)total + at, (Weights)weight, (Weights)bias, (Rows)out + at, size, eps);
    }
  });
}
