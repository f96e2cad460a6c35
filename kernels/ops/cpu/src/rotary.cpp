// Heads on their way into the cache: norm of query and key heads, rotation, and the copy of keys
// and values into their blocks. One function for reference.rotary, write_kv and rotary_write_kv.
#include "rows.h"
#include "team.h"

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

template <typename T, typename W>
static void move_token(const HeadsCall& call, long t) {
  long head_dim = call.head_dim;
  long turn = (call.positions ? call.positions[t] : t) * call.half;
  Change change = {call.cos ? call.cos + turn : nullptr,
                   call.sin ? call.sin + turn : nullptr,
                   call.query_weight,
                   (float)call.eps,
                   head_dim,
                   call.half,
                   call.interleaved != 0};
  const T* query = (const T*)call.query + t * call.query_stride;
  for (long h = 0; h < call.num_heads; h++) {
    T* out = (T*)call.out + (t * call.num_heads + h) * head_dim;
    change_head<T, W>(query + h * head_dim, out, change);
  }
  change.weight = call.key_weight;
  const T* key = (const T*)call.key + t * call.key_stride;
  const T* value = (const T*)call.value + t * call.value_stride;
  long slot = call.slots ? call.slots[t] : t;
  long block = slot / call.block_size, offset = slot % call.block_size;
  for (long h = 0; h < call.num_kv_heads; h++) {
    long at = ((block * call.num_kv_heads + h) * call.block_size + offset) * head_dim;
    change_head<T, W>(key + h * head_dim, (T*)call.key_cache + at, change);
    if (call.value)
      memcpy((T*)call.value_cache + at, value + h * head_dim, head_dim * sizeof(T));
  }
}

void move_heads_team(const HeadsCall& call) {
  by_dtypes(call.dtype, call.weight_dtype, [&](auto* type, auto* weight_type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using W = std::remove_pointer_t<decltype(weight_type)>;
#pragma omp for
    for (long t = 0; t < call.num_tokens; t++) move_token<T, W>(call, t);
  });
}

EXPORT void rotary_write_kv(const HeadsCall* call) {
  long work = call->num_tokens * (call->num_heads + 2 * call->num_kv_heads) * call->head_dim;
#pragma omp parallel num_threads(num_threads) if (work > kWorthSharing)
  move_heads_team(*call);
}
