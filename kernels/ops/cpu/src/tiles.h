// Whether AMX's tiles can be used: compiled for, and granted by the system.
#pragma once

#if defined(__AMX_TILE__)
#include <sys/syscall.h>
#include <unistd.h>

// Linux gives a process the tiles' 8 KB of state on request only; it is asked once.
static inline bool tiles_allowed() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XTILEDATA
  static const bool allowed = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return allowed;
}
#else
static inline bool tiles_allowed() { return false; }
#endif
