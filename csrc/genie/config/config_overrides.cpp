#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "genie/config/config.h"
#include "genie/config/entry.h"
#include "genie/config/nearest_key.h"
#include "genie/config/scalar.h"
#include "genie/config/text.h"
#include "genie/core/error.h"

namespace genie::config {
namespace {

/// Whether the text is one YAML scalar in single or double quotes from end to end.
bool is_quoted(const std::string& text) {
  const char quote = text[0];
  for (size_t i = 1; i + 1 < text.size(); ++i) {
    // '' is an escaped ', \x an escaped x; an escape may not take the last quote.
    const bool escape = quote == '"' ? text[i] == '\\' : text[i] == quote && text[i + 1] == quote;
    if (escape && ++i + 1 == text.size()) return false;
    if (!escape && text[i] == quote) return false;
  }
  return true;
}

/// The text as it stands, so that no path needs escaping, unless it is quoted as YAML.
Scalar override_value(const std::string& text, const std::string& where) {
  const bool quoted =
      text.size() >= 2 && (text.front() == '\'' || text.front() == '"') && text.back() == text.front();
  if (!quoted) return {text, false};
  check(is_quoted(text), where, "the quoted value is not valid YAML");
  try {
    return {YAML::Load(text).Scalar(), true};
  } catch (const YAML::Exception& error) {
    throw Error(concat(where, "the quoted value is not valid YAML: ", error.msg));
  }
}

}  // namespace

void apply_overrides(Config& config, const std::vector<std::string>& overrides) {
  Config changed = config;  // the caller's stays as it was where one of them is wrong
  const std::vector<Entry> entries = list_entries(changed);
  for (const std::string& text : overrides) {
    const std::string where = concat("override ", text, ": ");
    const size_t equals = text.find('=');
    check(equals != std::string::npos, where, "expected section.key=value, found no '='");
    const std::string key = trim(text.substr(0, equals));
    check(!key.empty(), where, "expected section.key=value, found no key before '='");
    const auto entry =
        std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.key == key; });
    check(entry != entries.end(), where, "unknown key ", key, "; ", unknown_key_hint(key, entries));
    if (entry->is_section()) {
      std::vector<std::string> keys;
      for (const Entry& e : entries) {
        if (e.section() == key) keys.push_back(e.name());
      }
      throw Error(concat(where, key, " is a section; set one of its keys: ", join(keys, ", ")));
    }
    assign(*entry, override_value(trim(text.substr(equals + 1)), where), where);
  }
  try {
    validate(changed);
  } catch (const Error& error) {
    throw Error(concat("after the overrides: ", error.what()));
  }
  config = changed;
}

}  // namespace genie::config
