// Few rows against one tile of keys, which are read where they lie: single tokens, whose time is
// that of reading the cache. The results are those of the packed way (attention_gemm.h), to the bit.
#pragma once

#include "attention.h"
#include "attention_amx.h"
#include "attention_pack.h"

constexpr int kTileKeys = 256;  // keys of a tile, and the row stride of scores and weights

// Products in vector registers.
template <typename T, class Gemm>
class FewRows {
 public:
  typedef typename Gemm::Number Number;
  typedef typename Gemm::Step Step;

  static long num_bytes(long depth) { return round_up(kWidth * depth * sizeof(T), 64); }

  // query [rows, depth]; there is memory for kFewRows of them. own: num_bytes(depth) to keep.
  void begin(const Number* query, int rows, long depth, char* own) {
    query_ = query;
    rows_ = rows;
    depth_ = depth;
    near_ = (T*)own;
    for (int i = 0; i < kWidth; i++) near_offsets_[i] = i * depth;
  }

  // scores [rows, kTileKeys] for the keys given, rounded up to a multiple of kWidth.
  void score(Gemm&, const T* cache, const Rows& keys, long head_dim, float* scores) {
    if (rows_ == 1) return score<1>(cache, keys, head_dim, scores);
    if (rows_ == 2) return score<2>(cache, keys, head_dim, scores);
    if (rows_ <= 4) return score<4>(cache, keys, head_dim, scores);
    score<8>(cache, keys, head_dim, scores);
  }

  // sums [rows, depth] += weights [rows, kTileKeys] . values.
  void mix(Gemm&, const Number* weights, const T* cache, const Rows& keys, long head_dim,
           float* sums) {
    if (rows_ == 1) return mix<1, 8>(weights, cache, keys, head_dim, sums);
    if (rows_ == 2) return mix<2, 8>(weights, cache, keys, head_dim, sums);
    if (rows_ <= 4) return mix<4, 4>(weights, cache, keys, head_dim, sums);
    mix<8, 2>(weights, cache, keys, head_dim, sums);
  }

 private:
  static constexpr int kPair = Gemm::kPair;

  template <int kRows>
  void score(const T* cache, const Rows& keys, long head_dim, float* scores) {
    const int rows_each = (kWidth * kWidth * kPair + depth_ - 1) / depth_;
    for (int first = 0; first < keys.count; first += kWidth) {
      vf sums[kRows] = {};
      const Rows near = bring_near(cache, keys, first, head_dim);
      int soon = first;
      for (long d = 0; d < depth_; d += kWidth * kPair) {
        for (int i = 0; i < rows_each && soon < first + kWidth; i++, soon++)
          prefetch(cache, keys, soon, head_dim);
        vf square[kWidth];
        read_keys<kPair>(near_ + d, near, 0, head_dim - d, square);
#pragma GCC unroll 16
        for (int i = 0; i < kWidth; i++)
#pragma GCC unroll 8
          for (int r = 0; r < kRows; r++)
            sums[r] = Step::add_product(
                sums[r], Step::broadcast(query_ + r * depth_ + d + i * kPair), square[i]);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) store(sums[r], scores + r * kTileKeys + first);
    }
  }

  // Copy kWidth keys whole. A square of them is a part of each row: read from the cache, its lines would
  // come in an order in which no prefetching sees a stream (measured: 1.7 times as long).
  Rows bring_near(const T* cache, const Rows& keys, int first, long head_dim) {
    const int count = keys.count - first < kWidth ? keys.count - first : kWidth;
    constexpr long kLine = 64 / sizeof(T);  // copied without a call
    for (int i = 0; i < count; i++) {
      const T* from = cache + keys.offsets[first + i];
      T* to = near_ + i * depth_;
      long d = 0;
      for (; d + kLine <= head_dim; d += kLine) memcpy(to + d, from + d, 64);
      if (d < head_dim) memcpy(to + d, from + d, (head_dim - d) * sizeof(T));
    }
    return {near_offsets_, count, 0};
  }

  // kPanels panels of columns at a time, over a few keys: their values stay in the first cache.
  template <int kRows, int kPanels>
  void mix(const Number* weights, const T* cache, const Rows& keys, long head_dim, float* sums) {
    constexpr int kKeys = 32;
    for (int first = 0; first < keys.count; first += kKeys) {
      const int last = keys.count < first + kKeys ? keys.count : first + kKeys;
      const long step = kPanels * kWidth;
      long d = 0;
      for (; d + step <= head_dim; d += step)
        mix_columns<kRows, kPanels>(weights, cache, keys, first, last, d, head_dim, sums);
      // Whole rows at once where that can be: their lines are then read in the order of memory.
      if constexpr (kPanels > 4)
        for (; d + 4 * kWidth <= head_dim; d += 4 * kWidth)
          mix_columns<kRows, 4>(weights, cache, keys, first, last, d, head_dim, sums);
      for (; d < head_dim; d += kPair * kWidth)
        mix_columns<kRows, kPair>(weights, cache, keys, first, last, d, head_dim, sums);
    }
  }

  template <int kRows, int kPanels>
  void mix_columns(const Number* weights, const T* cache, const Rows& keys, int first, int last,
                   long d, long head_dim, float* to) {
    vf sums[kRows][kPanels];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; p++) sums[r][p] = load(to + r * depth_ + d + p * kWidth);
    for (int key = first; key < last; key += kPair) {
      if (d == 0)
        for (int i = 0; i < kPair; i++) prefetch(cache, keys, key + i, head_dim);
      vf values[kPanels];
      read_values<kPanels>(cache + d, keys, key, head_dim - d, values);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        const vf weight = Step::broadcast(weights + r * kTileKeys + key);
#pragma GCC unroll 8
        for (int p = 0; p < kPanels; p++)
          sums[r][p] = Step::add_product(sums[r][p], weight, values[p]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; p++) store(sums[r][p], to + r * depth_ + d + p * kWidth);
  }

  // Columns of one key, or pairs of two keys.
  template <int kPanels>
  static inline void read_values(const T* cache, const Rows& keys, int key, long left,
                                 vf* values) {
    constexpr int kColumns = kWidth * kPair;
    const T* row = cache + keys.offsets[key];
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; p += kPair) {
      const int count = kPanels > kPair || left > kColumns ? kColumns : left;
      values[p] = Packing<kPair>::read(row + p * kWidth, count);
#if defined(ATTENTION_PAIRS)
      if constexpr (kPair == 2) {
        const bool more = key + 1 < keys.count;
        const vf next =
            more ? Packing<2>::read(cache + keys.offsets[key + 1] + p * kWidth, count) : vf{};
        Packing<2>::interleave(values[p], next, values + p);
      }
#endif
    }
  }

  const Number* query_ = nullptr;
  int rows_ = 0;
  long depth_ = 0;
  T* near_ = nullptr;  // [kWidth, depth]
  long near_offsets_[kWidth];
};

#if defined(ATTENTION_TILES)
// Products in tiles: keys are rows of one as they lie; values are packed 32 keys at a time.
template <>
class FewRows<bf16, TileGemm> {
 public:
  static long num_bytes(long depth) {
    return round_up((2 * depth * kWidth + kStride * depth / kWidth) * 2, 64);
  }

  void begin(const bf16* query, int rows, long depth, char* own) {
    query_ = query;
    rows_ = rows;
    depth_ = depth;
    for (int row = 0; row < kFewRows; row++) query_rows_[row] = row * depth;
    columns_ = (bf16*)own;
    keys_ = columns_ + depth * kWidth;
    values_ = keys_ + depth * kWidth;
    const Rows query_rows = {query_rows_, rows, 0};
    pack_keys<TileGemm>(query, query_rows, depth, columns_, depth, 1);
  }

  void score(TileGemm& gemm, const bf16* cache, const Rows& keys, long head_dim, float* scores) {
    for (int first = 0; first < keys.count; first += kWidth) {
      const long* offsets = keys.offsets + first;
      if (head_dim == depth_ && keys.count - first >= kWidth &&
          offsets[kWidth - 1] - offsets[0] == (kWidth - 1) * head_dim) {
        score_in_place(gemm, cache, keys, first, scores + first);
      } else {
        const Rows some = {offsets, keys.count - first, keys.known - first};
        pack_keys<TileGemm>(cache, some, head_dim, keys_, depth_, 1);
        // Two panels are the least that the tiles multiply; the second is not used.
        alignas(64) float products[kFewRows * 2 * kWidth];
        gemm.multiply<false>({query_, depth_, keys_, 0, depth_, products, 2 * kWidth},
                             rows_, 2);
        for (int r = 0; r < rows_; r++)
          store(load(products + r * 2 * kWidth), scores + r * kTileKeys + first);
      }
    }
  }

  void mix(TileGemm& gemm, const bf16* weights, const bf16* cache, const Rows& keys, long head_dim,
           float* sums) {
    for (int first = 0; first < keys.count; first += kKeys) {
      const Rows some = {keys.offsets + first, keys.count - first, keys.known - first};
      pack_values<TileGemm>(cache, some, head_dim, values_, kKeys, kStride);
      gemm.multiply<true>(
          {weights + first, kTileKeys, values_, kStride, kKeys, sums, depth_}, rows_,
          depth_ / kWidth);
    }
  }

 private:
  static constexpr int kKeys = 32;
  static constexpr long kStride = kKeys * kWidth + 32;  // panels a cache line further apart

  void score_in_place(TileGemm& gemm, const bf16* cache, const Rows& keys, int first,
                      float* scores) {
    alignas(64) float products[kWidth * kWidth];
    const int rows_each = (32 * kWidth + depth_ - 1) / depth_;
    int soon = first;
    gemm.multiply_keys(cache + keys.offsets[first], depth_, columns_, depth_, rows_,
                       products, [&](long) {
                         for (int i = 0; i < rows_each && soon < first + kWidth; i++, soon++)
                           prefetch(cache, keys, soon, depth_);
                       });
    const __m512i every = _mm512_mullo_epi32(
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
        _mm512_set1_epi32(kWidth));
    for (int r = 0; r < rows_; r++)
      store((vf)_mm512_i32gather_ps(every, products + r, 4), scores + r * kTileKeys);
  }

  const bf16* query_ = nullptr;
  int rows_ = 0;
  long depth_ = 0;
  long query_rows_[kFewRows];
  bf16 *columns_ = nullptr, *keys_ = nullptr, *values_ = nullptr;  // query, 16 keys, 32 values
};
#endif
