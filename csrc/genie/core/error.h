#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace genie {

/// An error a user can act on: the message says what was expected, what was found and what to do. Programs
/// print it as one line and exit with code 1; Python sees it as `genie_cpp.GenieError`, a ValueError.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The arguments written one after another into a string.
template <class... Args>
std::string concat(Args&&... args) {
  std::ostringstream out;
  (out << ... << std::forward<Args>(args));
  return out.str();
}

/// Throws Error with the concatenated arguments unless `condition` holds.
template <class... Args>
void check(bool condition, const Args&... args) {
  if (!condition) throw Error(concat(args...));
}

}  // namespace genie
