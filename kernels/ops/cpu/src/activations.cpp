// act(gate) * up over rows of [gate | up]: reference.silu_mul and reference.gelu_mul.
#include "simd.h"
#include "threads.h"

static inline vf silu(vf x) { return x / (exp_of(-x) + 1.0f); }

template <typename T>
static void silu_mul_rows(const T* gate_up, T* out, long num_rows, long width, long stride) {
#pragma omp parallel for num_threads(num_threads) if (num_rows * width > kWorthSharing)
  for (long row = 0; row < num_rows; row++) {
    const T *gate = gate_up + row * stride, *up = gate + width;
    T* to = out + row * width;
    for (long i = 0; i < width; i += kWidth) {
      int count = width - i < kWidth ? width - i : kWidth;
      vf product = silu(load_some(gate + i, count)) * load_some(up + i, count);
      store_some(product, to + i, count);
    }
  }
}

// gate_up [num_rows, 2 * width], rows stride apart; out [num_rows, width] contiguous.
EXPORT void silu_mul(const void* gate_up, void* out, long num_rows, long width, long stride,
                     int dtype) {
  if (dtype == kFloat32)
    silu_mul_rows((const float*)gate_up, (float*)out, num_rows, width, stride);
  else if (dtype == kBFloat16)
    silu_mul_rows((const bf16*)gate_up, (bf16*)out, num_rows, width, stride);
  else
    silu_mul_rows((const f16*)gate_up, (f16*)out, num_rows, width, stride);
}
