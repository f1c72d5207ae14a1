#include "genie/core/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <vector>

#include "genie/core/error.h"

namespace genie {
namespace {

uint32_t extend_crc(uint32_t crc, const void* data, size_t size) {
  if (size == 0) return crc;  // zlib takes a null pointer, as empty tensors have, for a reset
  return static_cast<uint32_t>(crc32_z(crc, static_cast<const Bytef*>(data), size));
}

}  // namespace

std::string system_error_text(int error) {
  std::string text = std::generic_category().message(error);
  if (error == ENOSPC || error == EDQUOT) text += " (free some space or choose another directory)";
  if (error == EFBIG) text += " (a limit on the size of files, see ulimit -f, or of the file system)";
  return text;
}

FileWriter::FileWriter(const std::string& path)
    : path_(path), file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
  check(file_ >= 0, path_, ": cannot be created: ", system_error_text(errno));
}

FileWriter::~FileWriter() {
  if (file_ >= 0) ::close(file_);
}

void FileWriter::write(const void* data, size_t size) {
  const char* next = static_cast<const char*>(data);
  for (size_t left = size; left > 0;) {
    const ssize_t written = ::write(file_, next, left);
    if (written < 0 && errno == EINTR) continue;
    check(written >= 0, path_, ": cannot be written: ", system_error_text(errno));
    next += written;
    left -= static_cast<size_t>(written);
  }
  sum_.crc32 = extend_crc(sum_.crc32, data, size);
  sum_.size += size;
}

FileSum FileWriter::finish() {
  check(::fsync(file_) == 0, path_, ": cannot be brought to disk: ", system_error_text(errno));
  const int closed = ::close(file_);
  file_ = -1;
  check(closed == 0, path_, ": cannot be closed: ", system_error_text(errno));
  return sum_;
}

// O_NONBLOCK: opening a pipe that nobody writes to would wait for ever; regular files ignore it.
FileReader::FileReader(const std::string& path)
    : path_(path), file_(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
  check(file_ >= 0, path_, ": cannot be opened: ", system_error_text(errno));
  struct stat status {};
  const bool regular = ::fstat(file_, &status) == 0 && S_ISREG(status.st_mode);
  if (!regular) {
    ::close(file_);
    throw Error(concat(path_, ": not a regular file"));
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

FileReader::~FileReader() { ::close(file_); }

void FileReader::read(void* out, size_t size) {
  char* next = static_cast<char*>(out);
  for (size_t left = size; left > 0;) {
    const ssize_t got = ::read(file_, next, left);
    if (got < 0 && errno == EINTR) continue;
    check(got >= 0, path_, ": cannot be read: ", system_error_text(errno));
    check(got > 0, path_, ": ends at byte ", sum_.size + (size - left), ", ", left, " bytes too early");
    next += got;
    left -= static_cast<size_t>(got);
  }
  sum_.crc32 = extend_crc(sum_.crc32, out, size);
  sum_.size += size;
}

FileSum sum_file(const std::string& path, bool from_disk) {
  if (from_disk) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
      ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
      ::close(file);
    }
  }
  FileReader reader(path);
  std::vector<char> buffer(size_t{1} << 20);
  for (uint64_t left = reader.size(); left > 0;) {
    const size_t part = std::min<uint64_t>(left, buffer.size());
    reader.read(buffer.data(), part);
    left -= part;
  }
  return reader.sum();
}

std::string read_text(const std::string& path, uint64_t max_size, FileSum* sum) {
  FileReader reader(path);
  check(reader.size() <= max_size, path, ": has ", reader.size(), " bytes, expected at most ", max_size);
  std::string text(reader.size(), '\0');
  reader.read(text.data(), text.size());
  if (sum) *sum = reader.sum();
  return text;
}

FileSum write_text(const std::string& path, const std::string& text) {
  FileWriter writer(path);
  writer.write(text.data(), text.size());
  return writer.finish();
}

void replace_text(const std::string& path, const std::string& text) {
  const std::filesystem::path target(path);
  const std::string beside =
      (target.parent_path() / concat(".tmp-", target.filename().string(), "-", ::getpid())).string();
  try {
    write_text(beside, text);
    check(std::rename(beside.c_str(), path.c_str()) == 0, path,
          ": cannot be replaced: ", system_error_text(errno));
  } catch (...) {
    ::unlink(beside.c_str());
    throw;
  }
  sync_directory(target.parent_path().string());
}

void sync_directory(const std::string& path) {
  const std::string name = path.empty() ? "." : path;
  const int directory = ::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  check(directory >= 0, name, ": cannot be opened: ", system_error_text(errno));
  const int error = ::fsync(directory) == 0 ? 0 : errno;
  ::close(directory);
  // Some network file systems have no fsync for directories and say EINVAL.
  check(error == 0 || error == EINVAL, name, ": cannot be brought to disk: ", system_error_text(error));
}

}  // namespace genie
