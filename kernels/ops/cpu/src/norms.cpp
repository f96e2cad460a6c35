// Norms over the last dimension, alone or of a sum with the residual stream: reference.rms_norm,
// layer_norm and their add_ forms. One pass reads a row from memory, the others find it in the
// first-level cache.
#include "rows.h"
#include "team.h"

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

// f(row of x, weight, bias, row of out) for every row.
template <typename X, typename W, typename F>
static void over_rows(const NormCall& call, X*, W*, F f) {
  long size = call.size, stride = call.weight_stride;
  const W *weight = (const W*)call.weight, *bias = (const W*)call.bias;
#pragma omp for
  for (long i = 0; i < call.num_outer; i++)
    for (long j = 0; j < call.num_inner; j++)
      f((const X*)call.x + i * call.outer_stride + j * call.inner_stride, weight + j * stride,
        bias ? bias + j * stride : nullptr, (X*)call.out + (i * call.num_inner + j) * size);
}

void rms_norm_team(const NormCall& call) {
  by_dtypes(call.dtype, call.weight_dtype, [&](auto* type, auto* weight_type) {
    over_rows(call, type, weight_type, [&](auto* x, auto* weight, auto*, auto* out) {
      rms_norm_row(x, weight, out, call.size, call.eps);
    });
  });
}

void layer_norm_team(const NormCall& call) {
  by_dtypes(call.dtype, call.weight_dtype, [&](auto* type, auto* weight_type) {
    over_rows(call, type, weight_type, [&](auto* x, auto* weight, auto* bias, auto* out) {
      layer_norm_row(x, weight, bias, out, call.size, call.eps);
    });
  });
}

// total = residual + x, then f(row of total, row of out), for every row.
template <typename X, typename F>
static void over_sums(const AddNormCall& call, X*, F f) {
#pragma omp for
  for (long row = 0; row < call.num_rows; row++) {
    long at = row * call.size;
    X* total = (X*)call.total + at;
    add_row((const X*)call.x + at, (const X*)call.residual + at, total, call.size);
    f(total, (X*)call.out + at);
  }
}

void add_rms_norm_team(const AddNormCall& call) {
  by_dtypes(call.dtype, call.weight_dtype, [&](auto* type, auto* weight_type) {
    auto* weight = (decltype(weight_type))call.weight;
    over_sums(call, type, [&](auto* total, auto* out) {
      rms_norm_row(total, weight, out, call.size, call.eps);
    });
  });
}

void add_layer_norm_team(const AddNormCall& call) {
  by_dtypes(call.dtype, call.weight_dtype, [&](auto* type, auto* weight_type) {
    using Weights = decltype(weight_type);
    over_sums(call, type, [&](auto* total, auto* out) {
      layer_norm_row(total, (Weights)call.weight, (Weights)call.bias, out, call.size, call.eps);
    });
  });
}

static bool is_worth_sharing(const NormCall& call) {
  return call.num_outer * call.num_inner * call.size > kWorthSharing;
}

static bool is_worth_sharing(const AddNormCall& call) {
  return call.num_rows * call.size > kWorthSharing;
}

EXPORT void rms_norm(const NormCall* call) {
#pragma omp parallel num_threads(num_threads) if (is_worth_sharing(*call))
  rms_norm_team(*call);
}

EXPORT void layer_norm(const NormCall* call) {
#pragma omp parallel num_threads(num_threads) if (is_worth_sharing(*call))
  layer_norm_team(*call);
}

EXPORT void add_rms_norm(const AddNormCall* call) {
#pragma omp parallel num_threads(num_threads) if (is_worth_sharing(*call))
  add_rms_norm_team(*call);
}

EXPORT void add_layer_norm(const AddNormCall* call) {
#pragma omp parallel num_threads(num_threads) if (is_worth_sharing(*call))
  add_layer_norm_team(*call);
}
