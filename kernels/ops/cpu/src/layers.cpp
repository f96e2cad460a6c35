// Plain decoder layers in one call: norm, attention, norm, gated MLP, each joined to the residual sum.
//
// One op at a time, each from Python, a layer's small ops take longer to reach than to run once its
// weights have pushed everything else out of the caches. Here one team of threads goes through all
// layers, with a barrier between two ops.
#include <algorithm>
#include <chrono>

#include "attention.h"
#include "simd.h"
#include "team.h"
#include "workspace.h"

// What follows is packed by layers.py, in this order, in fields of 8 bytes.

struct Layer {
  const LinearMap *qkv, *out, *gate_up, *down;
  const void *attn_norm, *attn_norm_bias, *mlp_norm, *mlp_norm_bias;  // [hidden]; no bias: null
  const void *query_norm, *key_norm;                                  // [head_dim] or null
  const float* sinks;                                                 // [num_heads] or null
  const float *cos, *sin;                                             // [positions, half] or null
  void *key_cache, *value_cache;
  long num_positions, half, interleaved, window;  // num_positions: rows of cos and sin
  double scale;
};

struct Stack {
  const Layer* layers;
  const void *final_norm, *final_norm_bias;
  const float* alibi_slopes;  // [num_heads] or null
  long num_layers, hidden, num_heads, num_kv_heads, head_dim, num_blocks, block_size;
  long gate;  // of enum Gate
  long is_layer_norm, invariant, dtype, norm_dtype, head_norm_dtype;
  double eps, head_eps, softcap;
};

struct Step {
  const void* embedded;  // [num_tokens, hidden]
  void* out;             // [num_rows, hidden]: the final norms of those that are wanted
  const int64_t* rows;  // [num_rows] of num_tokens; null: all of them, or none if num_rows is 0
  const int64_t *positions, *slots;
  const int *block_tables, *query_starts, *context_lens;
  long num_tokens, num_rows, num_requests, table_stride;
  double* seconds;  // [kNumParts], to which the time of each part of this call is added
};

enum Part { kNorms, kQkv, kHeads, kAttention, kOut, kGateUp, kDown, kNumParts };

// What run_layers returns: what is out of its range, or that there is no memory to work in.
enum Failure : int { kNone, kNoMemory, kBadRows, kBadPositions, kBadSlots, kBadBlocks };

namespace {

Failure check(const Stack& stack, const Step& step) {
  for (long i = 0; step.rows != nullptr && i < step.num_rows; i++)
    if (step.rows[i] < 0 || step.rows[i] >= step.num_tokens) return kBadRows;
  long num_positions = 0x7FFFFFFFFFFFFFFF;
  for (long i = 0; i < stack.num_layers; i++)
    if (stack.layers[i].cos != nullptr)
      num_positions = std::min(num_positions, stack.layers[i].num_positions);
  for (long t = 0; t < step.num_tokens; t++) {
    if (step.positions[t] < 0 || step.positions[t] >= num_positions) return kBadPositions;
    if (step.slots[t] < 0 || step.slots[t] >= stack.num_blocks * stack.block_size) return kBadSlots;
  }
  for (long i = 0; i < step.num_requests; i++) {
    const long blocks = (step.context_lens[i] + stack.block_size - 1) / stack.block_size;
    if (blocks > step.table_stride) return kBadBlocks;
    const int* table = step.block_tables + i * step.table_stride;
    for (long block = 0; block < blocks; block++)
      if (table[block] < 0 || table[block] >= stack.num_blocks) return kBadBlocks;
  }
  return kNone;
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Where a step's activations lie between the ops, each [num_tokens, ...].
struct Activations {
  char *residual, *x, *qkv, *query, *heads, *added, *gate_up, *wide, *wanted, *scratch;
};

class Run {
 public:
  Run(const Stack& stack, const Step& step)
      : stack_(stack),
        step_(step),
        number_(stack.dtype == kFloat32 ? 4 : 2),
        num_rows_(step.num_tokens),
        pieces_(cut_into_pieces(attention_of(stack.layers[0]))) {
    static thread_local Workspace workspace;
    lay_out(nullptr);
    lay_out(workspace.reserve(size_));
    memcpy(at_.residual, step.embedded, step.num_tokens * stack.hidden * number_);
    residual_ = at_.residual;
    heads_ = at_.heads;
  }

  void run() {
    last_ = now();
#pragma omp parallel num_threads(num_threads)
    {
      norm(stack_.layers[0].attn_norm, stack_.layers[0].attn_norm_bias);
      for (long i = 0; i < stack_.num_layers; i++) {
        const Layer& layer = stack_.layers[i];
        attend(layer);
        if (i + 1 == stack_.num_layers) leave_wanted();
        project(layer);
        add_norm(layer.mlp_norm, layer.mlp_norm_bias, at_.x);
        feed_forward(layer);
        if (i + 1 < stack_.num_layers)
          add_norm(stack_.layers[i + 1].attn_norm, stack_.layers[i + 1].attn_norm_bias, at_.x);
        else
          add_norm(stack_.final_norm, stack_.final_norm_bias, step_.out);
      }
    }
    for (int part = 0; part < kNumParts; part++) {
#pragma omp atomic  // another thread may run the same layers
      step_.seconds[part] += seconds_[part];
    }
  }

 private:
  // The sizes of all layers are those of the first.
  void lay_out(char* memory) {
    const Layer& layer = stack_.layers[0];
    // The rows that are wanted take the place of all tokens; they may be more, some of them twice.
    const long tokens = std::max(step_.num_tokens, step_.num_rows);
    size_ = 0;
    auto take = [&](long numbers) {
      char* part = memory + size_;
      size_ += (numbers * number_ + 63) / 64 * 64;
      return part;
    };
    at_.residual = take(tokens * stack_.hidden);
    at_.x = take(tokens * stack_.hidden);
    at_.qkv = take(tokens * layer.qkv->outputs);
    at_.query = take(tokens * layer.out->inputs);
    at_.heads = take(tokens * layer.out->inputs);
    at_.added = take(tokens * stack_.hidden);
    at_.gate_up = take(tokens * layer.gate_up->width());
    at_.wide = gates_apart(layer) ? take(tokens * layer.down->inputs) : at_.gate_up;
    at_.wanted = take(wants_all() ? 0 : step_.num_rows * stack_.hidden);
    size_t scratch = 0;
    for (const LinearMap* map : {layer.qkv, layer.out, layer.gate_up, layer.down})
      scratch = std::max(scratch, scratch_bytes(*map, tokens));
    at_.scratch = memory + size_;
    size_ += scratch;
  }

  bool wants_all() const { return step_.rows == nullptr && step_.num_rows == step_.num_tokens; }

  static bool gates_apart(const Layer& layer) { return layer.gate_up->gate == kNoGate; }

  void attend(const Layer& layer) {
    linear(*layer.qkv, at_.x, at_.qkv);
    note(kQkv);
    move_heads(layer);
    note(kHeads);
    attention_team(attention_of(layer), pieces_);
    note(kAttention);
  }

  // Go on with the rows that are wanted: what follows in the last layer concerns each row alone.
  void leave_wanted() {
    if (wants_all()) return;
    const long residual = stack_.hidden * number_;
    const long heads = stack_.num_heads * stack_.head_dim * number_;
#pragma omp for
    for (long i = 0; i < step_.num_rows; i++) {
      memcpy(at_.wanted + i * residual, residual_ + step_.rows[i] * residual, residual);
      memcpy(at_.query + i * heads, heads_ + step_.rows[i] * heads, heads);
    }
#pragma omp single
    {
      num_rows_ = step_.num_rows;
      residual_ = at_.wanted;
      heads_ = at_.query;
    }
  }

  void project(const Layer& layer) {
    linear(*layer.out, heads_, at_.added);
    note(kOut);
  }

  void feed_forward(const Layer& layer) {
    linear(*layer.gate_up, at_.x, at_.gate_up);
    if (gates_apart(layer)) {
      const long width = layer.down->inputs;
      gate_team({at_.gate_up, at_.wide, num_rows_, width, 2 * width, stack_.dtype},
                (Gate)stack_.gate);
    }
    note(kGateUp);
    linear(*layer.down, at_.wide, at_.added);
    note(kDown);
  }

  void linear(const LinearMap& map, const void* x, void* out) {
    linear_team({map, x, map.inputs, out, num_rows_, (int)stack_.dtype, at_.scratch});
  }

  void norm(const void* weight, const void* bias) {
    const long hidden = stack_.hidden;
    const NormCall call = {residual_,  weight,       bias,
                           at_.x,      num_rows_,       1,
                           hidden,     hidden,       0,
                           0,          stack_.eps,   stack_.dtype,
                           stack_.norm_dtype};
    stack_.is_layer_norm ? layer_norm_team(call) : rms_norm_team(call);
    note(kNorms);
  }

  // Join what was added to the residual sum, and normalise that.
  void add_norm(const void* weight, const void* bias, void* out) {
    const AddNormCall call = {at_.added,  residual_,     weight,     bias,         out,
                              residual_,  num_rows_,        stack_.hidden, stack_.eps, stack_.dtype,
                              stack_.norm_dtype};
    stack_.is_layer_norm ? add_layer_norm_team(call) : add_rms_norm_team(call);
    note(kNorms);
  }

  void move_heads(const Layer& layer) {
    const char* key = at_.qkv + stack_.num_heads * stack_.head_dim * number_;
    HeadsCall call = {};
    call.query = at_.qkv;
    call.out = at_.query;
    call.key = key;
    call.key_cache = layer.key_cache;
    call.value = key + stack_.num_kv_heads * stack_.head_dim * number_;
    call.value_cache = layer.value_cache;
    call.slots = step_.slots;
    call.block_size = stack_.block_size;
    call.cos = layer.cos;
    call.sin = layer.sin;
    call.positions = step_.positions;
    call.query_weight = layer.query_norm;
    call.key_weight = layer.key_norm;
    call.num_tokens = step_.num_tokens;
    call.num_heads = stack_.num_heads;
    call.num_kv_heads = stack_.num_kv_heads;
    call.head_dim = stack_.head_dim;
    call.half = layer.half;
    call.query_stride = call.key_stride = call.value_stride = layer.qkv->outputs;
    call.eps = stack_.head_eps;
    call.interleaved = layer.interleaved;
    call.dtype = stack_.dtype;
    call.weight_dtype = stack_.head_norm_dtype;
    move_heads_team(call);
  }

  Attention attention_of(const Layer& layer) const {
    return {at_.query,
            layer.key_cache,
            layer.value_cache,
            at_.heads,
            step_.block_tables,
            step_.query_starts,
            step_.context_lens,
            stack_.alibi_slopes,
            layer.sinks,
            step_.num_requests,
            stack_.num_heads,
            stack_.num_kv_heads,
            stack_.head_dim,
            stack_.block_size,
            step_.table_stride,
            stack_.num_heads * stack_.head_dim,
            layer.window,
            (float)layer.scale,
            (float)stack_.softcap,
            stack_.invariant != 0,
            (int)stack_.dtype};
  }

  // Add the time since the last note to a part's.
  void note(Part part) {
#pragma omp master
    {
      const double time = now();
      seconds_[part] += time - last_;
      last_ = time;
    }
  }

  const Stack& stack_;
  const Step& step_;
  const long number_;  // bytes of one
  Activations at_ = {};
  size_t size_ = 0;
  // Rows under way: all tokens, in the end those wanted; their sums, and the heads' outputs.
  long num_rows_;
  char *residual_ = nullptr, *heads_ = nullptr;
  const std::vector<Piece> pieces_;
  double last_ = 0, seconds_[kNumParts] = {};
};

}  // namespace

EXPORT int run_layers(const Stack* stack, const Step* step) {
  const Failure failure = check(*stack, *step);
  if (failure != kNone) return failure;
  try {
    Run(*stack, *step).run();
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  }
  return kNone;
}
