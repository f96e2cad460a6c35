// A bfloat16 linear map in AMX's tiles, whose rows do not depend on each other's number or place:
// for batch-invariant mode, where oneDNN sums in another order for other row counts.
#include <atomic>

#include "activations.h"
#include "attention_amx.h"
#include "threads.h"

#if defined(ATTENTION_TILES)
// Columns of the weight that stay in the second-level cache while all rows pass: 16 KB for each 64
// inputs.
constexpr int kPanels = 8;
constexpr int kRows = 32;  // of one product

// What becomes of a pair of panels: both are results, or the left gates the right, act(left) * right.
enum Gate : int { kNoGate = 0, kSilu = 1, kGelu = 2, kGeluTanh = 3 };

// What is the same for all products of a call.
struct Map {
  const bf16* x;
  long x_stride;
  const bf16* weight;
  const float* bias;
  bf16* out;
  long rows, inputs, outputs;
  int gate;  // of enum Gate

  const bf16* panel(long number) const { return weight + number * 16 * inputs; }
  long panels() const { return (outputs + 31) / 32 * 2; }
};

// Memory that is asked for while the tiles compute with what has come.
struct Ahead {
  const char* at;
  int lines;  // at each step of the tiles

  inline void ask() {
    for (int line = 0; line < lines; line++) _mm_prefetch(at + line * 64, _MM_HINT_T1);
    at += lines * 64;
  }
};

// Rows from the given one on, one or two tiles of them, times two panels: sums [rows][32].
template <bool kTwo>
static inline void multiply(const Map& map, long row, long panel, Ahead& ahead, float* sums) {
  const bf16* x = map.x + row * map.x_stride;
  const bf16 *left = map.panel(panel), *right = map.panel(panel + 1);
  _tile_zero(0);
  _tile_zero(1);
  if (kTwo) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (long k = 0; k < map.inputs; k += 32) {
    ahead.ask();
    _tile_loadd(4, x + k, map.x_stride * 2);
    _tile_loadd(6, left + k * 16, 64);
    _tile_loadd(7, right + k * 16, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (kTwo) {
      _tile_loadd(5, x + 16 * map.x_stride + k, map.x_stride * 2);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, 128);
  _tile_stored(1, sums + 16, 128);
  if (kTwo) {
    _tile_stored(2, sums + 16 * 32, 128);
    _tile_stored(3, sums + 16 * 32 + 16, 128);
  }
}

// Round sums [count][32], of rows from the given one on and two panels, into the result.
static void store_sums(const Map& map, const float* sums, long row, int count, long panel) {
  const long column = panel * 16;
  for (int r = 0; r < count; r++)
    for (long i = 0; i < 32 && column + i < map.outputs; i += kWidth) {
      const long left = map.outputs - column - i;
      const int some = left < kWidth ? left : kWidth;
      vf values = load(sums + r * 32 + i);
      if (map.bias != nullptr) values = values + load_some(map.bias + column + i, some);
      store_some(values, map.out + (row + r) * map.outputs + column + i, some);
    }
}

// The same, where the left panel gates the right one; outputs are those of both.
template <typename Act>
static void store_gated(const Map& map, const float* sums, long row, int count, long panel,
                        Act act) {
  static_assert(kWidth == 16, "a panel is a vector");
  const long column = panel * 16, width = map.outputs / 2;
  const bool has_bias = map.bias != nullptr;
  const vf left = has_bias ? load(map.bias + column) : vf{};
  const vf right = has_bias ? load(map.bias + column + 16) : vf{};
  for (int r = 0; r < count; r++) {
    const vf gate = load(sums + r * 32) + left, up = load(sums + r * 32 + 16) + right;
    store(act(gate) * up, map.out + (row + r) * width + column / 2);
  }
}

static void store_result(const Map& map, const float* sums, long row, int count, long panel) {
  if (map.gate == kSilu)
    store_gated(map, sums, row, count, panel, [](vf x) { return silu(x); });
  else if (map.gate == kGelu)
    store_gated(map, sums, row, count, panel, [](vf x) { return gelu_erf(x); });
  else if (map.gate == kGeluTanh)
    store_gated(map, sums, row, count, panel, [](vf x) { return gelu_tanh(x); });
  else
    store_sums(map, sums, row, count, panel);
}

// All rows times panels from the given one on; next are those that this thread takes after them.
static void multiply_panels(const Map& map, TileGemm& tiles, long first, long next, float* sums) {
  const long last = map.panels() < first + kPanels ? map.panels() : first + kPanels;
  const long blocks = (map.rows + kRows - 1) / kRows;
  // A single block of rows waits for the weight alone, which the processor's own prefetching
  // reads best. More compute from the cache while the next panels can come.
  Ahead ahead = {(const char*)map.panel(next), 0};
  if (blocks > 1 && next + kPanels <= map.panels()) ahead.lines = (32 + blocks - 1) / blocks;
  const char* end = (const char*)map.panel(next + kPanels);
  for (long row = 0; row < map.rows; row += kRows) {
    const int count = map.rows - row < kRows ? map.rows - row : kRows;
    tiles.configure(count);
    for (long panel = first; panel < last; panel += 2) {
      if (ahead.at >= end) ahead.lines = 0;
      // What was stored must be there: GCC's tile loads do not say that they read memory.
      asm volatile("" ::: "memory");
      if (count > 16)
        multiply<true>(map, row, panel, ahead, sums);
      else
        multiply<false>(map, row, panel, ahead, sums);
      asm volatile("" ::: "memory");
      store_result(map, sums, row, count, panel);
    }
  }
}

static void multiply_all(const Map& map) {
  std::atomic<long> taken{0};
#pragma omp parallel num_threads(num_threads) if (map.outputs * map.inputs > kWorthSharing)
  {
    TileGemm tiles;
    alignas(64) float sums[kRows * 32];
    // The next panels are taken before the first are done, so that it is known what to ask for.
    for (long first = taken.fetch_add(kPanels); first < map.panels();) {
      const long next = taken.fetch_add(kPanels);
      multiply_panels(map, tiles, first, next, sums);
      first = next;
    }
  }
}
#endif

EXPORT void find_tiles(int* answer) { *answer = tiles_allowed(); }

// x [rows, inputs] with rows x_stride apart; inputs a multiple of 32; weight in panels of 16 outputs,
// [panel][inputs / 2][16][2], an even number of panels; bias [outputs] float32 or null; out
// [rows, outputs]. With a gate, panels of gates and of what they gate take turns, outputs is a
// multiple of 32, and out is [rows, outputs / 2].
EXPORT void linear_tiles(const void* x, long x_stride, const void* weight, const float* bias,
                         void* out, long rows, long inputs, long outputs, int gate) {
#if defined(ATTENTION_TILES)
  multiply_all({(const bf16*)x, x_stride, (const bf16*)weight, bias, (bf16*)out, rows, inputs,
                outputs, gate});
#else
  (void)x, (void)x_stride, (void)weight, (void)bias, (void)out, (void)rows, (void)inputs;
  (void)outputs, (void)gate;
#endif
}
