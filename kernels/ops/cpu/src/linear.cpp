// Linear maps: the choice of a way, and the work of a team.
#include "linear.h"

#include <omp.h>

#include "linear_tiles.h"
#include "linear_vectors.h"

// Pairs that a thread takes at once: as many as keep an activation in its cache while they pass, if
// that leaves every thread the same number of them.
static long pairs_at_once(long num_pairs) {
  for (long count = kMostPairs; count > 1; count /= 2) {
    const long turn = count * omp_get_num_threads();
    if ((num_pairs + turn - 1) / turn * turn <= num_pairs + num_pairs / 16) return count;
  }
  return 1;
}

// Up to so many rows all activations stay in the second-level cache, whatever pairs pass.
constexpr long kGuidedRows = 128;

template <class Product, typename T>
static void share_pairs(const PanelCall<T>& call) {
  const long num_pairs = call.num_pairs(), step = pairs_at_once(num_pairs);
  Product product(call);
  if (call.rows <= kGuidedRows) {
    // Memory is best read in long runs, and short ones at the end keep all threads busy.
#pragma omp for schedule(guided, 1)
    for (long pair = 0; pair < num_pairs; pair++) product.run({pair, pair + 1, pair + 1});
    return;
  }
#pragma omp for schedule(dynamic, 1)
  for (long first = 0; first < num_pairs; first += step) {
    const long last = first + step < num_pairs ? first + step : num_pairs;
    product.run({first, last, first + step * omp_get_num_threads()});
  }
}

static void bfloat16_team(const LinearCall& call) {
  const PanelCall<bf16> panels(call);
#if defined(ATTENTION_TILES)
  if (call.map.kind == kTiles) return share_pairs<TileProduct>(panels);
#endif
#if defined(ATTENTION_PAIRS)
  if (call.map.kind == kBFloatPairs) return share_pairs<VectorProduct<PairStep>>(panels);
#endif
  share_pairs<VectorProduct<WideStep<bf16>>>(panels);
}

void linear_team(const LinearCall& call) {
  if (call.map.kind >= kInt4)
    quantized_team(call);
  else if (call.dtype == kFloat32)
    share_pairs<VectorProduct<FloatStep>>(PanelCall<float>(call));
  else if (call.dtype == kBFloat16)
    bfloat16_team(call);
  else
    share_pairs<VectorProduct<WideStep<f16>>>(PanelCall<f16>(call));
}

size_t scratch_bytes(const LinearMap& map, long rows) {
  return map.kind >= kInt4 ? quantized_scratch_bytes(map, rows) : 0;
}

// x [rows, inputs] with rows x_stride apart, out [rows, outputs] contiguous, half as wide if the map
// is gated, both of one dtype.
// Returns 1 if there is no memory to work in.
EXPORT int linear(const LinearMap* map, const void* x, long x_stride, void* out, long rows,
                  int dtype) {
  static thread_local Workspace workspace;
  try {
    const LinearCall call = {*map, x,     x_stride, out,
                             rows, dtype, workspace.reserve(scratch_bytes(*map, rows))};
#pragma omp parallel num_threads(num_threads) if (map->inputs * map->outputs > kWorthSharing)
    linear_team(call);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}
