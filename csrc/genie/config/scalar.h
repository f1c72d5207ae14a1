#pragma once

#include <string>

#include "genie/config/entry.h"

namespace genie::config {

/// A value as it was written; a list as "[1, 2]". `quoted`: as a string, whatever it looks like.
struct Scalar {
  std::string text;
  bool quoted = false;
};

/// Parses the value as the entry's type and stores it. Throws Error starting with `where` ("file.yaml:3: ")
/// and the key where it is ill-typed or not allowed.
void assign(const Entry& entry, const Scalar& value, const std::string& where);

}  // namespace genie::config
