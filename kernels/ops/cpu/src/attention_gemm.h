// Small matrix products for attention: C [rows, panels * kWidth] (+)= A [rows, depth] . B, float32.
//
// B lies in panels of kWidth columns: [panel][depth / kPair][kWidth][kPair], where kPair is 2 for
// bfloat16 (the two numbers that one instruction multiplies and adds) and 1 for float32. Each
// product is a class: Number, what A and B are made of; kPair; kDepth, of which depth is a
// multiple; multiply(). An element of C depends on its own row of A and column of B alone, and is
// summed in the order of depth, whatever the number of rows and panels.
#pragma once

#include "simd.h"

#if defined(__AVX512BF16__)
#define ATTENTION_PAIRS 1
#endif

// A vector of floats times one number, as many as a vector holds.
struct FloatStep {
  typedef float Number;
  static constexpr int kPair = 1;
  static inline vf broadcast(const float* at) { return splat(*at); }
  static inline vf read(const float* at) { return load(at); }
  static inline vf add_product(vf sum, vf a, vf b) { return sum + a * b; }
};

#if defined(ATTENTION_PAIRS)
// kWidth pairs of bfloat16 times one pair.
struct PairStep {
  typedef bf16 Number;
  static constexpr int kPair = 2;
  static inline vf broadcast(const bf16* at) {
    int pair;
    memcpy(&pair, at, sizeof pair);
    return (vf)_mm512_set1_epi32(pair);
  }
  static inline vf read(const bf16* at) {
    vf out;
    memcpy(&out, at, sizeof out);
    return out;
  }
  static inline vf add_product(vf sum, vf a, vf b) {
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
};
#endif

// A product in vector registers, by Step.
template <class S>
struct VectorGemm {
  typedef S Step;
  typedef typename Step::Number Number;
  static constexpr int kPair = Step::kPair;
  static constexpr int kDepth = kPair == 2 ? 32 : kWidth;

  // The operands of one product; lda and ldc are row strides, panel_stride that of B's panels.
  struct Operands {
    const Number* a;
    long lda;
    const Number* b;
    long panel_stride, depth;
    float* c;
    long ldc;
  };

  template <bool kAdd>
  void multiply(const Operands& of, int rows, int panels) {
#if defined(__AVX512F__)
    constexpr int kRows = 8;  // 16 sums: two multiply-adds a cycle, 4 cycles each, twice over
#else
    constexpr int kRows = 4;  // 8 sums of 16 registers
#endif
    // Two panels of B stay in the first-level cache while all rows pass.
    int panel = 0;
    if (rows < kRows)
      for (; panel + 8 <= panels; panel += 8) columns<kAdd, 1, 8>(of, 0, rows, panel);
    for (; panel + 2 <= panels; panel += 2) {
      columns<kAdd, kRows, 2>(of, 0, rows, panel);
      columns<kAdd, 1, 2>(of, rows / kRows * kRows, rows, panel);
    }
    if (panel < panels) columns<kAdd, 1, 1>(of, 0, rows, panel);
  }

 private:
  // kRows rows at a time from the given one, as long as there are so many.
  template <bool kAdd, int kRows, int kPanels>
  static inline void columns(const Operands& of, int row, int rows, int panel) {
    for (; row + kRows <= rows; row += kRows) block<kAdd, kRows, kPanels>(of, row, panel);
  }

  template <bool kAdd, int kRows, int kPanels>
  static inline void block(const Operands& of, int row, int panel) {
    const Number* a = of.a + row * of.lda;
    const Number* b = of.b + panel * of.panel_stride;
    float* c = of.c + row * of.ldc + panel * kWidth;
    vf sums[kRows][kPanels];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; p++)
        sums[r][p] = kAdd ? load(c + r * of.ldc + p * kWidth) : vf{};
    for (long k = 0; k < of.depth; k += kPair) {
      vf columns[kPanels];
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; p++)
        columns[p] = Step::read(b + p * of.panel_stride + k * kWidth);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        vf number = Step::broadcast(a + r * of.lda + k);
#pragma GCC unroll 8
        for (int p = 0; p < kPanels; p++)
          sums[r][p] = Step::add_product(sums[r][p], number, columns[p]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; p++) store(sums[r][p], c + r * of.ldc + p * kWidth);
  }
};

typedef VectorGemm<FloatStep> FloatGemm;
#if defined(ATTENTION_PAIRS)
typedef VectorGemm<PairStep> PairGemm;
#endif
