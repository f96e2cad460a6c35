#include <cstdint>

#include "threads.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif

// Ask Linux to back this memory by pages of 2 MB, best before it is first written. Blocks of a cache
// are read in random order, and at a read of a few KB per page the look-ups of 4 KB pages cost as
// much as the reads: 14 GB/s against 20 was measured.
EXPORT void advise_huge_pages(void* memory, long bytes) {
#if defined(__linux__)
  constexpr uintptr_t kPage = 2 << 20;
  const uintptr_t first = ((uintptr_t)memory + kPage - 1) / kPage * kPage;
  const uintptr_t end = ((uintptr_t)memory + bytes) / kPage * kPage;
  if (first < end) madvise((void*)first, end - first, MADV_HUGEPAGE);
#else
  (void)memory;
  (void)bytes;
#endif
}
