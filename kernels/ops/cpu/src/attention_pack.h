// Rows of the query and of the paged caches, laid out as the operands of attention_gemm.h.
//
// Columns past head_dim and keys past the last are zeros: what lies there in a cache is never read.
#pragma once

#include "attention_gemm.h"
#include "attention_transpose.h"

static inline long round_up(long x, long multiple) { return (x + multiple - 1) / multiple * multiple; }

template <int kPair>
struct Packing;

// T is converted to float32; one number is one column.
template <>
struct Packing<1> {
  template <typename T>
  static inline vf read(const T* at, int count) {
    return load_some(at, count);
  }

  // One row of the query.
  template <typename T>
  static void copy_row(const T* row, long head_dim, float* to, long depth) {
    for (long d = 0; d < depth; d += kWidth)
      store(d < head_dim ? read(row + d, head_dim - d < kWidth ? head_dim - d : kWidth) : vf{},
            to + d);
  }

  // kWidth values of one key, to its place in the panel; row null: zeros.
  template <typename T>
  static inline void place_values(const T* row, const T*, int count, float* to, long) {
    store(row ? read(row, count) : vf{}, to);
  }
};

// bfloat16 as it is; a vector holds 2 * kWidth numbers, a pair is one 32-bit column.
template <>
struct Packing<2> {
  static inline vf read(const bf16* at, int count) {
    vf out = {};
    if (count >= 2 * kWidth)
      memcpy(&out, at, sizeof out);
    else
      memcpy(&out, at, 2 * count);
    return out;
  }

  static void copy_row(const bf16* row, long head_dim, bf16* to, long depth) {
    memcpy(to, row, 2 * head_dim);
    memset(to + head_dim, 0, 2 * (depth - head_dim));
  }

#if defined(ATTENTION_PAIRS)
  // The pairs of 2 * kWidth columns of two rows: those of the first kWidth columns, and the rest.
  static inline void interleave(vf row, vf next, vf* pairs) {
    pairs[0] = (vf)_mm512_permutex2var_epi16((__m512i)row, indices(0), (__m512i)next);
    pairs[1] = (vf)_mm512_permutex2var_epi16((__m512i)row, indices(kWidth), (__m512i)next);
  }

  // 2 * kWidth values of two keys that follow each other, to their places in two panels; null: zeros.
  static inline void place_values(const bf16* row, const bf16* next, int count, bf16* to,
                                  long panel_stride) {
    vf pairs[2];
    interleave(row ? read(row, count) : vf{}, next ? read(next, count) : vf{}, pairs);
    memcpy(to, &pairs[0], sizeof(vf));
    memcpy(to + panel_stride, &pairs[1], sizeof(vf));
  }

 private:
  // Indices of a[first], b[first], a[first + 1], b[first + 1] ...
  static inline __m512i indices(int first) {
    const __m512i even = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i a = _mm512_add_epi32(even, _mm512_set1_epi32(first));
    return _mm512_or_si512(a, _mm512_slli_epi32(_mm512_add_epi32(a, _mm512_set1_epi32(32)), 16));
  }
#endif
};

// Where the keys of one tile lie in the caches, and those a little further.
struct Rows {
  const long* offsets;  // of each key's row, in numbers
  int count;            // keys
  int known;            // offsets, count or more: the rest are wanted soon
};

// Keys between a row's prefetch and its use: 4 to 16 KB, the time of many reads from memory.
constexpr int kAhead = 32;

// Ask for the row that lies in the cache kAhead keys after this one. Whole rows in their order, so
// that the hardware's own prefetching sees a stream, and into the second-level cache: the first has
// too few reads under way at once.
template <typename T>
static inline void prefetch(const T* cache, const Rows& rows, int key, long head_dim) {
  if (key + kAhead >= rows.known) return;
  const char* at = (const char*)(cache + rows.offsets[key + kAhead]);
  for (long byte = 0; byte < head_dim * (long)sizeof(T); byte += 64)
    __builtin_prefetch(at + byte, 0, 2);
}

// kWidth keys from the given one, transposed: square[i] has number (or pair) i of every key.
template <int kPair, typename T>
static inline void read_keys(const T* cache, const Rows& rows, int first, long left, vf* square) {
  if (rows.count - first >= kWidth && left >= kWidth * kPair) {
    for (int i = 0; i < kWidth; i++)
      square[i] = Packing<kPair>::read(cache + rows.offsets[first + i], kWidth * kPair);
  } else {
    const int count = left < kWidth * kPair ? left : kWidth * kPair;
    for (int i = 0; i < kWidth; i++)
      square[i] = first + i < rows.count && count > 0
                      ? Packing<kPair>::read(cache + rows.offsets[first + i], count)
                      : vf{};
  }
  transpose(square);
}

// Keys as columns: panels of kWidth keys, [panel][depth / kPair][kWidth][kPair].
template <class Gemm, typename T>
static void pack_keys(const T* cache, const Rows& rows, long head_dim, typename Gemm::Number* to,
                      long depth, int panels) {
  constexpr int kPair = Gemm::kPair;
  const int rows_each = (kWidth * kWidth * kPair + depth - 1) / depth;  // to spread the prefetches
  for (int panel = 0; panel < panels; panel++, to += depth * kWidth) {
    const int first = panel * kWidth;
    int soon = first;
    for (long d = 0; d < depth; d += kWidth * kPair) {
      for (int i = 0; i < rows_each && soon < first + kWidth; i++, soon++)
        prefetch(cache, rows, soon, head_dim);
      vf square[kWidth];
      read_keys<kPair>(cache + d, rows, first, head_dim - d, square);
      for (int i = 0; i < kWidth; i++) memcpy(to + (d + i * kPair) * kWidth, &square[i], sizeof(vf));
    }
  }
}

// Values as rows: panels of kWidth columns, panel_stride apart, [keys / kPair][kWidth][kPair]; keys is
// a multiple of kPair.
template <class Gemm, typename T>
static void pack_values(const T* cache, const Rows& rows, long head_dim,
                        typename Gemm::Number* to, int keys, long panel_stride) {
  constexpr int kPair = Gemm::kPair;
  for (int key = 0; key < keys; key += kPair, to += kPair * kWidth) {
    for (int i = 0; i < kPair; i++) prefetch(cache, rows, key + i, head_dim);
    const T* row = key < rows.count ? cache + rows.offsets[key] : nullptr;
    const T* next = key + 1 < rows.count ? cache + rows.offsets[key + 1] : nullptr;
    for (long d = 0; d < head_dim; d += kWidth * kPair) {
      const int left = head_dim - d < kWidth * kPair ? head_dim - d : kWidth * kPair;
      Packing<kPair>::place_values(row ? row + d : nullptr, next ? next + d : nullptr, left,
                                   to + d / kWidth * panel_stride, panel_stride);
    }
  }
}
