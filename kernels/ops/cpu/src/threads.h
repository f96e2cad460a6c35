// How many threads an op may use: torch's number, set when an engine is built. OpenMP keeps its own
// number for each calling thread, and the engine's loop is not the thread that set it.
#pragma once

#define EXPORT extern "C" __attribute__((visibility("default")))

extern int num_threads;

// A parallel region costs about 2 us: work below some 20 us is done by the caller alone.
constexpr long kWorthSharing = 16384;  // numbers read or written, for a memory-bound op
