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
  long half, interleaved, window;
  double scale;
};

struct Stack {
  const Layer* layers;
  const void *final_norm, *final_norm_bias;
  const float* alibi_slopes;  // [num_heads] or null
  long num_layers, hidden, num_heads, num_kv_heads, head_dim, block_size;
  long gate;  // of enum Gate
  long is_layer_norm, invariant, dtype, norm_dtype, head_norm_dtype;
  double eps, head_eps, softcap;
};

struct Step {
  void* residual;  // [num_tokens, hidden]: the embeddings, and at the end the residual sum
  void* out;       // [num_tokens, hidden]: the final norm of it
  const int64_t *positions, *slots;
  const int *block_tables, *query_starts, *context_lens;
  long num_tokens, num_requests, table_stride;
  double* seconds;  // [kNumParts], to which the time of each part of this call is added
};

enum Part { kNorms, kQkv, kHeads, kAttention, kOut, kGateUp, kDown, kNumParts };

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Where a step's activations lie between the ops, each [num_tokens, ...].
struct Activations {
  char *x, *qkv, *query, *heads, *added, *gate_up, *wide, *scratch;
};

class Run {
 public:
  Run(const Stack& stack, const Step& step)
      : stack_(stack), step_(step), pieces_(cut_into_pieces(attention_of(stack.layers[0]))) {
    static thread_local Workspace workspace;
    lay_out(nullptr);
    lay_out(workspace.reserve(size_));
  }

  void run() {
    last_ = now();
#pragma omp parallel num_threads(num_threads)
    {
      norm(step_.residual, stack_.layers[0].attn_norm, stack_.layers[0].attn_norm_bias);
      for (long i = 0; i < stack_.num_layers; i++) {
        const Layer& layer = stack_.layers[i];
        attend(layer);
        add_norm(layer.mlp_norm, layer.mlp_norm_bias, at_.x);
        feed_forward(layer);
        if (i + 1 < stack_.num_layers)
          add_norm(stack_.layers[i + 1].attn_norm, stack_.layers[i + 1].attn_norm_bias, at_.x);
        else
          add_norm(stack_.final_norm, stack_.final_norm_bias, step_.out);
      }
    }
  }

 private:
  // The sizes of all layers are those of the first.
  void lay_out(char* memory) {
    const Layer& layer = stack_.layers[0];
    const long tokens = step_.num_tokens, number = stack_.dtype == kFloat32 ? 4 : 2;
    size_ = 0;
    auto take = [&](long numbers) {
      char* part = memory + size_;
      size_ += (numbers * number + 63) / 64 * 64;
      return part;
    };
    at_.x = take(tokens * stack_.hidden);
    at_.qkv = take(tokens * layer.qkv->outputs);
    at_.query = take(tokens * layer.out->inputs);
    at_.heads = take(tokens * layer.out->inputs);
    at_.added = take(tokens * stack_.hidden);
    at_.gate_up = take(tokens * layer.gate_up->width());
    at_.wide = gates_apart(layer) ? take(tokens * layer.down->inputs) : at_.gate_up;
    size_t scratch = 0;
    for (const LinearMap* map : {layer.qkv, layer.out, layer.gate_up, layer.down})
      scratch = std::max(scratch, scratch_bytes(*map, tokens));
    at_.scratch = memory + size_;
    size_ += scratch;
  }

  static bool gates_apart(const Layer& layer) { return layer.gate_up->gate == kNoGate; }

  void attend(const Layer& layer) {
    linear(*layer.qkv, at_.x, at_.qkv);
    count(kQkv);
    move_heads(layer);
    count(kHeads);
    attention_team(attention_of(layer), pieces_);
    count(kAttention);
    linear(*layer.out, at_.heads, at_.added);
    count(kOut);
  }

  void feed_forward(const Layer& layer) {
    linear(*layer.gate_up, at_.x, at_.gate_up);
    if (gates_apart(layer)) {
      const long width = layer.down->inputs;
      gate_team({at_.gate_up, at_.wide, step_.num_tokens, width, 2 * width, stack_.dtype},
                (Gate)stack_.gate);
    }
    count(kGateUp);
    linear(*layer.down, at_.wide, at_.added);
    count(kDown);
  }

  void linear(const LinearMap& map, const void* x, void* out) {
    linear_team({map, x, map.inputs, out, step_.num_tokens, (int)stack_.dtype, at_.scratch});
  }

  void norm(const void* x, const void* weight, const void* bias) {
    const long hidden = stack_.hidden;
    const NormCall call = {x,      weight, bias, at_.x,      step_.num_tokens, 1,
                           hidden, hidden, 0,    0,          stack_.eps,       stack_.dtype,
                           stack_.norm_dtype};
    stack_.is_layer_norm ? layer_norm_team(call) : rms_norm_team(call);
    count(kNorms);
  }

  // Join what was added to the residual sum, and normalise that.
  void add_norm(const void* weight, const void* bias, void* out) {
    const AddNormCall call = {at_.added,        step_.residual, weight,     bias,
                              out,              step_.residual, step_.num_tokens,
                              stack_.hidden,    stack_.eps,     stack_.dtype,
                              stack_.norm_dtype};
    stack_.is_layer_norm ? add_layer_norm_team(call) : add_rms_norm_team(call);
    count(kNorms);
  }

  void move_heads(const Layer& layer) {
    const long number = stack_.dtype == kFloat32 ? 4 : 2, qkv_dim = layer.qkv->outputs;
    const char* key = at_.qkv + stack_.num_heads * stack_.head_dim * number;
    HeadsCall call = {};
    call.query = at_.qkv;
    call.out = at_.query;
    call.key = key;
    call.key_cache = layer.key_cache;
    call.value = key + stack_.num_kv_heads * stack_.head_dim * number;
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
    call.query_stride = call.key_stride = call.value_stride = qkv_dim;
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

  // Add the time since the last count to a part's.
  void count(Part part) {
#pragma omp master
    {
      const double time = now();
      step_.seconds[part] += time - last_;
      last_ = time;
    }
  }

  const Stack& stack_;
  const Step& step_;
  Activations at_ = {};
  size_t size_ = 0;
  const std::vector<Piece> pieces_;
  double last_ = 0;
};

}  // namespace

EXPORT void run_layers(const Stack* stack, const Step* step) { Run(*stack, *step).run(); }
