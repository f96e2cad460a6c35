// The activations of gated MLPs, in float32.
#pragma once

#include "simd.h"

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
