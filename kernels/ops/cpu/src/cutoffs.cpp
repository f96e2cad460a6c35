// Top-k, top-p and min-p of a row while it is in the cache: reference_sampling.cut_unlikely.
//
// Nothing of the vocabulary's size is sorted. For top-p, a histogram over the logits finds the
// narrow range in which the probabilities reach p, and only what lies there is looked at again.
#include <algorithm>
#include <limits>
#include <vector>

#include "rows.h"
#include "threads.h"

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kBuckets = 2048;
constexpr float kFirstRange = 32.0f;  // exp(-32) of the largest hardly ever matters to a sum
constexpr size_t kFewEnoughToSort = 256;

// A bit for each lane that is true.
static inline unsigned lanes_of(vi mask) {
#if defined(__AVX512DQ__)
  return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask);
#else
  unsigned lanes = 0;
  for (int i = 0; i < kWidth; i++) lanes |= (unsigned)(mask[i] & 1) << i;
  return lanes;
#endif
}

// Appends the x for which keeps(x) to out; keeps must be false for -inf, which fills up vectors.
template <typename F>
static inline void gather(const float* x, long size, std::vector<float>& out, F keeps) {
  over_vectors(size, [&](long i, int count) {
    unsigned lanes = lanes_of(keeps(load_some(x + i, count, -kInfinity)));
    for (; lanes; lanes &= lanes - 1) out.push_back(x[i + __builtin_ctz(lanes)]);
  });
}

static float largest_of(const float* x, long size) {
  vf largest = splat(-kInfinity);
  over_vectors(size, [&](long i, int count) {
    largest = vmax(load_some(x + i, count, -kInfinity), largest);
  });
  return max_of(largest);
}

// The k-th largest of x; -inf if fewer are above that.
static float kth_largest(const float* x, long size, long k) {
  std::vector<float> top;
  float bound = -kInfinity;  // the k-th largest so far: only larger ones can change it
  auto shrink = [&] {
    std::nth_element(top.begin(), top.begin() + (k - 1), top.end(), std::greater<float>());
    top.resize(k);
    bound = top[k - 1];
  };
  constexpr long kPart = 16 * kWidth;
  for (long i = 0; i < size; i += kPart) {
    gather(x + i, std::min(kPart, size - i), top, [&](vf v) { return v > bound; });
    if ((long)top.size() > 4 * k + kPart) shrink();
  }
  if ((long)top.size() < k) return -kInfinity;
  shrink();
  return bound;
}

// Equal parts of a range of logits: 0 begins at the largest, and the last has no end.
struct Buckets {
  float largest, per_unit;

  vi of(vf x) const {
    vf place = (largest - x) * per_unit;
    return __builtin_convertvector(vmin(place, splat(kBuckets - 1)), vi);  // NaN: the last
  }
};

// The logit at which the probabilities among x, summed from the largest down, reach p; -inf if
// rounding keeps them below it.
static float nucleus_end(const float* x, long size, float p) {
  float largest = largest_of(x, size);
  if (!(largest > -kInfinity)) return -kInfinity;
  auto weight = [&](vf v) { return exp_of(v - largest); };
  std::vector<float> left, fewer;
  Buckets buckets = {largest, kBuckets / kFirstRange};
  double above = 0, target = -1;  // weights above what is left; no target before the first sum
  do {
    double mass[kBuckets] = {};
    over_vectors(size, [&](long i, int count) {
      vf v = load_some(x + i, count, -kInfinity), w = weight(v);
      vi bucket = buckets.of(v);
      for (int lane = 0; lane < count; lane++) mass[bucket[lane]] += w[lane];
    });
    if (target < 0) {
      double total = 0;
      for (double m : mass) total += m;
      target = p * total;
    }
    int reached = 0;
    for (; reached < kBuckets - 1 && above + mass[reached] < target; reached++)
      above += mass[reached];
    fewer.clear();
    gather(x, size, fewer, [&](vf v) { return (buckets.of(v) == reached) & (v > -kInfinity); });
    bool got_no_further = (long)fewer.size() == size;
    left.swap(fewer);
    if (left.empty() || got_no_further) break;
    auto [low, high] = std::minmax_element(left.begin(), left.end());
    if (*low == *high) return *low;
    buckets = {*high, (kBuckets - 1) / (*high - *low)};
    x = left.data();
    size = left.size();
  } while (left.size() > kFewEnoughToSort);
  std::sort(left.begin(), left.end(), std::greater<float>());
  for (float v : left) {
    above += weight(splat(v))[0];
    if (above >= target) return v;
  }
  return -kInfinity;
}

static void cut_row(float* x, long size, long top_k, float top_p, float min_p) {
  float threshold = -kInfinity;
  if (top_k < size) threshold = kth_largest(x, size, top_k);
  if (top_p < 1.0f && threshold > -kInfinity) {
    std::vector<float> kept;
    gather(x, size, kept, [=](vf v) { return v >= threshold; });
    threshold = std::max(threshold, nucleus_end(kept.data(), kept.size(), top_p));
  } else if (top_p < 1.0f) {
    threshold = nucleus_end(x, size, top_p);
  }
  if (min_p > 0.0f) threshold = std::max(threshold, largest_of(x, size) + std::log(min_p));
  over_vectors(size, [=](long i, int count) {
    vf v = load_some(x + i, count);
    store_some(v < threshold ? splat(-kInfinity) : v, x + i, count);
  });
}

// logits [num_rows, size], rows stride apart, changed in place; top_k [num_rows], size where off;
// top_p and min_p [num_rows], or null where all are off.
EXPORT void cut_unlikely(float* logits, const int64_t* top_k, const float* top_p,
                         const float* min_p, long num_rows, long size, long stride) {
#pragma omp parallel for num_threads(num_threads) schedule(dynamic) \
    if (num_rows * size > kWorthSharing)
  for (long row = 0; row < num_rows; row++)
    cut_row(logits + row * stride, size, top_k[row], top_p ? top_p[row] : 1.0f,
            min_p ? min_p[row] : 0.0f);
}
