#include "genie/data/hdf5_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "genie/core/error.h"
#include "genie/data/chunk_codec.h"

namespace genie::data::hdf5 {
namespace {

std::recursive_mutex& library_mutex() {
  static auto* mutex = new std::recursive_mutex;  // outlives files closed while the program exits
  return *mutex;
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

/// Throws unless `path` names a file that this process may read.
void check_readable(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  check(status.type() != std::filesystem::file_type::not_found, "data file '", path,
        "' does not exist: check data.path");
  check(!std::filesystem::is_directory(status), "data file '", path,
        "' is a directory: give the HDF5 file itself");
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  check(descriptor >= 0, "data file '", path, "' cannot be read: ", std::strerror(errno));
  ::close(descriptor);
}

/// What a newer release wrote fails with some version number that is bad.
std::string newer_format(const std::string& reason) {
  return concat(has(reason, "version") ? ", or rather" : ", or",
                " written in a format newer than this HDF5 library (", H5_VERS_MAJOR, ".", H5_VERS_MINOR,
                ") reads, as by h5py with libver='latest' or 'v200': write it ",
                "again with libver='earliest'");
}

[[noreturn]] void throw_open_error(const std::string& path, const std::string& reason) {
  const std::string file = concat("data file '", path, "' ");
  if (has(reason, "unable to lock file") || has(reason, "already open for write")) {
    throw Error(concat(file, "is open for writing by another process (or was left so by one that crashed): ",
                       "wait until it is closed; HDF5 says: ", reason));
  }
  if (has(reason, "truncated file")) {
    throw Error(concat(file, "is truncated: copy or record it again; HDF5 says: ", reason));
  }
  throw Error(concat(file, "starts like HDF5 but cannot be opened: it is damaged", newer_format(reason),
                     "; HDF5 says: ", reason));
}

}  // namespace

Session::Session() : lock_(library_mutex()) {
  H5Eget_auto2(H5E_DEFAULT, &print_, &print_data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Session::~Session() { H5Eset_auto2(H5E_DEFAULT, print_, print_data_); }

void Handle::reset() {
  if (id_ < 0) return;
  Session session;
  close_(std::exchange(id_, -1));
}

std::string last_error() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned, const H5E_error2_t* entry, void* out) -> herr_t {
        auto& text = *static_cast<std::string*>(out);
        if (entry->desc != nullptr && text.size() < 120)
          text += (text.empty() ? "" : "; ") + std::string(entry->desc);
        return 0;
      },
      &text);
  return text.empty() ? "no reason given" : text;
}

Handle open_file(const std::string& path) {
  check_readable(path);
  Session session;
  register_lzf();
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file) {
    const std::string reason = last_error();
    // A locked file must be told from one that is not HDF5, and H5Fis_hdf5 cannot open a locked one either.
    const bool locked = has(reason, "unable to lock file");
    check(locked || H5Fis_hdf5(path.c_str()) > 0, "data file '", path,
          "' is not an HDF5 file: see docs/data_format.md for the format and a script that writes it");
    throw_open_error(path, reason);
  }
  return file;
}

std::string type_name(hid_t type) {
  const size_t bits = H5Tget_size(type) * 8;
  switch (H5Tget_class(type)) {
    case H5T_INTEGER:
      return concat(H5Tget_sign(type) == H5T_SGN_NONE ? "uint" : "int", bits);
    case H5T_FLOAT:
      return concat("float", bits);
    case H5T_STRING:
      return "string";
    case H5T_ENUM:
      return "enum or bool";
    case H5T_COMPOUND:
      return "compound";
    case H5T_VLEN:
      return "variable-length";
    case H5T_ARRAY:
      return "array";
    default:
      return "another type";
  }
}

std::vector<int64_t> shape(hid_t dataset) {
  Handle space(H5Dget_space(dataset), H5Sclose);
  const int rank = space ? H5Sget_simple_extent_ndims(space.get()) : -1;
  if (rank <= 0) return {};
  std::vector<hsize_t> sizes(rank);
  H5Sget_simple_extent_dims(space.get(), sizes.data(), nullptr);
  return {sizes.begin(), sizes.end()};
}

std::string shape_name(const std::vector<int64_t>& shape) {
  std::ostringstream out;
  for (size_t i = 0; i < shape.size(); ++i) out << (i ? "," : "(") << shape[i];
  return shape.empty() ? "()" : out.str() + ")";
}

std::string list_objects(hid_t file) {
  std::string names;
  hsize_t position = 0;
  H5Literate(
      file, H5_INDEX_NAME, H5_ITER_INC, &position,
      [](hid_t, const char* name, const H5L_info_t*, void* out) -> herr_t {
        auto& names = *static_cast<std::string*>(out);
        if (names.size() > 200) {
          names += ", ...";
          return 1;
        }
        names += concat(names.empty() ? "'" : ", '", name, "'");
        return 0;
      },
      &names);
  return names.empty() ? "nothing" : names;
}

Handle open_dataset(hid_t file, const std::string& path, const char* name) {
  if (H5Lexists(file, name, H5P_DEFAULT) <= 0) return {};
  Handle dataset(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose);
  if (!dataset) {
    const std::string reason = last_error();
    throw Error(concat("data file '", path, "': '", name,
                       "' cannot be opened as a dataset: it is a group, or damaged", newer_format(reason),
                       "; HDF5 says: ", reason));
  }
  return dataset;
}

std::vector<int64_t> read_integers(hid_t dataset, const std::string& path, const char* name) {
  Handle type(H5Dget_type(dataset), H5Tclose);
  const auto size = shape(dataset);
  check(H5Tget_class(type.get()) == H5T_INTEGER && size.size() == 1, "data file '", path, "': dataset '",
        name, "' must be integers with one dimension, found ", type_name(type.get()), " ", shape_name(size));
  std::vector<int64_t> values(size[0]);
  if (values.empty()) return values;
  if (H5Dread(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0) {
    const std::string reason = last_error();
    throw Error(
        concat("data file '", path, "': dataset '", name,
               "' cannot be read, the file is damaged: copy or record it again; HDF5 says: ", reason));
  }
  return values;
}

namespace {

/// The attribute of that name, checked to hold one value; empty Handle where there is none.
Handle open_attribute(hid_t file, const std::string& path, const char* name) {
  if (H5Aexists(file, name) <= 0) return {};
  Handle attribute(H5Aopen(file, name, H5P_DEFAULT), H5Aclose);
  check(static_cast<bool>(attribute), "data file '", path, "': attribute '", name,
        "' cannot be opened, the file is damaged");
  Handle space(H5Aget_space(attribute.get()), H5Sclose);
  const auto count = H5Sget_simple_extent_npoints(space.get());
  check(count == 1, "data file '", path, "': attribute '", name, "' must hold one value, found ", count);
  return attribute;
}

}  // namespace

double number_attribute(hid_t file, const std::string& path, const char* name, double missing) {
  const Handle attribute = open_attribute(file, path, name);
  if (!attribute) return missing;
  Handle type(H5Aget_type(attribute.get()), H5Tclose);
  const auto kind = H5Tget_class(type.get());
  check(kind == H5T_INTEGER || kind == H5T_FLOAT, "data file '", path, "': attribute '", name,
        "' must be a number, found ", type_name(type.get()));
  double value = 0;
  check(H5Aread(attribute.get(), H5T_NATIVE_DOUBLE, &value) >= 0, "data file '", path, "': attribute '", name,
        "' cannot be read, the file is damaged");
  return value;
}

std::string string_attribute(hid_t file, const std::string& path, const char* name) {
  const Handle attribute = open_attribute(file, path, name);
  if (!attribute) return {};
  Handle type(H5Aget_type(attribute.get()), H5Tclose);
  check(H5Tget_class(type.get()) == H5T_STRING, "data file '", path, "': attribute '", name,
        "' must be a string, found ", type_name(type.get()));
  const std::string damaged = concat("data file '", path, "': attribute '", name, "' cannot be read");
  if (H5Tis_variable_str(type.get()) > 0) {
    char* text = nullptr;
    check(H5Aread(attribute.get(), type.get(), &text) >= 0, damaged);
    std::string value = text == nullptr ? "" : text;
    H5free_memory(text);
    return value;
  }
  std::vector<char> text(H5Tget_size(type.get()) + 1, '\0');
  check(H5Aread(attribute.get(), type.get(), text.data()) >= 0, damaged);
  std::string value(text.data());
  if (H5Tget_strpad(type.get()) == H5T_STR_SPACEPAD) value.erase(value.find_last_not_of(' ') + 1);
  return value;
}

}  // namespace genie::data::hdf5
