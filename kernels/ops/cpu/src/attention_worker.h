// One thread's part of paged attention: a piece of the rows against one tile of keys after another.
//
// Tiles start at multiples of kTileKeys from position 0, and nothing that is computed for a row
// depends on the other rows, so a query's result does not depend on how the work was cut.
#pragma once

#include "attention.h"
#include "attention_few.h"
#include "attention_gemm.h"
#include "attention_pack.h"
#include "attention_softmax.h"

constexpr int kBlockRows = 32;  // rows whose scores are at hand at once, in the first-level cache
constexpr int kGrain = 32;      // keys are computed in multiples of it: one step of AMX's tiles

template <typename T, class Gemm>
class Worker {
 public:
  explicit Worker(const Attention& of)
      : of_(of),
        group_(of.num_heads / of.num_kv_heads),
        depth_(round_up(of.head_dim, Gemm::kDepth)) {
    static thread_local Workspace workspace;
    const size_t number = sizeof(Number), keys = kTileKeys;
    const size_t values = kValuesStride * (depth_ / kWidth);
    const size_t sizes[] = {kPieceRows * depth_ * number, keys * depth_ * number,
                            values * number,              kPieceRows * depth_ * sizeof(float),
                            kBlockRows * keys * 4,        kBlockRows * keys * number,
                            kPieceRows * sizeof(Seen),    (keys + kAhead) * sizeof(long)};
    size_t total = 0;
    for (size_t size : sizes) total += round_up(size, 64);
    char* at = workspace.reserve(total);
    char* parts[8];
    for (int i = 0; i < 8; i++) {
      parts[i] = at;
      at += round_up(sizes[i], 64);
    }
    query_ = (Number*)parts[0];
    keys_ = (Number*)parts[1];
    values_ = (Number*)parts[2];
    sums_ = (float*)parts[3];
    scores_ = (float*)parts[4];
    weights_ = (Number*)parts[5];
    seen_ = (Seen*)parts[6];
    offsets_ = (long*)parts[7];
  }

  void run(const Piece& piece) {
    begin(piece);
    const long low = visible(of_, piece, piece.first).low;
    const long high = visible(of_, piece, piece.last - 1).high;
    for (long start = low / kTileKeys * kTileKeys; start < high; start += kTileKeys) {
      const long skipped = low > start ? (low - start) / kGrain * kGrain : 0;
      attend_tile(piece, start, skipped, high - start < kTileKeys ? high - start : kTileKeys);
    }
    finish(piece);
  }

 private:
  typedef typename Gemm::Number Number;

  // Of the panels of values: a cache line more than they need, so that they do not fall on the same
  // lines of the first-level cache.
  static constexpr long kValuesStride = kTileKeys * kWidth + 64 / sizeof(Number);

  long head(const Piece& piece, long row) const { return piece.kv_head * group_ + row % group_; }

  long token(const Piece& piece, long row) const {
    return of_.query_starts[piece.request] + row / group_;
  }

  void begin(const Piece& piece) {
    for (long row = piece.first; row < piece.last; row++) {
      const long i = row - piece.first, at = head(piece, row);
      const T* query = (const T*)of_.query + token(piece, row) * of_.query_stride;
      Packing<Gemm::kPair>::copy_row(query + at * of_.head_dim, of_.head_dim, query_ + i * depth_,
                                     depth_);
      // A sink is a score that was seen before all keys and has no value.
      const float sink = of_.sinks != nullptr ? of_.sinks[at] * kLog2E : -INFINITY;
      seen_[i] = {sink, sink == -INFINITY ? 0.0f : 1.0f};
    }
    if (few(piece)) few_.begin(query_, piece.last - piece.first, depth_);
    memset(sums_, 0, (piece.last - piece.first) * depth_ * sizeof(float));
  }

  // Keys [start + skipped, start + count) of the context.
  void attend_tile(const Piece& piece, long start, int skipped, int count) {
    const Rows rows = find_rows(piece, start + skipped, count - skipped);
    if (few(piece)) return attend_few(piece, rows, start + skipped);
    const int keys = round_up(count - skipped, kGrain);
    pack_keys<Gemm>((const T*)of_.key_cache, rows, of_.head_dim, keys_, depth_, keys / kWidth);
    pack_values<Gemm>((const T*)of_.value_cache, rows, of_.head_dim, values_, keys, kValuesStride);
    for (long row = piece.first; row < piece.last; row += kBlockRows) {
      const int rows_here = piece.last - row < kBlockRows ? piece.last - row : kBlockRows;
      const long low = visible(of_, piece, row).low - start - skipped;
      const long high = visible(of_, piece, row + rows_here - 1).high - start - skipped;
      const int first = low > 0 ? low / kGrain * kGrain : 0;
      const int last = high < keys ? round_up(high, kGrain) : keys;
      if (first < last) attend_block(piece, row, rows_here, start + skipped, first, last);
    }
  }

  static bool few(const Piece& piece) { return piece.last - piece.first <= kFewRows; }

  // All rows against these keys, of which 0 is at position.
  void attend_few(const Piece& piece, const Rows& keys, long position) {
    const int last = round_up(keys.count, kGrain);
    few_.score(gemm_, (const T*)of_.key_cache, keys, of_.head_dim, scores_);
    weigh_rows(piece, piece.first, piece.last - piece.first, position, 0, last);
    few_.mix(gemm_, weights_, (const T*)of_.value_cache, keys, of_.head_dim, sums_);
  }

  // Offsets of these keys' rows in the caches, and of kAhead more if the context has them.
  Rows find_rows(const Piece& piece, long start, int count) {
    const long end = visible(of_, piece, piece.last - 1).high;
    const int known = end - start < count + kAhead ? end - start : count + kAhead;
    const int* table = of_.block_tables + piece.request * of_.table_stride;
    const long size = of_.block_size, row_numbers = of_.head_dim;
    long block = start / size, within = start % size;
    for (int key = 0; key < known; block++, within = 0) {
      long at = ((table[block] * of_.num_kv_heads + piece.kv_head) * size + within) * row_numbers;
      for (; within < size && key < known; within++, key++, at += row_numbers) offsets_[key] = at;
    }
    return {offsets_, count, known};
  }

  // Rows [row, row + count) against keys [first, last) of those packed, of which 0 is at position.
  void attend_block(const Piece& piece, long row, int count, long position, int first, int last) {
    const long i = row - piece.first;
    float* sums = sums_ + i * depth_;
    gemm_.template multiply<false>({query_ + i * depth_, depth_, keys_ + first * depth_,
                                    depth_ * kWidth, depth_, scores_ + first, kTileKeys},
                                   count, (last - first) / kWidth);
    weigh_rows(piece, row, count, position, first, last);
    gemm_.template multiply<true>({weights_ + first, kTileKeys, values_ + first * kWidth,
                                   kValuesStride, last - first, sums, depth_},
                                  count, depth_ / kWidth);
  }

  // Products of rows [row, row + count) to weights, and their sums so far rescaled.
  void weigh_rows(const Piece& piece, long row, int count, long position, int first, int last) {
    const long i = row - piece.first;
    for (int r = 0; r < count; r++) {
      const Visible sees = visible(of_, piece, row + r);
      Span span = {first, last, 0, 0};
      span.low = clamp(sees.low - position, first, last);
      span.high = clamp(sees.high - position, span.low, last);
      const float rescale =
          weigh(scores_ + r * kTileKeys, weights_ + r * kTileKeys, span,
                sees.high - 1 - position, form(head(piece, row + r)), seen_[i + r]);
      if (rescale != 1.0f) scale_row(sums_ + (i + r) * depth_, rescale);
    }
  }

  static int clamp(long x, int least, int most) { return x < least ? least : x > most ? most : x; }

  ScoreForm form(long head) const {
    const float slope = of_.alibi_slopes != nullptr ? of_.alibi_slopes[head] * kLog2E : 0.0f;
    if (of_.softcap == 0.0f) return {of_.scale * kLog2E, 0.0f, slope};
    return {of_.scale / of_.softcap, of_.softcap * kLog2E, slope};
  }

  void scale_row(float* sums, float by) {
    for (long d = 0; d < depth_; d += kWidth) store(load(sums + d) * by, sums + d);
  }

  void finish(const Piece& piece) {
    for (long row = piece.first; row < piece.last; row++) {
      const float* sums = sums_ + (row - piece.first) * depth_;
      const float total = seen_[row - piece.first].total;
      T* to = (T*)of_.out + (token(piece, row) * of_.num_heads + head(piece, row)) * of_.head_dim;
      for (long d = 0; d < of_.head_dim; d += kWidth) {
        const int count = of_.head_dim - d < kWidth ? of_.head_dim - d : kWidth;
        // + 0: a sum of nothing but underflows may be -0 or 0, by the zeros that were added.
        store_some((load(sums + d) + 0.0f) / total, to + d, count);
      }
    }
  }

  const Attention& of_;
  const long group_, depth_;
  Gemm gemm_;
  FewRows<T, Gemm> few_;
  Number *query_, *keys_, *values_, *weights_;  // operands; weights_ [kBlockRows, kTileKeys]
  float *sums_, *scores_;  // [kPieceRows, depth], [kBlockRows, kTileKeys]
  Seen* seen_;
  long* offsets_;
};
