// Heads on their way into the cache: norm of query and key heads, rotation, and the copy of keys
// and values into their blocks. One function for reference.rotary, write_kv and rotary_write_kv.
#include "rows.h"
#include "threads.h"

// Turns the pairs (i, i + half); out may be x.
template <typename T>
static inline void turn_halves(const T* x, T* out, const float* cos, const float* sin, long half) {
  over_vectors(half, [&](long i, int count) {
    vf c = load_some(cos + i, count), s = load_some(sin + i, count);
    vf first = load_some(x + i, count), second = load_some(x + half + i, count);
    store_some(first * c - second * s, out + i, count);
    store_some(second * c + first * s, out + half + i, count);
  });
}

// Turns the pairs (2i, 2i + 1); out may be x.
template <typename T>
static inline void turn_neighbours(const T* x, T* out, const float* cos, const float* sin,
                                   long half) {
  for (long i = 0; i < half; i++) {
    float first = to_float(x[2 * i]), second = to_float(x[2 * i + 1]);
    from_float(first * cos[i] - second * sin[i], out + 2 * i);
    from_float(second * cos[i] + first * sin[i], out + 2 * i + 1);
  }
}

// What happens to every head of one token on its way.
struct Change {
  const float *cos, *sin;  // [half] of the token; null: no rotation
  const void* weight;      // [head_dim] of the norm before it; null: no norm
  float eps;
  long head_dim, half;
  bool interleaved;
};

template <typename T, typename W>
static inline void change_head(const T* x, T* out, const Change& change) {
  if (change.weight) {
    rms_norm_row(x, (const W*)change.weight, out, change.head_dim, change.eps);
    x = out;
  }
  long turned = 0;
  if (change.cos) {
    auto turn = change.interleaved ? turn_neighbours<T> : turn_halves<T>;
    turn(x, out, change.cos, change.sin, change.half);
    turned = 2 * change.half;
  }
  if (x != out) memcpy(out + turned, x + turned, (change.head_dim - turned) * sizeof(T));
}

// query, key and value [num_tokens, heads, head_dim], tokens stride apart, heads contiguous; the
// heads of query go to out, contiguous, those of key and value to their caches
// [blocks, num_kv_heads, block_size, head_dim]. num_heads may be 0; value null: keys alone are
// written. Slots null: token t has slot t. cos and sin [num_tokens, half] or null.
EXPORT void rotary_write_kv(const void* query, const void* key, const void* value, void* out,
                            void* key_cache, void* value_cache, const int64_t* slots,
                            const float* cos, const float* sin, const void* query_weight,
                            const void* key_weight, long num_tokens, long num_heads,
                            long num_kv_heads, long head_dim, long half, long query_stride,
                            long key_stride, long value_stride, long block_size, float eps,
                            int interleaved, int dtype, int weight_dtype) {
  long work = num_tokens * (num_heads + 2 * num_kv_heads) * head_dim;
  by_dtypes(dtype, weight_dtype, [&](auto* type, auto* weight_type) {
    using Heads = decltype(type);
    using T = std::remove_pointer_t<decltype(type)>;
    using W = std::remove_pointer_t<decltype(weight_type)>;
#pragma omp parallel for num_threads(num_threads) if (work > kWorthSharing)
    for (long t = 0; t < num_tokens; t++) {
      Change change = {cos ? cos + t * half : nullptr, sin ? sin + t * half : nullptr, query_weight,
                       eps, head_dim, half, interleaved != 0};
      for (long h = 0; h < num_heads; h++)
        change_head<T, W>((Heads)query + t * query_stride + h * head_dim,
                          (Heads)out + (t * num_heads + h) * head_dim, change);
      change.weight = key_weight;
      long slot = slots ? slots[t] : t;
      long block = slot / block_size, offset = slot % block_size;
      for (long h = 0; h < num_kv_heads; h++) {
        long at = ((block * num_kv_heads + h) * block_size + offset) * head_dim;
        change_head<T, W>((Heads)key + t * key_stride + h * head_dim, (Heads)key_cache + at,
                          change);
        if (value)
          memcpy((Heads)value_cache + at, (Heads)value + t * value_stride + h * head_dim,
                 head_dim * sizeof(T));
      }
    }
  });
}
