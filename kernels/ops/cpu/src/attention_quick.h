// Few rows against keys that are read where they lie, in float32, lane by lane: the quickest way
// for single tokens. Sums run in another order than in attention_few.h, so results differ from those
// of chunks in their last bits: not for batch-invariant mode.
#pragma once

#include "attention_few.h"

template <typename T>
class QuickRows {
 public:
  static long num_bytes(long) { return 0; }

  // query [rows, depth]; there is memory for kFewRows of them.
  void begin(const float* query, int rows, long depth, char*) {
    query_ = query;
    rows_ = rows;
    depth_ = depth;
  }

  // scores [rows, kTileKeys] for the keys given, rounded up to a multiple of kWidth.
  void score(FloatGemm&, const T* cache, const Rows& keys, long head_dim, float* scores) {
    if (rows_ == 1) return score<1>(cache, keys, head_dim, scores);
    if (rows_ == 2) return score<2>(cache, keys, head_dim, scores);
    if (rows_ <= 4) return score<4>(cache, keys, head_dim, scores);
    score<8>(cache, keys, head_dim, scores);
  }

  // sums [rows, depth] += weights [rows, kTileKeys] . values.
  void mix(FloatGemm&, const float* weights, const T* cache, const Rows& keys, long head_dim,
           float* sums) {
    if (rows_ == 1) return mix<1, 8>(weights, cache, keys, head_dim, sums);
    if (rows_ == 2) return mix<2, 8>(weights, cache, keys, head_dim, sums);
    if (rows_ <= 4) return mix<4, 4>(weights, cache, keys, head_dim, sums);
    mix<8, 2>(weights, cache, keys, head_dim, sums);
  }

 private:
  template <int kRows>
  void score(const T* cache, const Rows& keys, long head_dim, float* scores) {
    for (int first = 0; first < keys.count; first += kWidth) {
      vf squares[kRows][kWidth];
      for (int i = 0; i < kWidth; i++) {
        // What stands for a key past the last is masked by its caller.
        const T* key = cache + keys.offsets[first + i < keys.count ? first + i : first];
        vf sums[kRows] = {};
        for (long d = 0; d < head_dim; d += kWidth) {
          const vf part = load_some(key + d, head_dim - d < kWidth ? head_dim - d : kWidth);
#pragma GCC unroll 8
          for (int r = 0; r < kRows; r++)
            sums[r] = sums[r] + part * load(query_ + r * depth_ + d);
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; r++) squares[r][i] = sums[r];
      }
      for (int r = 0; r < kRows; r++) {
        transpose(squares[r]);
        for (int half = kWidth / 2; half > 0; half /= 2)
          for (int i = 0; i < half; i++) squares[r][i] = squares[r][i] + squares[r][i + half];
        store(squares[r][0], scores + r * kTileKeys + first);
      }
    }
  }

  // kPanels vectors of columns at a time.
  template <int kRows, int kPanels>
  void mix(const float* weights, const T* cache, const Rows& keys, long head_dim, float* sums) {
    long d = 0;
    for (; d + kPanels * kWidth <= head_dim; d += kPanels * kWidth)
      columns<kRows, kPanels>(weights, cache + d, keys, kWidth, sums + d);
    if constexpr (kPanels > 4)
      for (; d + 4 * kWidth <= head_dim; d += 4 * kWidth)
        columns<kRows, 4>(weights, cache + d, keys, kWidth, sums + d);
    for (; d < head_dim; d += kWidth)
      columns<kRows, 1>(weights, cache + d, keys, head_dim - d < kWidth ? head_dim - d : kWidth,
                        sums + d);
  }

  // width: numbers of the last vector of columns.
  template <int kRows, int kPanels>
  void columns(const float* weights, const T* cache, const Rows& keys, int width, float* to) {
    vf sums[kRows][kPanels];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; p++) sums[r][p] = load(to + r * depth_ + p * kWidth);
    for (int key = 0; key < keys.count; key++) {
      const T* row = cache + keys.offsets[key];
      vf values[kPanels];
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; p++)
        values[p] = load_some(row + p * kWidth, p == kPanels - 1 ? width : kWidth);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        const vf weight = splat(weights[r * kTileKeys + key]);
#pragma GCC unroll 8
        for (int p = 0; p < kPanels; p++) sums[r][p] = sums[r][p] + weight * values[p];
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; p++) store(sums[r][p], to + r * depth_ + p * kWidth);
  }

  const float* query_ = nullptr;
  int rows_ = 0;
  long depth_ = 0;
};
