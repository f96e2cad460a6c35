// What paged attention is asked for, and the pieces of work it is cut into.
#pragma once

#include <vector>

// The arguments of the exported function paged_attention.
struct Attention {
  const void* query;  // [num_tokens, num_heads, head_dim], tokens query_stride numbers apart
  const void* key_cache;
  const void* value_cache;  // [num_blocks, num_kv_heads, block_size, head_dim]
  void* out;                // [num_tokens, num_heads, head_dim]
  const int* block_tables;  // [num_requests, table_stride]
  const int* query_starts;
  const int* context_lens;
  const float* alibi_slopes;  // [num_heads] or null
  const float* sinks;         // [num_heads] or null
  long num_requests, num_heads, num_kv_heads, head_dim, block_size, table_stride, query_stride;
  long window;  // positions that a query sees, its own included
  float scale;
  float softcap;  // 0: none
  bool invariant;  // whether a query's bits may not depend on how its request was cut into chunks
  int dtype;
};

constexpr long kPieceRows = 256;  // rows that share one packing of the keys
constexpr long kFewRows = 8;      // up to so many, keys are read where they lie (attention_few.h)
constexpr long kMaxHeads = 16;    // of a piece

// Rows [first, last) of one request and head of the caches. Row token * group + g is the query of
// that token of the request and of head kv_head * group + g.
struct Piece {
  long request, kv_head, first, last;
  long heads = 1;  // of the caches, from kv_head on; more than one only for few rows

  bool is_few() const { return last - first <= kFewRows; }
};

// All work, the largest pieces first, so that no thread is left with one at the end. It is the same
// for all layers of a step.
std::vector<Piece> cut_into_pieces(const Attention& of);

// Every thread of a team calls it; it returns when all is done.
void attention_team(const Attention& of, const std::vector<Piece>& pieces);

// Positions [low, high) that a row sees.
struct Visible {
  long low, high;
};

static inline Visible visible(const Attention& of, const Piece& piece, long row) {
  const long group = of.num_heads / of.num_kv_heads;
  const long num_queries = of.query_starts[piece.request + 1] - of.query_starts[piece.request];
  const long high = of.context_lens[piece.request] - num_queries + row / group + 1;
  return {high > of.window ? high - of.window : 0, high};
}
