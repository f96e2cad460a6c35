// act(gate) * up over rows of [gate | up]: reference.silu_mul and reference.gelu_mul, in float32
// and rounded once (the reference rounds act(gate) to the dtype too).
#include "rows.h"
#include "threads.h"

static inline vf silu(vf x) { return x / (exp_of(-x) + 1.0f); }

// 0.5 x (1 + tanh(y)) is x / (1 + exp(-2y)).
static inline vf gelu_tanh(vf x) {
  vf y = 0.7978845608f * (x + 0.044715f * x * x * x);  // sqrt(2 / pi)
  return x / (exp_of(-2.0f * y) + 1.0f);
}

// x times the normal distribution function, whose smaller tail is erfc(|x| / sqrt(2)) / 2: within
// 1.5e-7 / 2 by formula 7.1.26 of Abramowitz and Stegun.
static inline vf gelu_erf(vf x) {
  vf z = (x < vf{} ? -x : x) * 0.7071067812f;
  vf t = 1.0f / (0.3275911f * z + 1.0f);
  vf p = 1.061405429f * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  vf tail = 0.5f * p * t * exp_of(-z * z);
  return x * (x < vf{} ? tail : 1.0f - tail);
}

// gate_up [num_rows, 2 * width], rows stride apart; out [num_rows, width] contiguous.
struct GateCall {
  const void* gate_up;
  void* out;
  long num_rows, width, stride, dtype;
};

template <typename F>
static void gate_rows(const GateCall& call, F act) {
  long width = call.width;
  by_dtype(call.dtype, [&](auto* type) {
    using Rows = decltype(type);
#pragma omp parallel for num_threads(num_threads) if (call.num_rows * width > kWorthSharing / 4)
    for (long row = 0; row < call.num_rows; row++) {
      Rows gate = (Rows)call.gate_up + row * call.stride, up = gate + width;
      Rows out = (Rows)call.out + row * width;
      over_vectors(width, [&](long i, int count) {
        store_some(act(load_some(gate + i, count)) * load_some(up + i, count), out + i, count);
      });
    }
  });
}

EXPORT void silu_mul(const GateCall* call) {
  gate_rows(*call, [](vf x) { return silu(x); });
}

EXPORT void gelu_mul(const GateCall* call) {
  gate_rows(*call, [](vf x) { return gelu_erf(x); });
}

EXPORT void gelu_tanh_mul(const GateCall* call) {
  gate_rows(*call, [](vf x) { return gelu_tanh(x); });
}
