// One token per row of logits: reference_sampling.race and reference_sampling.argmax.
//
// The race computes every token's random bits but few logarithms: a token can only lead if an upper
// bound of its noise carries it past the leader so far, which some dozens of a row do. Those get the
// exact noise, in float64. Answers do not depend on how a row is cut into pieces for the threads.
#include <limits>
#include <vector>

#include "simd.h"
#include "threads.h"

typedef uint64_t vq __attribute__((vector_size(SIMD_BYTES)));
constexpr int kLanes = SIMD_BYTES / 8;
// As many 32-bit numbers as a vq has 64-bit ones.
typedef float vs __attribute__((vector_size(SIMD_BYTES / 2)));
typedef int32_t vsi __attribute__((vector_size(SIMD_BYTES / 2)));

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr long kPiece = 8192;  // numbers: some microseconds of work

// ---- the race

constexpr uint64_t kGamma = 0x9E3779B97F4A7C15;
constexpr float kLargestNoise = 36.75f;  // of the largest 52 bits: 53 ln 2 = 36.737

// SplitMix64's output for a state, of one number or a vector.
template <typename Q>
static inline Q mixed(Q z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

static inline double gumbel_noise(uint64_t key, long token) {
  uint64_t bits = mixed(key + (uint64_t)(token + 1) * kGamma) >> 12;
  return -std::log(-std::log(((double)bits + 0.5) * 0x1p-52));
}

// No less than the noise of those mixed bits, and within about 0.1 where the noise is large.
// With v = 1 - u: -log(-log(u)) <= -log(v), v >= its first 24 bits f * 2^-24, and the bits of a
// float read as an integer, i, give log2(f) >= i * 2^-23 - 127. 1e-3 is more than all rounding.
static inline vs noise_bound(vq mixed_bits) {
  vs first_bits = __builtin_convertvector(__builtin_convertvector(~mixed_bits >> 40, vsi), vs);
  constexpr float kLog2 = 0.69314718f;
  return (151 * kLog2 + 1e-3f) - __builtin_convertvector((vsi)first_bits, vs) * (kLog2 * 0x1p-23f);
}

// A bit for each lane in which a <= b; none where either is NaN.
static inline unsigned lanes_where_le(vs a, vs b) {
#if defined(__AVX512VL__)
  return _mm256_cmp_ps_mask((__m256)a, (__m256)b, _CMP_LE_OQ);
#elif defined(__AVX2__)
  return _mm_movemask_ps((__m128)(a <= b));
#else
  unsigned lanes = 0;
  for (int i = 0; i < kLanes; i++) lanes |= (unsigned)(a[i] <= b[i]) << i;
  return lanes;
#endif
}

struct Leader {
  double score = -std::numeric_limits<double>::infinity();
  int64_t token = 0;
};

// The winner among tokens [start, end) of a row; the first of several.
static Leader race_piece(const float* logits, uint64_t key, long start, long end) {
  Leader leader;
  float to_beat = -kInfinity;  // the leader's score, rounded down
  auto consider = [&](long token) {
    double score = gumbel_noise(key, token) + (double)logits[token];
    if (!(score > leader.score)) return;
    leader = {score, token};
    to_beat = (float)score;
    if (to_beat > score) to_beat = std::nextafter(to_beat, -kInfinity);
  };
  vq state;
  for (int i = 0; i < kLanes; i++) state[i] = key + (uint64_t)(start + 1 + i) * kGamma;
  long t = start;
  for (; t + kLanes <= end; t += kLanes, state += kLanes * kGamma) {
    vs logit;
    memcpy(&logit, logits + t, sizeof logit);
    // The noise a token needs: NaN, which is no lane below, for -inf before there is a leader.
    vs needed = to_beat - logit;
    if (!lanes_where_le(needed, kLargestNoise - vs{})) continue;
    unsigned lanes = lanes_where_le(needed, noise_bound(mixed(state)));
    for (; lanes; lanes &= lanes - 1) consider(t + __builtin_ctz(lanes));
  }
  for (; t < end; t++)
    if (to_beat - logits[t] <= kLargestNoise) consider(t);
  return leader;
}

// Enough pieces for every thread to have work, though there be one row.
static long pieces_of_a_row(long num_rows, long size) {
  return num_rows >= 8 * num_threads ? 1 : (size + kPiece - 1) / kPiece;
}

// logits [num_rows, size], rows stride apart, size at least 1; keys and tokens [num_rows]. A row of
// -inf alone gets token 0.
EXPORT void race(const float* logits, const int64_t* keys, int64_t* tokens, long num_rows,
                 long size, long stride) {
  long num_pieces = pieces_of_a_row(num_rows, size);
  std::vector<Leader> leaders(num_rows * num_pieces);
#pragma omp parallel for num_threads(num_threads) if (num_rows * size > kWorthSharing)
  for (long i = 0; i < num_rows * num_pieces; i++) {
    long row = i / num_pieces, piece = i % num_pieces;
    leaders[i] = race_piece(logits + row * stride, (uint64_t)keys[row], size * piece / num_pieces,
                            size * (piece + 1) / num_pieces);
  }
  for (long row = 0; row < num_rows; row++) {
    Leader winner;
    for (long piece = 0; piece < num_pieces; piece++) {
      const Leader& other = leaders[row * num_pieces + piece];
      if (other.score > winner.score) winner = other;
    }
    tokens[row] = winner.token;
  }
}

// ---- the largest

struct Largest {
  float value = -kInfinity;
  int64_t token = 0;
  bool has_nan = false;
};

// The largest of x[start .. end), the first of several.
static Largest largest_in(const float* x, long start, long end) {
  constexpr long kBlock = 64 * kWidth;  // stays in the first-level cache for the second look
  Largest largest;
  long where = start;
  vi is_nan = {};
  for (long block = start; block < end; block += kBlock) {
    long stop = block + kBlock < end ? block + kBlock : end;
    vf highest = splat(-kInfinity);
    long i = block;
    for (; i + kWidth <= stop; i += kWidth) {
      vf v = load(x + i);
      is_nan |= v != v;
      highest = vmax(v, highest);
    }
    if (i < stop) {
      vf v = load_some(x + i, stop - i, -kInfinity);
      is_nan |= v != v;
      highest = vmax(v, highest);
    }
    float value = max_of(highest);
    if (value > largest.value) {
      largest.value = value;
      where = block;
    }
  }
  while (where < end - 1 && x[where] != largest.value) where++;
  largest.token = where;
  for (int i = 0; i < kWidth; i++) largest.has_nan |= is_nan[i] != 0;
  return largest;
}

// logits as in race. is_sound: 1 where the largest is finite and no NaN is in the row; the token of
// any other row means nothing.
EXPORT void argmax(const float* logits, int64_t* tokens, uint8_t* is_sound, long num_rows,
                   long size, long stride) {
  long num_pieces = pieces_of_a_row(num_rows, size);
  std::vector<Largest> found(num_rows * num_pieces);
#pragma omp parallel for num_threads(num_threads) if (num_rows * size > kWorthSharing)
  for (long i = 0; i < num_rows * num_pieces; i++) {
    long row = i / num_pieces, piece = i % num_pieces;
    found[i] = largest_in(logits + row * stride, size * piece / num_pieces,
                          size * (piece + 1) / num_pieces);
  }
  for (long row = 0; row < num_rows; row++) {
    Largest largest;
    for (long piece = 0; piece < num_pieces; piece++) {
      const Largest& other = found[row * num_pieces + piece];
      largest.has_nan |= other.has_nan;
      if (other.value > largest.value) {
        largest.value = other.value;
        largest.token = other.token;
      }
    }
    tokens[row] = largest.token;
    is_sound[row] = !largest.has_nan && std::isfinite(largest.value);
  }
}
