#pragma once

#include <limits>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

namespace genie::config {

/// What a number may be: min <= value <= max (strictly greater than min where `open_min`); NaN never is.
struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool open_min = false;
};

/// The words a string may be.
struct Choices {
  std::vector<std::string> words;
};

/// A list of integers is [] or [start, end] with 0 <= start <= end.
struct Interval {};

using Constraint = std::variant<std::monostate, Range, Choices, Interval>;

inline Constraint at_least(double min) { return Range{min, std::numeric_limits<double>::infinity(), false}; }
inline Constraint greater_than(double min) {
  return Range{min, std::numeric_limits<double>::infinity(), true};
}
inline Constraint between(double min, double max) { return Range{min, max, false}; }
inline Constraint one_of(std::vector<std::string> words) { return Choices{std::move(words)}; }

// A section is a struct with
//   template <class Self, class Visitor> static void fields(Self& self, Visitor&& visit);
// that calls visit(key, member, documentation, constraint) for each key. A member is int64_t, double, bool,
// std::string, std::vector<int64_t> or another section. Reading, writing, checking and documenting a
// configuration all walk this one list.
template <class T>
concept Section = requires { typename T::IsSection; };

}  // namespace genie::config
