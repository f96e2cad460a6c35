// Few rows against bfloat16 keys that are read where they lie, by products of pairs: the quickest way
// for single tokens. Sums run in another order than in attention_few.h, so results differ from those
// of chunks in their last bits: not for batch-invariant mode.
#pragma once

#include "attention_few.h"

#if defined(ATTENTION_PAIRS)
class PairRows {
 public:
  static long num_bytes(long) { return 0; }

  // What can be computed: whole vectors, few enough for the registers.
  static bool takes(long head_dim) { return head_dim % kPart == 0 && head_dim <= 8 * kPart; }

  // query [rows, depth]; there is memory for kFewRows of them.
  void begin(const bf16* query, int rows, long depth, char*) {
    query_ = query;
    rows_ = rows;
    depth_ = depth;
  }

  // scores [rows, kTileKeys] for the keys given, rounded up to a multiple of kWidth.
  void score(PairGemm&, const bf16* cache, const Rows& keys, long, float* scores) {
    switch (depth_ / kPart) {
      case 2: return score<2>(cache, keys, scores);
      case 4: return score<4>(cache, keys, scores);
      case 8: return score<8>(cache, keys, scores);
    }
    for (long d = 0; d < depth_; d += kPart) score<1>(cache, keys, scores, d);
  }

  // sums [rows, depth] += weights [rows, kTileKeys] . values.
  void mix(PairGemm&, const bf16* weights, const bf16* cache, const Rows& keys, long, float* sums) {
    if (rows_ == 1) return mix<1, 4>(weights, cache, keys, sums);
    if (rows_ == 2) return mix<2, 4>(weights, cache, keys, sums);
    if (rows_ <= 4) return mix<4, 2>(weights, cache, keys, sums);
    mix<8, 1>(weights, cache, keys, sums);
  }

 private:
  static constexpr int kPart = 2 * kWidth;  // numbers of a vector

  // Parts of the keys from number d on; from the second call on, added.
  template <int kParts>
  void score(const bf16* cache, const Rows& keys, float* scores, long d = 0) {
    for (int first = 0; first < keys.count; first += kWidth) {
      const bf16* at[kWidth];
#pragma GCC unroll 16
      for (int i = 0; i < kWidth; i++) {
        // What stands for a key past the last is masked by its caller.
        at[i] = cache + keys.offsets[first + i < keys.count ? first + i : first] + d;
        if (d == 0) prefetch(cache, keys, first + i, depth_);
      }
      for (int r = 0; r < rows_; r++) {
        const bf16* query = query_ + r * depth_ + d;
        vf products[kWidth] = {};
#pragma GCC unroll 8
        for (int part = 0; part < kParts; part++) {
          const vf numbers = PairStep::read(query + part * kPart);
#pragma GCC unroll 16
          for (int i = 0; i < kWidth; i++)
            products[i] =
                PairStep::add_product(products[i], numbers, PairStep::read(at[i] + part * kPart));
        }
        float* to = scores + r * kTileKeys + first;
        store(d == 0 ? sum_each(products) : load(to) + sum_each(products), to);
      }
    }
  }

  // The sum of each of kWidth vectors, in its place.
  static inline vf sum_each(vf* x) {
    for (int i = 0; i < 16; i += 2) x[i / 2] = add_halves<kSingles>(x[i], x[i + 1]);
    for (int i = 0; i < 8; i += 2) x[i / 2] = add_halves<kDoubles>(x[i], x[i + 1]);
    for (int i = 0; i < 4; i += 2) x[i / 2] = add_halves<kQuarters>(x[i], x[i + 1]);
    return add_halves<kQuarters>(x[0], x[1]);
  }

  enum Unit { kSingles, kDoubles, kQuarters };

  // Vectors of half as many numbers from each of two: sums of two of them.
  template <Unit kUnit>
  static inline vf add_halves(vf first, vf second) {
    const __m512 a = (__m512)first, b = (__m512)second;
    if (kUnit == kSingles) return (vf)_mm512_unpacklo_ps(a, b) + (vf)_mm512_unpackhi_ps(a, b);
    if (kUnit == kQuarters)
      return (vf)_mm512_shuffle_f32x4(a, b, 0x88) + (vf)_mm512_shuffle_f32x4(a, b, 0xDD);
    return (vf)_mm512_unpacklo_pd((__m512d)a, (__m512d)b) +
           (vf)_mm512_unpackhi_pd((__m512d)a, (__m512d)b);
  }

  // kParts parts of the values at a time.
  template <int kRows, int kParts>
  void mix(const bf16* weights, const bf16* cache, const Rows& keys, float* sums) {
    long d = 0;
    for (; d + kParts * kPart <= depth_; d += kParts * kPart)
      columns<kRows, kParts>(weights, cache, keys, d, sums);
    if constexpr (kParts > 2)
      for (; d + 2 * kPart <= depth_; d += 2 * kPart)
        columns<kRows, 2>(weights, cache, keys, d, sums);
    if constexpr (kParts > 1)
      for (; d < depth_; d += kPart) columns<kRows, 1>(weights, cache, keys, d, sums);
  }

  template <int kRows, int kParts>
  void columns(const bf16* weights, const bf16* cache, const Rows& keys, long d, float* to) {
    vf sums[kRows][2 * kParts];
    to += d;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
      for (int p = 0; p < 2 * kParts; p++) sums[r][p] = load(to + r * depth_ + p * kWidth);
    for (int key = 0; key < keys.count; key += 2) {
      const bf16* row = cache + keys.offsets[key] + d;
      // The weight of a key past the last is 0; it stands for itself, which is finite.
      const bf16* next = key + 1 < keys.count ? cache + keys.offsets[key + 1] + d : row;
      if (d == 0) {
        prefetch(cache, keys, key, depth_);
        prefetch(cache, keys, key + 1, depth_);
      }
      vf pairs[2 * kParts];
#pragma GCC unroll 4
      for (int part = 0; part < kParts; part++)
        Packing<2>::interleave(PairStep::read(row + part * kPart),
                               PairStep::read(next + part * kPart), pairs + 2 * part);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        const vf weight = PairStep::broadcast(weights + r * kTileKeys + key);
#pragma GCC unroll 8
        for (int p = 0; p < 2 * kParts; p++)
          sums[r][p] = PairStep::add_product(sums[r][p], weight, pairs[p]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
      for (int p = 0; p < 2 * kParts; p++) store(sums[r][p], to + r * depth_ + p * kWidth);
  }

  const bf16* query_ = nullptr;
  int rows_ = 0;
  long depth_ = 0;
};
#endif
