// A bfloat16 linear map in AMX's tiles, whose rows do not depend on each other's number or place:
// for batch-invariant mode, where oneDNN sums in another order for other row counts.
#include "attention_amx.h"
#include "threads.h"

#if defined(ATTENTION_TILES)
// Columns of the weight that stay in the second-level cache while all rows pass: 16 KB for each 64
// inputs.
constexpr int kPanels = 8;
constexpr int kRows = 32;  // of one product

static void store_row(const float* sums, const float* bias, bf16* out, long columns) {
  for (long i = 0; i < columns; i += kWidth) {
    int count = columns - i < kWidth ? columns - i : kWidth;
    vf row = load(sums + i);
    if (bias != nullptr) row = row + load_some(bias + i, count);
    store_some(row, out + i, count);
  }
}

static void multiply(const bf16* x, long x_stride, const bf16* weight, const float* bias, bf16* out,
                     long rows, long inputs, long outputs) {
  const long panels = (outputs + 31) / 32 * 2, panel_numbers = 16 * inputs;
#pragma omp parallel num_threads(num_threads) if (outputs * inputs > kWorthSharing)
  {
    TileGemm gemm;
    alignas(64) float sums[kRows * kPanels * 16];
#pragma omp for schedule(dynamic)
    for (long first = 0; first < panels; first += kPanels) {
      const int some = panels - first < kPanels ? panels - first : kPanels;
      const long column = first * 16, rest = outputs - column;
      const long columns = rest < some * 16 ? rest : some * 16;
      for (long row = 0; row < rows; row += kRows) {
        const int height = rows - row < kRows ? rows - row : kRows;
        gemm.multiply<false>({x + row * x_stride, x_stride, weight + first * panel_numbers,
                              panel_numbers, inputs, sums, kPanels * 16},
                             height, some);
        for (int r = 0; r < height; r++)
          store_row(sums + r * kPanels * 16, bias ? bias + column : nullptr,
                    out + (row + r) * outputs + column, columns);
      }
    }
  }
}
#endif

// Whether the tiles can be used: compiled for, and granted by the system.
EXPORT void find_tiles(int* answer) {
#if defined(ATTENTION_TILES)
  *answer = tiles_allowed();
#else
  *answer = 0;
#endif
}

// x [rows, inputs] with rows x_stride apart; inputs a multiple of 32; weight in panels of 16 outputs,
// [panel][inputs / 2][16][2], an even number of panels; bias [outputs] float32 or null; out
// [rows, outputs].
EXPORT void linear_tiles(const void* x, long x_stride, const void* weight, const float* bias,
                         void* out, long rows, long inputs, long outputs) {
#if defined(ATTENTION_TILES)
  multiply((const bf16*)x, x_stride, (const bf16*)weight, bias, (bf16*)out, rows, inputs, outputs);
#else
  (void)x, (void)x_stride, (void)weight, (void)bias, (void)out, (void)rows, (void)inputs;
  (void)outputs;
#endif
}
