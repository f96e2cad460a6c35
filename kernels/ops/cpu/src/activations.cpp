// act(gate) * up over rows of [gate | up]: reference.silu_mul and reference.gelu_mul, in float32
// and rounded once (the reference rounds act(gate) to the dtype too).
#include "activations.h"
#include "rows.h"
#include "threads.h"

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
