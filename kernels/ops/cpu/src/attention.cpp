// Causal attention over a paged cache: reference_attention.paged_attention.
//
// Online softmax over tiles of keys: Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022,
// arXiv:2205.14135.
#include "attention.h"

#include <algorithm>

#include "attention_amx.h"
#include "attention_pairs.h"
#include "attention_quick.h"
#include "attention_worker.h"
#include "threads.h"

std::vector<Piece> cut_into_pieces(const Attention& of) {
  const long group = of.num_heads / of.num_kv_heads;
  std::vector<long> order(of.num_requests);
  for (long i = 0; i < of.num_requests; i++) order[i] = i;
  auto queries = [&](long i) { return (long)of.query_starts[i + 1] - of.query_starts[i]; };
  auto size = [&](long i) { return std::min(queries(i) * group, kPieceRows) * of.context_lens[i]; };
  std::stable_sort(order.begin(), order.end(), [&](long a, long b) { return size(a) > size(b); });
  long few = 0;
  for (long i = 0; i < of.num_requests; i++) few += queries(i) * group <= kFewRows;
  // Heads of a block are neighbours in memory, which reads best in long runs; but every thread is to
  // have some pieces.
  const long heads_each = few * of.num_kv_heads / (2 * num_threads);
  std::vector<Piece> pieces;
  for (long request : order) {
    const long rows = queries(request) * group;
    if (rows > 0 && rows <= kFewRows) {
      const long most = std::max(1L, std::min({heads_each, of.num_kv_heads, kMaxHeads}));
      for (long head = 0; head < of.num_kv_heads; head += most)
        pieces.push_back({request, head, 0, rows, std::min(most, of.num_kv_heads - head)});
      continue;
    }
    // One head after another: its keys and values may stay in a cache. Later rows see more.
    for (long kv_head = 0; kv_head < of.num_kv_heads; kv_head++)
      for (long last = rows; last > 0;) {
        const long first = (last - 1) / kPieceRows * kPieceRows;
        pieces.push_back({request, kv_head, first, last});
        last = first;
      }
  }
  return pieces;
}

// Quick: the worker for few rows, but in batch-invariant mode.
template <class Chunks, class Quick>
static void attend(const Attention& of, const std::vector<Piece>& pieces) {
  Chunks worker(of);
  Quick quick(of);
#pragma omp for schedule(dynamic, 1)
  for (long i = 0; i < (long)pieces.size(); i++)
    if (pieces[i].is_few() && !of.invariant)
      quick.run(pieces[i]);
    else
      worker.run(pieces[i]);
}

template <typename T>
static void attend_in_floats(const Attention& of, const std::vector<Piece>& pieces) {
  attend<Worker<T, FloatGemm>, Worker<T, FloatGemm, QuickRows<T>>>(of, pieces);
}

#if defined(ATTENTION_PAIRS)
template <class Gemm>
static void attend_in_pairs(const Attention& of, const std::vector<Piece>& pieces) {
  if (PairRows::takes(of.head_dim))
    attend<Worker<bf16, Gemm>, Worker<bf16, PairGemm, PairRows>>(of, pieces);
  else
    attend<Worker<bf16, Gemm>, Worker<bf16, FloatGemm, QuickRows<bf16>>>(of, pieces);
}
#endif

static void attend_bfloat16(const Attention& of, const std::vector<Piece>& pieces) {
#if defined(ATTENTION_TILES)
  if (tiles_allowed()) return attend_in_pairs<TileGemm>(of, pieces);
#endif
#if defined(ATTENTION_PAIRS)
  attend_in_pairs<PairGemm>(of, pieces);
#else
  attend_in_floats<bf16>(of, pieces);
#endif
}

void attention_team(const Attention& of, const std::vector<Piece>& pieces) {
  if (of.dtype == kFloat32)
    attend_in_floats<float>(of, pieces);
  else if (of.dtype == kBFloat16)
    attend_bfloat16(of, pieces);
  else
    attend_in_floats<f16>(of, pieces);
}

EXPORT void paged_attention(const void* query, const void* key_cache, const void* value_cache,
                            void* out, const int* block_tables, const int* query_starts,
                            const int* context_lens, const float* alibi_slopes, const float* sinks,
                            long num_requests, long num_heads, long num_kv_heads, long head_dim,
                            long block_size, long table_stride, long query_stride, long window,
                            float scale, float softcap, int invariant, int dtype) {
  const Attention of = {query,        key_cache,    value_cache,  out,         block_tables,
                        query_starts, context_lens, alibi_slopes, sinks,       num_requests,
                        num_heads,    num_kv_heads, head_dim,     block_size,  table_stride,
                        query_stride, window,       scale,        softcap,     invariant != 0,
                        dtype};
  const std::vector<Piece> pieces = cut_into_pieces(of);
  long numbers = 0;
  for (const Piece& piece : pieces) numbers += context_lens[piece.request] * head_dim * 2;
#pragma omp parallel num_threads(num_threads) if (numbers > kWorthSharing)
  attention_team(of, pieces);
}
