#include "genie/config/text.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace genie::config {
namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_control(char c) { return (c >= 0 && c < ' ') || c == 0x7f; }

/// Words that YAML 1.1 or 1.2 takes for something other than a string.
bool is_reserved(const std::string& value) {
  return contains({"null", "true", "false", "yes", "no", "on", "off", "y", "n"}, lower_case(value));
}

bool is_plain(const std::string& value) {
  if (value.empty() || is_reserved(value)) return false;
  if (!is_letter(value[0]) && value[0] != '/') return false;
  return std::all_of(value.begin(), value.end(), [](char c) {
    return is_letter(c) || is_digit(c) || c == '_' || c == '-' || c == '.' || c == '/';
  });
}

std::string single_quoted(const std::string& value) {
  std::string out = "'";
  for (char c : value) out += c == '\'' ? std::string("''") : std::string(1, c);
  return out + "'";
}

std::string double_quoted(const std::string& value) {
  constexpr const char* digits = "0123456789abcdef";
  std::string out = "\"";
  for (char c : value) {
    if (is_control(c)) {
      out += {'\\', 'x', digits[c >> 4], digits[c & 15]};
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out + "\"";
}

}  // namespace

std::string number_text(double value) {
  if (std::isnan(value)) return ".nan";
  if (std::isinf(value)) return value > 0 ? ".inf" : "-.inf";
  char buffer[40];
  std::string text(buffer, std::to_chars(buffer, buffer + sizeof(buffer), value).ptr);
  // 3e-04 is 3e-4, 1e+06 is 1e6.
  const size_t exponent = text.find('e');
  if (exponent == std::string::npos) return text;
  std::string digits = text.substr(exponent + 2);
  digits.erase(0, digits.find_first_not_of('0'));
  return text.substr(0, exponent) + (text[exponent + 1] == '-' ? "e-" : "e") + digits;
}

std::string yaml_string(const std::string& value) {
  if (is_plain(value)) return value;
  // Only double quotes know escapes; a line break inside single quotes would become a space.
  return std::any_of(value.begin(), value.end(), is_control) ? double_quoted(value) : single_quoted(value);
}

std::string lower_case(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

std::string trim(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

std::string join(const std::vector<std::string>& parts, const std::string& separator) {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) out += (i > 0 ? separator : "") + parts[i];
  return out;
}

bool contains(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace genie::config
