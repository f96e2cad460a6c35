// Float maps in vector registers. An element of the result is summed in the order of the inputs
// whatever the number of rows, so a row gets the same bits in every batch.
//
// The loops are those of Goto and van de Geijn 2008 ("Anatomy of high-performance matrix
// multiplication"): a part of a pair of vectors of outputs stays in the first-level cache while rows
// pass, and the same part of those rows stays in the second while pairs pass.
#pragma once

#include "attention_gemm.h"
#include "linear_panels.h"
#include "workspace.h"

// A vector of bfloat16 or float16 times one number, in float32.
template <typename T>
struct WideStep {
  typedef T Number;
  static constexpr int kPair = 1;
  static inline vf broadcast(const T* at) { return splat(to_float(*at)); }
  static inline vf read(const T* at) { return load(at); }
  static inline vf add_product(vf sum, vf a, vf b) { return sum + a * b; }
};

template <class Step>
class VectorProduct {
 public:
  typedef typename Step::Number Number;

  explicit VectorProduct(const PanelCall<Number>& call) : call_(call) {
    static thread_local Workspace workspace;
    sums_ = (float*)workspace.reserve(kMostPairs * kCachedRows * kColumns * sizeof(float));
  }

  void run(const PairRange& pairs) {
    for (long row = 0; row < call_.rows; row += kCachedRows)
      run_rows(row, call_.rows - row < kCachedRows ? call_.rows - row : kCachedRows, pairs);
  }

 private:
  static constexpr int kPair = Step::kPair, kColumns = 2 * kWidth;
#if defined(__AVX512F__)
  static constexpr int kRows = 8;  // 16 sums: two multiply-adds a cycle, 4 cycles each, twice over
#else
  static constexpr int kRows = 6;  // 12 sums of 16 registers
#endif
  static constexpr int kCachedRows = 128;
  static constexpr long kCachedInputs = 384;
  static constexpr int kSteps = 4;  // of kPair inputs, between two requests for memory
  static constexpr int kLines = kSteps * kPair * kColumns * sizeof(Number) / 64;  // that they read

  void run_rows(long row, int count, const PairRange& pairs) {
    // Few rows wait for the weights, which are best read as they lie.
    const long most = count > 2 * kRows ? kCachedInputs : call_.inputs;
    for (long k = 0; k < call_.inputs; k += most) {
      const long depth = call_.inputs - k < most ? call_.inputs - k : most;
      for (long pair = pairs.first; pair < pairs.last; pair++) {
        const long next = pair + 1 < pairs.last ? pair + 1 : pairs.next;
        Ahead ahead = {(const char*)call_.at(next, k), lines_ahead(count, next)};
        add_rows(row, count, pair, k, depth, ahead);
      }
    }
    for (long pair = pairs.first; pair < pairs.last; pair++)
      store_result(call_, sums_of(pair), row, count, pair);
  }

  // The weights that follow can come while rows are computed. Very few rows only wait for them, which
  // the processor's own prefetching reads best; with many it hardly matters.
  int lines_ahead(int count, long next) const {
    const int blocks = (count + kRows - 1) / kRows;
    if (count < 4 || call_.rows > kCachedRows || next >= call_.num_pairs()) return 0;
    return (kLines + blocks - 1) / blocks;
  }

  float* sums_of(long pair) const { return sums_ + pair % kMostPairs * kCachedRows * kColumns; }

  // Products of inputs [k, k + depth) of rows with a pair, added to its sums if k > 0.
  void add_rows(long row, int count, long pair, long k, long depth, Ahead& ahead) {
    const Number *x = call_.x + row * call_.x_stride + k, *weight = call_.at(pair, k);
    float* sums = sums_of(pair);
    int r = 0;
    for (; r + kRows <= count; r += kRows)
      block<kRows>(x + r * call_.x_stride, weight, depth, sums + r * kColumns, k > 0, ahead);
    if (r < count)
      rest<kRows - 1>(count - r, x + r * call_.x_stride, weight, depth, sums + r * kColumns, k > 0,
                      ahead);
  }

  // The block of so many rows, at most kMost.
  template <int kMost>
  void rest(int rows, const Number* x, const Number* weight, long depth, float* sums, bool adds,
            Ahead& ahead) {
    if (rows == kMost) return block<kMost>(x, weight, depth, sums, adds, ahead);
    if constexpr (kMost > 1) rest<kMost - 1>(rows, x, weight, depth, sums, adds, ahead);
  }

  template <int kCount>
  void block(const Number* x, const Number* weight, long depth, float* to, bool adds,
             Ahead& ahead) {
    vf sums[kCount][2];
#pragma GCC unroll 8
    for (int r = 0; r < kCount; r++)
      for (int half = 0; half < 2; half++)
        sums[r][half] = adds ? load(to + r * kColumns + half * kWidth) : vf{};
    long k = 0;
    for (; k + kSteps * kPair <= depth; k += kSteps * kPair) {
      ahead.ask();
#pragma GCC unroll 8
      for (int i = 0; i < kSteps; i++)
        step<kCount>(sums, x + k + i * kPair, weight + (k + i * kPair) * kColumns);
    }
    for (; k < depth; k += kPair) step<kCount>(sums, x + k, weight + k * kColumns);
#pragma GCC unroll 8
    for (int r = 0; r < kCount; r++)
      for (int half = 0; half < 2; half++)
        store(sums[r][half], to + r * kColumns + half * kWidth);
  }

  template <int kCount>
  inline void step(vf (&sums)[kCount][2], const Number* x, const Number* weight) {
    const vf left = Step::read(weight), right = Step::read(weight + kWidth * kPair);
#pragma GCC unroll 8
    for (int r = 0; r < kCount; r++) {
      const vf number = Step::broadcast(x + r * call_.x_stride);
      sums[r][0] = Step::add_product(sums[r][0], number, left);
      sums[r][1] = Step::add_product(sums[r][1], number, right);
    }
  }

  const PanelCall<Number> call_;
  float* sums_;  // [kMostPairs][kCachedRows][kColumns]
};
