// The ops between the linear maps, as a team of threads runs them: every thread calls a function with
// the same arguments, and all return when all is done. Exported functions start a team of their own.
//
// Arguments come in one struct of 8-byte fields, packed by rows.py in the order of its declaration:
// ctypes takes 0.15 us for every argument of a call, a tenth of what a row takes.
#pragma once

#include <cstdint>

#include "linear.h"

// x [num_outer, num_inner, size] with those strides, out contiguous; the weight of inner row j starts
// at j * weight_stride, 0 when all share one; so does bias, which layer_norm alone reads and may be
// null.
struct NormCall {
  const void *x, *weight, *bias;
  void* out;
  long num_outer, num_inner, size, outer_stride, inner_stride, weight_stride;
  double eps;
  long dtype, weight_dtype;
};
void rms_norm_team(const NormCall& call);
void layer_norm_team(const NormCall& call);

// x, residual, out and total [num_rows, size], contiguous; total = residual + x in their dtype, and
// may be residual.
struct AddNormCall {
  const void *x, *residual, *weight, *bias;
  void *out, *total;
  long num_rows, size;
  double eps;
  long dtype, weight_dtype;
};
void add_rms_norm_team(const AddNormCall& call);
void add_layer_norm_team(const AddNormCall& call);

// query, key and value [num_tokens, heads, head_dim], tokens stride apart, heads contiguous; the
// heads of query go to out, contiguous, those of key and value to their caches
// [blocks, num_kv_heads, block_size, head_dim]. num_heads may be 0; value null: keys alone are
// written. slots null: token t has slot t. cos and sin [rows, half], of which token t takes row
// positions[t], or t if that is null; null: no rotation. Weights [head_dim] of the norms, or null:
// none.
struct HeadsCall {
  const void* query;
  void* out;
  const void* key;
  void* key_cache;
  const void* value;
  void* value_cache;
  const int64_t* slots;
  long block_size;
  const float *cos, *sin;
  const int64_t* positions;
  const void *query_weight, *key_weight;
  long num_tokens, num_heads, num_kv_heads, head_dim, half;
  long query_stride, key_stride, value_stride;
  double eps;
  long interleaved, dtype, weight_dtype;
};
void move_heads_team(const HeadsCall& call);

// gate_up [num_rows, 2 * width], rows stride apart; out [num_rows, width] contiguous.
struct GateCall {
  const void* gate_up;
  void* out;
  long num_rows, width, stride, dtype;
};
void gate_team(const GateCall& call, Gate gate);
