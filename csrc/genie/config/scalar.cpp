#include "genie/config/scalar.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <type_traits>

#include "genie/config/text.h"
#include "genie/core/error.h"

namespace genie::config {
namespace {

/// What came of parsing: a value, or a remark on why there is none (may be empty).
template <class T>
struct Parsed {
  std::optional<T> value;
  std::string remark;
};

template <class T>
bool parse_whole(const std::string& text, T& value, std::errc& error) {
  const size_t skip = text.size() > 1 && text[0] == '+' && text[1] != '-' ? 1 : 0;
  const auto [end, code] = std::from_chars(text.data() + skip, text.data() + text.size(), value);
  error = code;
  return end == text.data() + text.size() && code != std::errc::invalid_argument;
}

Parsed<double> parse_double(const std::string& text) {
  const std::string word = lower_case(text);
  if (word == ".nan" || word == ".inf" || word == "-.inf" || word == "+.inf") return {{}, "not finite"};
  double value = 0;
  std::errc error{};
  if (!parse_whole(text, value, error)) return {};
  if (error != std::errc{}) return {{}, "beyond what a double holds"};
  if (!std::isfinite(value)) return {{}, "not finite"};
  return {value, ""};
}

Parsed<int64_t> parse_int(const std::string& text) {
  int64_t value = 0;
  std::errc error{};
  if (parse_whole(text, value, error)) {
    if (error != std::errc{}) return {{}, "beyond 64 bits"};
    return {value, ""};
  }
  // 1e3 and 16.0 are integers too; beyond 2^53 a double would no longer hold each of them.
  const Parsed<double> number = parse_double(text);
  if (!number.value) return {{}, number.remark};
  if (*number.value != std::floor(*number.value)) return {{}, "not whole"};
  if (std::abs(*number.value) > 9007199254740992.0) return {{}, "write large integers with all digits"};
  return {static_cast<int64_t>(*number.value), ""};
}

Parsed<bool> parse_bool(const std::string& text) {
  if (text == "true" || text == "True" || text == "TRUE") return {true, ""};
  if (text == "false" || text == "False" || text == "FALSE") return {false, ""};
  const std::string word = lower_case(text);
  if (contains({"yes", "on", "1", "y"}, word)) return {{}, "write true"};
  if (contains({"no", "off", "0", "n"}, word)) return {{}, "write false"};
  return {};
}

Parsed<std::vector<int64_t>> parse_list(const std::string& text) {
  if (text.size() < 2 || text.front() != '[' || text.back() != ']') return {};
  std::vector<int64_t> values;
  const std::string inside = trim(text.substr(1, text.size() - 2));
  for (size_t begin = 0; !inside.empty() && begin <= inside.size();) {
    const size_t end = std::min(inside.find(',', begin), inside.size());
    const std::string item = trim(inside.substr(begin, end - begin));
    const Parsed<int64_t> value = parse_int(item);
    if (!value.value) return {{}, concat("'", item, "' is no integer")};
    values.push_back(*value.value);
    begin = end + 1;
  }
  return {values, ""};
}

template <class T>
Parsed<T> parse(const std::string& text) {
  if constexpr (std::is_same_v<T, int64_t>) {
    return parse_int(text);
  } else if constexpr (std::is_same_v<T, std::vector<int64_t>>) {
    return parse_list(text);
  } else if constexpr (std::is_same_v<T, double>) {
    return parse_double(text);
  } else {
    return parse_bool(text);
  }
}

}  // namespace

void assign(const Entry& entry, const Scalar& scalar, const std::string& where) {
  auto store = [&](auto member) {
    using T = std::remove_reference_t<decltype(member)>;
    if constexpr (std::is_same_v<T, std::monostate>) {
      throw Error(concat(where, entry.key, " is a section, not a value"));
    } else if constexpr (std::is_same_v<T, std::string*>) {
      *member = scalar.text;
    } else {
      Parsed<std::remove_pointer_t<T>> parsed = parse<std::remove_pointer_t<T>>(scalar.text);
      if (scalar.quoted) {
        if (parsed.value) parsed.remark = "remove the quotes";
        parsed.value.reset();
      }
      const std::string quote = scalar.quoted || scalar.text.empty() ? "'" : "";
      check(parsed.value.has_value(), where, entry.key, ": expected ", allowed(entry), ", found ", quote,
            scalar.text, quote, parsed.remark.empty() ? "" : " (" + parsed.remark + ")");
      *member = *parsed.value;
    }
  };
  std::visit(store, entry.member);
  const std::string problem = problem_with(entry);
  check(problem.empty(), where, entry.key, ": ", problem);
}

}  // namespace genie::config
