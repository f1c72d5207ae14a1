#include <algorithm>

#include "genie/config/config.h"
#include "genie/config/entry.h"
#include "genie/core/error.h"

namespace genie::config {

std::string to_yaml(const Config& config, bool documented) {
  Config copy = config;  // entries point into a configuration that may be changed
  std::string yaml;
  for (const Entry& entry : list_entries(copy)) {
    const std::string indent(2 * std::count(entry.key.begin(), entry.key.end(), '.'), ' ');
    const std::string value = entry.is_section() ? "" : " " + value_text(entry);
    yaml += concat(indent, entry.name(), ":", value);
    if (documented) {
      yaml += "  # " + entry.doc;
      if (!entry.is_section()) yaml += " [" + allowed(entry) + "]";
    }
    yaml += "\n";
  }
  return yaml;
}

}  // namespace genie::config
