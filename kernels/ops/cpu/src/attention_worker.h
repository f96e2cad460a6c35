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
#include "workspace.h"

constexpr int kBlockRows = 32;  // rows whose scores are at hand at once, in the first-level cache
constexpr int kGrain = 32;      // keys are computed in multiples of it: one step of AMX's tiles

// T: numbers of the caches; Gemm: how chunks are multiplied; Few: how few rows are.
template <typename T, class Gemm, class Few = FewRows<T, Gemm>>
class Worker {
 public:
  explicit Worker(const Attention& of)
      : of_(of),
        group_(of.num_heads / of.num_kv_heads),
        depth_(round_up(of.head_dim, Gemm::kDepth)) {
    static thread_local Workspace workspace;
    const size_t number = sizeof(Number), keys = kTileKeys;
    const long shared[] = {(long)(keys * depth_ * number),
                           (long)(kValuesStride * (depth_ / kWidth) * number),
                           (long)((keys + kAhead) * sizeof(long))};
    long total = head_bytes(kPieceRows, kBlockRows) + kMaxHeads * head_bytes(kFewRows, kFewRows);
    for (long size : shared) total += round_up(size, 64);
    char* at = workspace.reserve(total);
    auto take = [&at](long size) {
      char* part = at;
      at += round_up(size, 64);
      return part;
    };
    keys_ = (Number*)take(shared[0]);
    values_ = (Number*)take(shared[1]);
    offsets_ = (long*)take(shared[2]);
    many_ = lay_out(take(head_bytes(kPieceRows, kBlockRows)), kPieceRows, kBlockRows);
    for (Head& head : few_)
      head = lay_out(take(head_bytes(kFewRows, kFewRows)), kFewRows, kFewRows);
  }

  void run(const Piece& piece) {
    const bool few = piece.is_few();
    Head* heads = few ? few_ : &many_;
    for (long h = 0; h < piece.heads; h++) begin(of_head(piece, h), heads[h], few);
    const long low = visible(of_, piece, piece.first).low;
    const long high = visible(of_, piece, piece.last - 1).high;
    for (long start = low / kTileKeys * kTileKeys; start < high; start += kTileKeys) {
      const long skipped = low > start ? (low - start) / kGrain * kGrain : 0;
      const int count = high - start < kTileKeys ? high - start : kTileKeys;
      const Rows keys = find_rows(piece, start + skipped, count - skipped);
      if (few)
        attend_few(piece, keys, start + skipped);
      else
        attend_tile(piece, keys, start + skipped);
    }
    for (long h = 0; h < piece.heads; h++) finish(of_head(piece, h), heads[h]);
  }

 private:
  typedef typename Gemm::Number Number;

  // Of the panels of values: a cache line more than they need, so that they do not fall on the same
  // lines of the first-level cache.
  static constexpr long kValuesStride = kTileKeys * kWidth + 64 / sizeof(Number);

  // What is kept for one head of the caches: operands, and results so far.
  struct Head {
    Number* query;    // [rows, depth]
    float* sums;      // [rows, depth]
    float* scores;    // [rows at once, kTileKeys]
    Number* weights;  // the same
    Seen* seen;       // [rows]
    char* own;        // of few
    Few few;
  };

  long head_bytes(long rows, long at_once) const {
    return round_up(rows * depth_ * sizeof(Number), 64) + round_up(rows * depth_ * 4, 64) +
           at_once * kTileKeys * (4 + sizeof(Number)) + round_up(rows * sizeof(Seen), 64) +
           Few::num_bytes(depth_);
  }

  Head lay_out(char* at, long rows, long at_once) const {
    Head head;
    head.query = (Number*)at;
    head.sums = (float*)(at += round_up(rows * depth_ * sizeof(Number), 64));
    head.scores = (float*)(at += round_up(rows * depth_ * 4, 64));
    head.weights = (Number*)(at += at_once * kTileKeys * 4);
    head.seen = (Seen*)(at += at_once * kTileKeys * sizeof(Number));
    head.own = at + round_up(rows * sizeof(Seen), 64);
    return head;
  }

  long head(const Piece& piece, long row) const { return piece.kv_head * group_ + row % group_; }

  static Piece of_head(const Piece& piece, long h) {
    return {piece.request, piece.kv_head + h, piece.first, piece.last};
  }

  long token(const Piece& piece, long row) const {
    return of_.query_starts[piece.request] + row / group_;
  }

  void begin(const Piece& piece, Head& state, bool few) {
    for (long row = piece.first; row < piece.last; row++) {
      const long i = row - piece.first, at = head(piece, row);
      const T* query = (const T*)of_.query + token(piece, row) * of_.query_stride;
      Packing<Gemm::kPair>::copy_row(query + at * of_.head_dim, of_.head_dim,
                                     state.query + i * depth_, depth_);
      // A sink is a score that was seen before all keys and has no value.
      const float sink = of_.sinks != nullptr ? of_.sinks[at] * kLog2E : -INFINITY;
      state.seen[i] = {sink, sink == -INFINITY ? 0.0f : 1.0f};
    }
    const long rows = piece.last - piece.first;
    if (few) state.few.begin(state.query, rows, depth_, state.own);
    memset(state.sums, 0, rows * depth_ * sizeof(float));
  }

  // All rows against these keys, of which 0 is at position.
  void attend_tile(const Piece& piece, const Rows& rows, long position) {
    const int keys = round_up(rows.count, kGrain);
    pack_keys<Gemm>((const T*)of_.key_cache, rows, of_.head_dim, keys_, depth_, keys / kWidth);
    pack_values<Gemm>((const T*)of_.value_cache, rows, of_.head_dim, values_, keys, kValuesStride);
    for (long row = piece.first; row < piece.last; row += kBlockRows) {
      const int rows_here = piece.last - row < kBlockRows ? piece.last - row : kBlockRows;
      const long low = visible(of_, piece, row).low - position;
      const long high = visible(of_, piece, row + rows_here - 1).high - position;
      const int first = low > 0 ? low / kGrain * kGrain : 0;
      const int last = high < keys ? round_up(high, kGrain) : keys;
      if (first < last) attend_block(piece, row, rows_here, position, first, last);
    }
  }

  // Few rows of some heads against these keys: a few keys of all heads, then the next, as they lie
  // in a block.
  void attend_few(const Piece& piece, const Rows& keys, long position) {
    const T *key_cache = (const T*)of_.key_cache, *value_cache = (const T*)of_.value_cache;
    const long next_head = of_.block_size * of_.head_dim;
    for (int first = 0; first < keys.count; first += kGrain)
      for (long h = 0; h < piece.heads; h++)
        few_[h].few.score(gemm_, key_cache + h * next_head, some(keys, first), of_.head_dim,
                          few_[h].scores + first);
    const int last = round_up(keys.count, kGrain), rows = piece.last - piece.first;
    for (long h = 0; h < piece.heads; h++)
      weigh_rows(of_head(piece, h), few_[h], piece.first, rows, position, 0, last);
    for (int first = 0; first < keys.count; first += kGrain)
      for (long h = 0; h < piece.heads; h++)
        few_[h].few.mix(gemm_, few_[h].weights + first, value_cache + h * next_head,
                        some(keys, first), of_.head_dim, few_[h].sums);
  }

  static Rows some(const Rows& keys, int first) {
    const int left = keys.count - first;
    return {keys.offsets + first, left < kGrain ? left : kGrain, 0};
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
    gemm_.template multiply<false>({many_.query + i * depth_, depth_, keys_ + first * depth_,
                                    depth_ * kWidth, depth_, many_.scores + first, kTileKeys},
                                   count, (last - first) / kWidth);
    weigh_rows(piece, many_, row, count, position, first, last);
    gemm_.template multiply<true>({many_.weights + first, kTileKeys, values_ + first * kWidth,
                                   kValuesStride, last - first, many_.sums + i * depth_, depth_},
                                  count, depth_ / kWidth);
  }

  // Products of rows [row, row + count) to weights, and their sums so far rescaled.
  void weigh_rows(const Piece& piece, Head& state, long row, int count, long position, int first,
                  int last) {
    const long i = row - piece.first;
    for (int r = 0; r < count; r++) {
      const Visible sees = visible(of_, piece, row + r);
      Span span = {first, last, 0, 0};
      span.low = clamp(sees.low - position, first, last);
      span.high = clamp(sees.high - position, span.low, last);
      const float rescale =
          weigh(state.scores + r * kTileKeys, state.weights + r * kTileKeys, span,
                sees.high - 1 - position, form(head(piece, row + r)), state.seen[i + r]);
      if (rescale != 1.0f) scale_row(state.sums + (i + r) * depth_, rescale);
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

  void finish(const Piece& piece, const Head& state) {
    for (long row = piece.first; row < piece.last; row++) {
      const float* sums = state.sums + (row - piece.first) * depth_;
      const float total = state.seen[row - piece.first].total;
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
  Number *keys_, *values_;  // a tile of both, packed
  long* offsets_;
  Head many_, few_[kMaxHeads];
};
