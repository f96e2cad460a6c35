// What the compiled library is and may use.
#include "simd.h"
#include "threads.h"
#include "tiles.h"

int num_threads = 1;

EXPORT void set_num_threads(int count) { num_threads = count; }

// answer: whether AMX's tiles can be used; whether pairs of bfloat16 are multiplied by one
// instruction; floats in a vector.
EXPORT void describe_machine(int* answer) {
  answer[0] = tiles_allowed();
#if defined(__AVX512BF16__)
  answer[1] = 1;
#else
  answer[1] = 0;
#endif
  answer[2] = kWidth;
}
