#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace genie {

/// What identifies a file's contents: its size in bytes and its CRC-32 (zlib's).
struct FileSum {
  uint64_t size = 0;
  uint32_t crc32 = 0;
  bool operator==(const FileSum&) const = default;
};

/// Writes a new file from start to end. Every failure (a full disk, a size limit) is an Error that names the
/// file and the cause.
class FileWriter {
 public:
  /// Creates `path` or empties it.
  explicit FileWriter(const std::string& path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(const void* data, size_t size);

  /// Brings the file to disk (fsync) and closes it. Returns the sum of the bytes handed to write().
  FileSum finish();

 private:
  std::string path_;
  int file_;
  FileSum sum_;
};

/// Reads a regular file from start to end; anything else at `path` (a directory, a pipe) is an Error.
class FileReader {
 public:
  explicit FileReader(const std::string& path);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  uint64_t size() const { return size_; }

  /// The next `size` bytes; a file that ends before them is an Error.
  void read(void* out, size_t size);

  /// The sum of the bytes read so far.
  FileSum sum() const { return sum_; }

 private:
  std::string path_;
  int file_;
  uint64_t size_ = 0;
  FileSum sum_;
};

/// Reads the whole file for its sum. `from_disk` asks the system to forget what it cached of the file first.
FileSum sum_file(const std::string& path, bool from_disk = false);

/// The contents of a file of at most `max_size` bytes; a larger one is an Error. `sum` receives its sum.
std::string read_text(const std::string& path, uint64_t max_size, FileSum* sum = nullptr);

/// Writes a file and brings it to disk.
FileSum write_text(const std::string& path, const std::string& text);

/// Replaces a file in one step: a reader, and whoever comes after a crash, sees the old or the new text.
void replace_text(const std::string& path, const std::string& text);

/// Brings a directory's entries (files made, renamed, removed in it) to disk.
void sync_directory(const std::string& path);

/// The text of a system error, with a remedy where one is known (a full disk).
std::string system_error_text(int error);

}  // namespace genie
