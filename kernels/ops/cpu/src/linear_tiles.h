// Bfloat16 maps in AMX's tiles, whose rows do not depend on each other's number or place.
#pragma once

#include "attention_amx.h"
#include "linear_panels.h"

#if defined(ATTENTION_TILES)
class TileProduct {
 public:
  explicit TileProduct(const PanelCall<bf16>& call) : call_(call) {}

  // The pairs stay in the second-level cache while all rows pass.
  void run(const PairRange& pairs) {
    const long blocks = (call_.rows + kRows - 1) / kRows;
    const long count = pairs.last - pairs.first;
    // A single block of rows waits for the weight alone, which the processor's own prefetching
    // reads best. More compute from the cache while the next pairs can come.
    Ahead ahead = {(const char*)call_.at(pairs.next), 0};
    if (blocks > 1 && pairs.next + count <= call_.num_pairs())
      ahead.lines = (32 + blocks - 1) / blocks;
    const char* end = (const char*)call_.at(pairs.next + count);
    for (long row = 0; row < call_.rows; row += kRows) {
      const int rows_here = call_.rows - row < kRows ? call_.rows - row : kRows;
      gemm_.configure(rows_here);
      for (long pair = pairs.first; pair < pairs.last; pair++) {
        if (ahead.at >= end) ahead.lines = 0;
        // What was stored must be there: GCC's tile loads do not say that they read memory.
        asm volatile("" ::: "memory");
        if (rows_here > 16)
          multiply<true>(row, pair, ahead);
        else
          multiply<false>(row, pair, ahead);
        asm volatile("" ::: "memory");
        store_result(call_, sums_, row, rows_here, pair);
      }
    }
  }

 private:
  static constexpr int kRows = 32;  // of one product

  // Rows from the given one on, one or two tiles of them, times a pair: sums [rows][32].
  template <bool kTwo>
  inline void multiply(long row, long pair, Ahead& ahead) {
    const bf16 *x = call_.x + row * call_.x_stride, *weight = call_.at(pair);
    const long x_bytes = call_.x_stride * 2;
    _tile_zero(0);
    _tile_zero(1);
    if (kTwo) {
      _tile_zero(2);
      _tile_zero(3);
    }
    for (long k = 0; k < call_.inputs; k += 32) {
      ahead.ask();
      _tile_loadd(4, x + k, x_bytes);
      _tile_loadd(6, weight + k * 32, 128);
      _tile_loadd(7, weight + k * 32 + 32, 128);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      if (kTwo) {
        _tile_loadd(5, x + 16 * call_.x_stride + k, x_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, sums_, 128);
    _tile_stored(1, sums_ + 16, 128);
    if (kTwo) {
      _tile_stored(2, sums_ + 16 * 32, 128);
      _tile_stored(3, sums_ + 16 * 32 + 16, 128);
    }
  }

  const PanelCall<bf16> call_;
  TileGemm gemm_;
  alignas(64) float sums_[kRows * 32];
};
#endif
