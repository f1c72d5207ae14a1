#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "genie/config/config.h"

namespace genie::config {

/// One key of a configuration, pointing into it: a value's member, or std::monostate for a section.
struct Entry {
  std::string key;  // in full: "training.tokenizer.steps"
  std::variant<std::monostate, int64_t*, double*, bool*, std::string*, std::vector<int64_t>*> member;
  std::string doc;
  Constraint constraint;

  bool is_section() const { return std::holds_alternative<std::monostate>(member); }
  /// The key without its section: "steps"; and its section: "training.tokenizer", or "" at the top.
  std::string name() const;
  std::string section() const;
};

/// Every key in the order of declaration, a section before its keys. This is the only walk over the structs'
/// `fields`: reading, writing, checking and documenting go through its list.
std::vector<Entry> list_entries(Config& config);

/// What the entry's value may be, as part of a sentence: "an integer from 1 to 1024", "true or false".
std::string allowed(const Entry& entry);

/// The entry's value as YAML.
std::string value_text(const Entry& entry);

/// Why the entry's value is not allowed ("expected ..., found ..."), or "" where it is.
std::string problem_with(const Entry& entry);

}  // namespace genie::config
