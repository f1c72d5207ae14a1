#include "genie/config/config.h"
#include "genie/config/entry.h"
#include "genie/core/error.h"

namespace genie::config {
namespace {

/// A '|' would end the table's cell.
std::string cell(const std::string& text) {
  std::string out;
  for (char c : text) out += c == '|' ? std::string("\\|") : std::string(1, c);
  return out;
}

}  // namespace

std::string describe() {
  Config defaults;
  const std::vector<Entry> entries = list_entries(defaults);
  std::string out;
  for (const Entry& section : entries) {
    if (!section.is_section()) continue;
    const std::string heading = section.section().empty() ? "## " : "### ";
    out += concat(out.empty() ? "" : "\n", heading, section.key, "\n\n", section.doc, "\n");
    // A section's own keys come first: its subsections have tables of their own.
    bool first = true;
    for (const Entry& entry : entries) {
      if (entry.is_section() || entry.section() != section.key) continue;
      if (first) out += "\n| Key | Default | Allowed | Meaning |\n|---|---|---|---|\n";
      first = false;
      out += concat("| `", entry.key, "` | `", value_text(entry), "` | ", cell(allowed(entry)), " | ",
                    cell(entry.doc), " |\n");
    }
  }
  return out;
}

}  // namespace genie::config
