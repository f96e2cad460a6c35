// What the float maps share: a weight in pairs of vectors of outputs, and what becomes of the results.
#pragma once

#include "activations.h"
#include "linear.h"
#include "simd.h"

constexpr int kMostPairs = 8;  // that a thread takes at once

template <typename T>
struct PanelCall {
  const T* x;
  long x_stride;
  const T* weight;
  const float* bias;
  T* out;
  long rows, inputs, outputs, gate;

  explicit PanelCall(const LinearCall& call)
      : x((const T*)call.x),
        x_stride(call.x_stride),
        weight((const T*)call.map.weight),
        bias(call.map.bias),
        out((T*)call.out),
        rows(call.rows),
        inputs(call.map.inputs),
        outputs(call.map.outputs),
        gate(call.map.gate) {}

  long num_pairs() const { return (outputs + 2 * kWidth - 1) / (2 * kWidth); }
  // The weights of a pair, from an input on.
  const T* at(long pair, long input = 0) const {
    return weight + (pair * inputs + input) * 2 * kWidth;
  }
};

// Round sums [count][2 * kWidth], of rows from the given one on and a pair, into the result.
template <typename T>
static void store_sums(const PanelCall<T>& call, const float* sums, long row, int count, long pair) {
  const long column = pair * 2 * kWidth;
  for (int r = 0; r < count; r++)
    for (long i = 0; i < 2 * kWidth && column + i < call.outputs; i += kWidth) {
      const long left = call.outputs - column - i;
      const int some = left < kWidth ? left : kWidth;
      vf values = load(sums + r * 2 * kWidth + i);
      if (call.bias != nullptr) values = values + load_some(call.bias + column + i, some);
      store_some(values, call.out + (row + r) * call.outputs + column + i, some);
    }
}

// The same, where a pair's left vector gates the right one.
template <typename T, typename Act>
static void store_gated(const PanelCall<T>& call, const float* sums, long row, int count, long pair,
                        Act act) {
  const long column = pair * 2 * kWidth, width = call.outputs / 2;
  const bool has_bias = call.bias != nullptr;
  const vf left = has_bias ? load(call.bias + column) : vf{};
  const vf right = has_bias ? load(call.bias + column + kWidth) : vf{};
  for (int r = 0; r < count; r++) {
    const float* at = sums + r * 2 * kWidth;
    const vf gate = load(at) + left, up = load(at + kWidth) + right;
    store(act(gate) * up, call.out + (row + r) * width + column / 2);
  }
}

template <typename T>
static void store_result(const PanelCall<T>& call, const float* sums, long row, int count,
                         long pair) {
  if (call.gate == kSilu)
    store_gated(call, sums, row, count, pair, [](vf x) { return silu(x); });
  else if (call.gate == kGelu)
    store_gated(call, sums, row, count, pair, [](vf x) { return gelu_erf(x); });
  else if (call.gate == kGeluTanh)
    store_gated(call, sums, row, count, pair, [](vf x) { return gelu_tanh(x); });
  else
    store_sums(call, sums, row, count, pair);
}

// Memory that is asked for while there is something to compute.
struct Ahead {
  const char* at;
  int lines;  // at each step

  inline void ask() {
    for (int line = 0; line < lines; line++) __builtin_prefetch(at + line * 64, 0, 2);
    at += lines * 64;
  }
};

// The pairs [first, last) that a thread takes at once, and the one it will probably go on with; past
// the last pair if none is known.
struct PairRange {
  long first, last, next;
};
