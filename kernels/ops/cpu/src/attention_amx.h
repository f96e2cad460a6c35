// The bfloat16 product of attention_gemm.h in AMX's tiles: 16 rows by 16 columns by 32 deep.
#pragma once

#include "attention_gemm.h"
#include "tiles.h"

#if defined(__AMX_BF16__)
#define ATTENTION_TILES 1

// Tiles 0-3 hold C (two by two), 4 and 5 rows of A, 6 and 7 panels of B.
class TileGemm {
 public:
  typedef bf16 Number;
  static constexpr int kPair = 2;
  static constexpr int kDepth = 32;
  typedef PairGemm::Operands Operands;

  TileGemm() = default;
  TileGemm(const TileGemm&) = delete;
  // Other users of the tiles, oneDNN among them, set their own shapes.
  ~TileGemm() {
    if (configured_ != 0) _tile_release();
  }

  // Shapes for products with so many rows, at most 32.
  void configure(int rows) {
    if (rows == configured_) return;
    int upper = rows < 16 ? rows : 16, lower = rows > 16 ? rows - 16 : 16;
    Shapes shapes;
    for (int tile = 0; tile < 8; tile++) shapes.row_bytes[tile] = 64;
    shapes.rows[0] = shapes.rows[1] = shapes.rows[4] = upper;
    shapes.rows[2] = shapes.rows[3] = shapes.rows[5] = lower;
    shapes.rows[6] = shapes.rows[7] = 16;
    _tile_loadconfig(&shapes);
    configured_ = rows;
  }

  // At most 32 rows.
  template <bool kAdd>
  void multiply(const Operands& of, int rows, int panels) {
    configure(rows);
    // GCC's tile loads do not say that they read memory: what was stored must be there.
    asm volatile("" ::: "memory");
    int panel = 0;
    if (rows > 16) {
      for (; panel + 2 <= panels; panel += 2) four<kAdd>(of, panel);
    } else {
      for (; panel + 2 <= panels; panel += 2) two<kAdd>(of, panel);
    }
  }

  // 16 rows of keys where they lie, head_dim a multiple of 32 and row_stride numbers apart, times
  // up to 16 rows of the query, packed as columns: products [key][16]. At most 16 rows are
  // configured. Each product is summed as multiply() does, with the factors' places exchanged.
  template <typename Prefetch>
  void multiply_keys(const bf16* keys, long row_stride, const bf16* columns, long depth, int rows,
                     float* products, const Prefetch& prefetch) {
    configure(rows);
    asm volatile("" ::: "memory");
    _tile_zero(2);
    for (long k = 0; k < depth; k += 32) {
      _tile_loadd(5, keys + k, row_stride * 2);
      _tile_loadd(6, columns + k * 16, 64);
      _tile_dpbf16ps(2, 5, 6);
      prefetch(k);
    }
    _tile_stored(2, products, 64);
  }

 private:
  struct alignas(64) Shapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };

  template <bool kAdd>
  static inline void four(const Operands& of, int panel) {
    float *c = of.c + panel * 16, *below = c + 16 * of.ldc;
    const long c_bytes = of.ldc * 4, a_bytes = of.lda * 2;
    if (kAdd) {
      _tile_loadd(0, c, c_bytes);
      _tile_loadd(1, c + 16, c_bytes);
      _tile_loadd(2, below, c_bytes);
      _tile_loadd(3, below + 16, c_bytes);
    } else {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
    const bf16* b = of.b + panel * of.panel_stride;
    for (long k = 0; k < of.depth; k += 32) {
      _tile_loadd(4, of.a + k, a_bytes);
      _tile_loadd(6, b + k * 16, 64);
      _tile_loadd(7, b + of.panel_stride + k * 16, 64);
      _tile_loadd(5, of.a + 16 * of.lda + k, a_bytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + 16, c_bytes);
    _tile_stored(2, below, c_bytes);
    _tile_stored(3, below + 16, c_bytes);
  }

  template <bool kAdd>
  static inline void two(const Operands& of, int panel) {
    float* c = of.c + panel * 16;
    const long c_bytes = of.ldc * 4, a_bytes = of.lda * 2;
    if (kAdd) {
      _tile_loadd(0, c, c_bytes);
      _tile_loadd(1, c + 16, c_bytes);
    } else {
      _tile_zero(0);
      _tile_zero(1);
    }
    const bf16* b = of.b + panel * of.panel_stride;
    for (long k = 0; k < of.depth; k += 32) {
      _tile_loadd(4, of.a + k, a_bytes);
      _tile_loadd(6, b + k * 16, 64);
      _tile_loadd(7, b + of.panel_stride + k * 16, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + 16, c_bytes);
  }

  int configured_ = 0;  // rows that the shapes are for; 0: none are set
};
#endif
