// Linear maps out = act(x W^T + bias): what one is, and the call that applies it.
#pragma once

#include <cstddef>

#include "threads.h"

// How a map is computed, and so how its weight lies.
enum MapKind : long {
  kFloats = 0,       // linear_vectors.h: [pair][inputs][2 * kWidth outputs], as activations are
  kBFloatPairs = 1,  // the same, two inputs at once: bfloat16 [pair][inputs / 2][2 * kWidth][2]
  kTiles = 2,        // linear_tiles.h: as that, in AMX's tiles
  kInt4 = 4,         // quantized.h
  kInt8 = 8,
};

// What becomes of the results: nothing, or the first half gates the second, act(first) * second.
enum Gate : long { kNoGate = 0, kSilu = 1, kGelu = 2, kGeluTanh = 3 };

// A map as Python keeps it (linears.py), in its order. The outputs lie in pairs of vectors, the last
// filled up with zeros; of a gated map, one vector of a pair is of gates, the other of what they gate.
struct LinearMap {
  const void* weight;
  const void* scales;  // of quantised weights
  const float* bias;   // [outputs] in the order of the vectors, or null; never null if quantised
  long kind;           // of enum MapKind
  long inputs, outputs;
  long gate;           // of enum Gate; none for quantised weights
  long exact_rows;     // quantised: up to so many rows activations have 16 bits, beyond 8
  long tile_rows;      // quantised: from so many rows on AMX's tiles are used

  long width() const { return gate == kNoGate ? outputs : outputs / 2; }
};

// Rows through a map: x [rows, inputs] with rows x_stride apart, out [rows, width()] contiguous.
struct LinearCall {
  const LinearMap& map;
  const void* x;
  long x_stride;
  void* out;
  long rows;
  int dtype;      // of x and out
  char* scratch;  // scratch_bytes, shared by the team
};

// What a call for so many rows needs to be given; fewer rows need no more.
size_t scratch_bytes(const LinearMap& map, long rows);
// Every thread of a team calls it; it returns when all is done.
void linear_team(const LinearCall& call);

// quantized.cpp: the same for quantised weights.
size_t quantized_scratch_bytes(const LinearMap& map, long rows);
void quantized_team(const LinearCall& call);
