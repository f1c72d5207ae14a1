#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <utility>

#include "genie/core/error.h"
#include "genie/core/json.h"
#include "genie/training/safetensors.h"

namespace genie::training {
namespace {

constexpr size_t kMaxDims = 64;
constexpr size_t kMaxMetadata = 65536;

struct Dtype {
  const char* name;
  at::ScalarType type;
};
constexpr std::array<Dtype, 10> kDtypes = {{{"BOOL", at::kBool},
                                            {"U8", at::kByte},
                                            {"I8", at::kChar},
                                            {"I16", at::kShort},
                                            {"I32", at::kInt},
                                            {"I64", at::kLong},
                                            {"F16", at::kHalf},
                                            {"BF16", at::kBFloat16},
                                            {"F32", at::kFloat},
                                            {"F64", at::kDouble}}};

// Takes the parser's events and accepts only what a header may hold, so that no document tree is built and
// memory stays in proportion to the header. A method that returns false ends the parse.
class HeaderEvents {
 public:
  using Json = nlohmann::json;

  SafetensorsHeader header;
  std::string problem;

  bool start_object(size_t) {
    if (place_ == Place::outside) return enter(Place::top);
    if (place_ == Place::top) return enter(name_ == "__metadata__" ? Place::metadata : Place::tensor);
    return refuse("an object where none belongs");
  }

  bool end_object() {
    if (place_ == Place::tensor) {
      if (!has_dtype_ || !has_shape_ || !has_offsets_) return refuse("needs dtype, shape and data_offsets");
      if (!header.tensors.emplace(name_, std::move(info_)).second) return refuse("stands there twice");
    }
    return enter(place_ == Place::top ? Place::outside : Place::top);
  }

  bool key(std::string& text) {
    if (place_ == Place::top) {
      name_ = text;
      info_ = {};
      has_dtype_ = has_shape_ = has_offsets_ = false;
      if (name_ == "__metadata__" && std::exchange(has_metadata_, true)) return refuse("stands there twice");
    } else {
      key_ = text;
    }
    return true;
  }

  bool string(std::string& text) {
    if (place_ == Place::metadata) {
      if (header.metadata.size() >= kMaxMetadata) return refuse("has too many entries");
      return header.metadata.emplace(key_, text).second || refuse("has a key twice");
    }
    if (place_ == Place::tensor && key_ == "dtype" && !std::exchange(has_dtype_, true)) {
      info_.dtype = text.substr(0, 80);
      return true;
    }
    return refuse("a text where none belongs");
  }

  bool start_array(size_t) {
    if (place_ == Place::tensor && key_ == "shape" && !std::exchange(has_shape_, true))
      return enter(Place::shape);
    if (place_ == Place::tensor && key_ == "data_offsets" && !std::exchange(has_offsets_, true)) {
      offsets_ = 0;
      return enter(Place::offsets);
    }
    return refuse("a list where none belongs");
  }

  bool end_array() {
    if (place_ == Place::offsets && offsets_ != 2) return refuse("data_offsets must be two numbers");
    return enter(Place::tensor);
  }

  bool number_unsigned(uint64_t number) {
    if (place_ == Place::shape) {
      if (info_.shape.size() >= kMaxDims) return refuse("has more than 64 dimensions");
      if (number > static_cast<uint64_t>(INT64_MAX)) return refuse("has a size beyond 2^63");
      info_.shape.push_back(static_cast<int64_t>(number));
      return true;
    }
    if (place_ == Place::offsets && offsets_ < 2) {
      (offsets_ == 0 ? info_.begin : info_.end) = number;
      ++offsets_;
      return true;
    }
    return refuse("a number where none belongs");
  }

  bool number_integer(int64_t) { return refuse("has a negative number"); }
  bool number_float(double, const std::string&) { return refuse("has a number that is no whole number"); }
  bool boolean(bool) { return refuse("true or false where none belongs"); }
  bool null() { return refuse("null where none belongs"); }
  bool binary(Json::binary_t&) { return refuse("binary data"); }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) {
    problem = concat("its header is not valid JSON (at byte ", position, ")");
    return false;
  }

 private:
  enum class Place { outside, top, metadata, tensor, shape, offsets };

  bool enter(Place place) {
    place_ = place;
    return true;
  }

  bool refuse(const char* what) {
    problem = place_ == Place::outside ? "its header is not a JSON object"
                                       : concat("entry ", quote(name_), " in its header: ", what);
    return false;
  }

  Place place_ = Place::outside;
  std::string name_, key_;
  TensorInfo info_;
  int offsets_ = 0;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false, has_metadata_ = false;
};

// The bytes a tensor of this shape takes. Sizes of 0 count as 1 for the overflow check, since strides are
// products of the other sizes.
uint64_t bytes_of(const std::vector<int64_t>& shape, uint64_t item, const std::string& where) {
  uint64_t product = item;
  bool empty = false;
  for (const int64_t size : shape) {
    empty = empty || size == 0;
    const bool overflow =
        __builtin_mul_overflow(product, static_cast<uint64_t>(std::max<int64_t>(size, 1)), &product);
    check(!overflow && product <= static_cast<uint64_t>(INT64_MAX), where, "its shape overflows 64 bits");
  }
  return empty ? 0 : product;
}

}  // namespace

at::ScalarType safetensors_dtype(const std::string& name, const std::string& path) {
  std::string known;
  for (const Dtype& dtype : kDtypes) {
    if (name == dtype.name) return dtype.type;
    known += concat(known.empty() ? "" : ", ", dtype.name);
  }
  throw Error(concat(path, ": unknown dtype ", quote(name), ", expected one of ", known));
}

std::string safetensors_dtype_name(at::ScalarType type) {
  for (const Dtype& dtype : kDtypes) {
    if (type == dtype.type) return dtype.name;
  }
  return "";
}

SafetensorsHeader parse_safetensors_header(std::string json, uint64_t data_size, const std::string& path) {
  // The parser's own error text spells control characters out eightfold; none is needed in a header.
  for (char& c : json) {
    check(static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\r' || c == '\t', path,
          ": not a safetensors file: control characters in its header");
    if (c == '\n' || c == '\r' || c == '\t') c = ' ';
  }
  HeaderEvents events;
  const bool parsed = nlohmann::json::sax_parse(json, &events);
  check(parsed, path, ": not a safetensors file: ", events.problem);
  SafetensorsHeader header = std::move(events.header);

  // The tensors must tile the data: no overlap, no hole, nothing after the last.
  std::vector<std::pair<const std::string, TensorInfo>*> by_offset;
  by_offset.reserve(header.tensors.size());
  for (auto& entry : header.tensors) by_offset.push_back(&entry);
  std::sort(by_offset.begin(), by_offset.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t expected_begin = 0;
  for (const auto* entry : by_offset) {
    const auto& [name, info] = *entry;
    const std::string where = concat(path, ": tensor ", quote(name), ": ");
    check(info.begin <= info.end && info.end <= data_size, where, "bytes ", info.begin, " to ", info.end,
          " of ", data_size, " bytes of data; the file is truncated or its header lies");
    check(info.begin >= expected_begin, where, "overlaps the one before it at byte ", info.begin);
    check(info.begin == expected_begin, where, "unused bytes before byte ", info.begin);
    const uint64_t item = c10::elementSize(safetensors_dtype(info.dtype, where.substr(0, where.size() - 2)));
    const uint64_t bytes = bytes_of(info.shape, item, where);
    check(bytes == info.end - info.begin, where, "its shape and dtype take ", bytes, " bytes, its offsets ",
          info.end - info.begin);
    expected_begin = info.end;
  }
  check(expected_begin == data_size, path, ": ", data_size - expected_begin,
        " bytes after the last tensor; the file is no safetensors file or its header lies");
  return header;
}

}  // namespace genie::training
