// Rows of activations as signed bytes with a scale.
#include "quantized.h"

typedef int8_t vb __attribute__((vector_size(kWidth)));

static inline vf absolute(vf x) { return bits_as_float(float_as_bits(x) & 0x7FFFFFFF); }
static inline vf rounded(vf x) { return (x + 12582912.0f) - 12582912.0f; }  // below 2**22

template <typename T>
static inline vf load_padded(const T* x, long k, long in) {
  if (k + kWidth <= in) return load(x + k);
  return load_some(x + k, k < in ? in - k : 0);
}

static inline int32_t sum_of_ints(vi x) {
  int32_t out = 0;
  for (int i = 0; i < kWidth; i++) out += x[i];
  return out;
}

static inline void put_quads(vf numbers, int8_t* at, long stride) {
  vb bytes = __builtin_convertvector(__builtin_convertvector(numbers, vi), vb);
  if (stride == 4)
    memcpy(at, &bytes, sizeof bytes);
  else
    for (int i = 0; i < kWidth / 4; i++) memcpy(at + i * stride, (const int8_t*)&bytes + 4 * i, 4);
}

template <typename T, int PLANES>
static void quantize_group(const T* x, long in, long start, long end, const Activations& to,
                           long index, Place place, int zero_point) {
  vf largest = {}, poison = {};
  for (long k = start; k < end; k += kWidth) {
    vf some = load_padded(x, k, in);
    largest = vmax(absolute(some), largest);
    poison += some * 0.0f;  // NaN where a number is infinite or NaN: so is the result
  }
  float most = max_of(largest);
  // Below, the inverse would overflow: such numbers count as zero.
  float inverse = most > 1e-30f ? kLimit[PLANES] / most : 0.0f;
  vi sums[PLANES] = {};
  for (long k = start; k < end; k += kWidth) {
    vf number = rounded(load_padded(x, k, in) * inverse);
    int8_t* at = place.bytes + k / kChunk * place.chunk_stride +
                 k % kChunk / 4 * place.quad_stride;
    if (PLANES == 2) {
      vf high = rounded(number * (1.0f / kHigh));
      put_quads(high, at, place.quad_stride);
      sums[0] += __builtin_convertvector(high, vi);
      number -= high * kHigh;
    }
    put_quads(number, at + (PLANES - 1) * place.plane_stride, place.quad_stride);
    sums[PLANES - 1] += __builtin_convertvector(number, vi);
  }
  to.scales[index] = most / kLimit[PLANES] + sum_of(poison);
  for (int p = 0; p < PLANES; p++)
    to.offsets[index * PLANES + p] = -zero_point * sum_of_ints(sums[p]);
}

template <typename T>
static void quantize_groups(const T* x, long in, long padded_in, const Activations& to, long row,
                            const Place& place, int zero_point) {
  for (long g = 0; g < to.num_groups; g++) {
    long start = g * to.group, end = g + 1 < to.num_groups ? start + to.group : padded_in;
    long index = g * to.rows + row;
    if (to.planes == 1)
      quantize_group<T, 1>(x, in, start, end, to, index, place, zero_point);
    else
      quantize_group<T, 2>(x, in, start, end, to, index, place, zero_point);
  }
}

void quantize_row(const void* x, int dtype, long in, long padded_in, const Activations& to,
                  long row, const Place& place, int zero_point) {
  if (dtype == kFloat32)
    quantize_groups((const float*)x, in, padded_in, to, row, place, zero_point);
  else if (dtype == kBFloat16)
    quantize_groups((const bf16*)x, in, padded_in, to, row, place, zero_point);
  else
    quantize_groups((const f16*)x, in, padded_in, to, row, place, zero_point);
}
