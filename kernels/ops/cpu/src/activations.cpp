// act(gate) * up over rows of [gate | up]: reference.silu_mul and reference.gelu_mul, in float32
// and rounded once (the reference rounds act(gate) to the dtype too).
#include "activations.h"

#include "rows.h"
#include "team.h"

template <typename F>
static void gate_rows(const GateCall& call, F act) {
  long width = call.width;
  by_dtype(call.dtype, [&](auto* type) {
    using Rows = decltype(type);
#pragma omp for
    for (long row = 0; row < call.num_rows; row++) {
      Rows gate = (Rows)call.gate_up + row * call.stride, up = gate + width;
      Rows out = (Rows)call.out + row * width;
      over_vectors(width, [&](long i, int count) {
        store_some(act(load_some(gate + i, count)) * load_some(up + i, count), out + i, count);
      });
    }
  });
}

void gate_team(const GateCall& call, Gate gate) {
  if (gate == kSilu)
    gate_rows(call, [](vf x) { return silu(x); });
  else if (gate == kGelu)
    gate_rows(call, [](vf x) { return gelu_erf(x); });
  else
    gate_rows(call, [](vf x) { return gelu_tanh(x); });
}

// gate: of enum Gate, none of which is no gate.
EXPORT void gate_mul(const GateCall* call, int gate) {
#pragma omp parallel num_threads(num_threads) if (call->num_rows * call->width > kWorthSharing / 4)
  gate_team(*call, (Gate)gate);
}
