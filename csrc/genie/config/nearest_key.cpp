#include "genie/config/nearest_key.h"

#include <algorithm>
#include <limits>

#include "genie/config/text.h"
#include "genie/core/error.h"

namespace genie::config {
namespace {

constexpr size_t far = std::numeric_limits<size_t>::max();
constexpr size_t most_suggestions = 3;

/// How the spelling is compared: case and the kind of dash are no difference.
std::string normalized(const std::string& key) {
  std::string text = lower_case(key);
  std::replace(text.begin(), text.end(), '-', '_');
  return text;
}

/// The distance, or `far` where more than a third of the letters would have to change.
size_t close_distance(const std::string& a, const std::string& b) {
  const size_t distance = edit_distance(normalized(a), normalized(b));
  return distance <= std::max<size_t>(1, std::min(a.size(), b.size()) / 3) ? distance : far;
}

Entry entry_of(const std::string& key) { return {key, {}, "", {}}; }

/// How far `known` is from what was written as `given`: by spelling in the same section; by the whole key's
/// spelling; or by the name's spelling in another section, which counts as one difference more for each level
/// of sections that is not shared.
size_t key_distance(const std::string& given, const Entry& known) {
  const Entry found = entry_of(given);
  const size_t name = close_distance(found.name(), known.name());
  if (found.section() == known.section()) return name;
  size_t nearest = far;
  // Half the allowance of a name: sections' letters, mostly right, must not make up for a wrong name.
  const size_t whole = edit_distance(normalized(given), normalized(known.key));
  if (whole <= std::max<size_t>(1, given.size() / 6)) nearest = whole;
  if (name != far) {
    const std::string shared = found.section().empty() ? "" : found.section() + ".";
    const bool below = known.key.compare(0, shared.size(), shared) == 0;
    nearest = std::min(nearest, name + (below ? 1 : 2));
  }
  return nearest;
}

}  // namespace

size_t edit_distance(const std::string& a, const std::string& b) {
  // Rows i-2, i-1 and i of the table of distances between prefixes.
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    std::swap(before, last);
    std::swap(last, row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
  }
  return row[b.size()];
}

std::string nearest_word(const std::string& found, const std::vector<std::string>& words) {
  std::string nearest;
  size_t least = far;
  for (const std::string& word : words) {
    const size_t distance = close_distance(found, word);
    if (distance < least) {
      least = distance;
      nearest = word;
    }
  }
  return nearest;
}

std::vector<std::string> nearest_keys(const std::string& key, const std::vector<Entry>& entries) {
  std::vector<std::string> nearest;
  size_t least = far;
  for (const Entry& entry : entries) {
    const size_t distance = key_distance(key, entry);
    if (distance < least) nearest.clear();
    least = std::min(least, distance);
    if (distance == least && least != far) nearest.push_back(entry.key);
  }
  return nearest;
}

std::string unknown_key_hint(const std::string& key, const std::vector<Entry>& entries) {
  std::vector<std::string> nearest = nearest_keys(key, entries);
  if (!nearest.empty()) {
    if (nearest.size() > most_suggestions) nearest.resize(most_suggestions);
    return concat("did you mean ", join(nearest, " or "), "?");
  }
  const std::string section = entry_of(key).section();
  std::vector<std::string> known, top;
  for (const Entry& entry : entries) {
    if (entry.section() == section) known.push_back(entry.name());
    if (entry.section().empty()) top.push_back(entry.name());
  }
  if (section.empty() || known.empty()) return concat("the sections are ", join(top, ", "));
  return concat("the keys of ", section, " are ", join(known, ", "));
}

}  // namespace genie::config
