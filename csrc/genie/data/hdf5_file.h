#pragma once

#include <hdf5.h>

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

// The part of HDF5's C API that the data room needs, with errors as genie::Error. Private to data/*.cpp: no
// other room sees hdf5.h.
namespace genie::data::hdf5 {

/// Every call of the library happens while a Session lives: it holds a lock of ours (HDF5 has global state,
/// and not every build of it is thread-safe) and keeps HDF5 from printing its error stack.
class Session {
 public:
  Session();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  std::unique_lock<std::recursive_mutex> lock_;
  H5E_auto2_t print_ = nullptr;
  void* print_data_ = nullptr;
};

/// An HDF5 identifier and the function that closes it. Closing opens a Session of its own.
class Handle {
 public:
  Handle() = default;
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() { reset(); }
  void reset();
  hid_t get() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }

 private:
  hid_t id_ = -1;
  herr_t (*close_)(hid_t) = nullptr;
};

/// What HDF5 says about the call that failed last in this thread, innermost reason first. To be asked for
/// before any other call of the library.
std::string last_error();

/// Opens for reading; the error says whether the file is missing, a directory, unreadable, not HDF5,
/// truncated, open for writing elsewhere or of a newer format.
Handle open_file(const std::string& path);

/// 'uint8', 'float32', 'string', ...
std::string type_name(hid_t type);
/// The dataset's size in each dimension; empty for a scalar.
std::vector<int64_t> shape(hid_t dataset);
/// "(10,64,64,3)"
std::string shape_name(const std::vector<int64_t>& shape);
/// Names of the file's datasets and groups at the top level, for messages; "nothing" if there are none.
std::string list_objects(hid_t file);

/// A dataset of the file, or an empty Handle where there is none of that name.
Handle open_dataset(hid_t file, const std::string& path, const char* name);
/// All values of a one-dimensional dataset of integers of any width.
std::vector<int64_t> read_integers(hid_t dataset, const std::string& path, const char* name);

/// A number the file carries as attribute, or `missing` where it has none.
double number_attribute(hid_t file, const std::string& path, const char* name, double missing);
/// A string attribute of fixed or variable length; '' where there is none.
std::string string_attribute(hid_t file, const std::string& path, const char* name);

}  // namespace genie::data::hdf5
