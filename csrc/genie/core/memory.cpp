#include "genie/core/memory.h"

#include <cstdlib>  // defines __GLIBC__

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace genie {

void keep_freed_memory([[maybe_unused]] bool keep) {
#ifdef __GLIBC__
  // "Usual" is where glibc's moving thresholds arrive in a program that frees large blocks.
  constexpr int usual_mapped_blocks = 65536, usual_threshold = 32 << 20;
  mallopt(M_MMAP_MAX, keep ? 0 : usual_mapped_blocks);
  mallopt(M_MMAP_THRESHOLD, usual_threshold);
  mallopt(M_TRIM_THRESHOLD, keep ? -1 : 2 * usual_threshold);  // -1: never
  if (!keep) malloc_trim(0);
#endif
}

}  // namespace genie
