#pragma once

namespace genie {

/// Tells the C library's allocator whether to keep freed memory for later. It otherwise returns large blocks
/// to the system at once, and a training step, which asks for the same blocks again and again, spends a tenth
/// of its time on fresh pages. The process holds its peak memory from then on; `false` goes back to glibc's
/// usual behaviour and returns what is free. Without glibc nothing changes.
void keep_freed_memory(bool keep);

/// Keeps freed memory while it lives.
class KeepFreedMemory {
 public:
  KeepFreedMemory() { keep_freed_memory(true); }
  ~KeepFreedMemory() { keep_freed_memory(false); }
  KeepFreedMemory(const KeepFreedMemory&) = delete;
  KeepFreedMemory& operator=(const KeepFreedMemory&) = delete;
};

}  // namespace genie
