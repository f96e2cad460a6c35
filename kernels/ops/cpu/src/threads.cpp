#include "threads.h"

int num_threads = 1;

EXPORT void set_num_threads(int count) { num_threads = count; }
