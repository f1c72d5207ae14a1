#include "genie/config/entry.h"

#include <cmath>

#include "genie/config/nearest_key.h"
#include "genie/config/text.h"
#include "genie/core/error.h"

namespace genie::config {
namespace {

template <class T>
void append_entries(T& section, const std::string& prefix, std::vector<Entry>& entries) {
  T::fields(section, [&](const char* key, auto& member, const char* doc, const Constraint& constraint) {
    using Member = std::remove_reference_t<decltype(member)>;
    if constexpr (Section<Member>) {
      entries.push_back({prefix + key, std::monostate{}, doc, constraint});
      append_entries(member, prefix + key + ".", entries);
    } else {
      entries.push_back({prefix + key, &member, doc, constraint});
    }
  });
}

/// What a value of the entry's type is called, and whether Range applies to it.
std::string type_name(const Entry& entry) {
  if (std::holds_alternative<int64_t*>(entry.member)) return "an integer";
  if (std::holds_alternative<double*>(entry.member)) return "a number";
  if (std::holds_alternative<bool*>(entry.member)) return "true or false";
  if (std::holds_alternative<std::string*>(entry.member)) return "text";
  if (std::holds_alternative<std::vector<int64_t>*>(entry.member)) return "a list of integers";
  return "a section";
}

bool in_range(double value, const Range& range) {
  return (range.open_min ? value > range.min : value >= range.min) && value <= range.max;
}

/// Nothing, or a hint at the word that was probably meant.
std::string word_hint(const std::string& found, const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    if (lower_case(word) == lower_case(found))
      return concat(" (upper and lower case matter: write ", word, ")");
  }
  const std::string nearest = nearest_word(found, words);
  return nearest.empty() ? "" : concat(" (did you mean ", nearest, "?)");
}

}  // namespace

std::string Entry::name() const { return key.substr(section().empty() ? 0 : section().size() + 1); }

std::string Entry::section() const {
  const size_t dot = key.rfind('.');
  return dot == std::string::npos ? "" : key.substr(0, dot);
}

std::vector<Entry> list_entries(Config& config) {
  std::vector<Entry> entries;
  append_entries(config, "", entries);
  return entries;
}

std::string allowed(const Entry& entry) {
  const std::string type = type_name(entry);
  if (const auto* choices = std::get_if<Choices>(&entry.constraint)) {
    return "one of " + join(choices->words, ", ");
  }
  if (std::holds_alternative<Interval>(entry.constraint)) return "[] or [start, end], 0 <= start <= end";
  const auto* range = std::get_if<Range>(&entry.constraint);
  if (!range) return type;
  const bool has_min = std::isfinite(range->min), has_max = std::isfinite(range->max);
  const std::string above = concat(range->open_min ? " > " : " >= ", number_text(range->min));
  const std::string below = concat(" <= ", number_text(range->max));
  if (has_min && has_max && !range->open_min) {
    return concat(type, " from ", number_text(range->min), " to ", number_text(range->max));
  }
  if (has_min && has_max) return concat(type, above, " and", below);
  return concat(type, has_min ? above : "", has_max ? below : "");
}

std::string value_text(const Entry& entry) {
  if (auto* const* value = std::get_if<int64_t*>(&entry.member)) return std::to_string(**value);
  if (auto* const* value = std::get_if<double*>(&entry.member)) return number_text(**value);
  if (auto* const* value = std::get_if<bool*>(&entry.member)) return **value ? "true" : "false";
  if (auto* const* value = std::get_if<std::string*>(&entry.member)) return yaml_string(**value);
  if (auto* const* value = std::get_if<std::vector<int64_t>*>(&entry.member)) {
    std::vector<std::string> items;
    for (const int64_t item : **value) items.push_back(std::to_string(item));
    return "[" + join(items, ", ") + "]";
  }
  return "";
}

std::string problem_with(const Entry& entry) {
  bool good = true;
  std::string hint;
  const auto* range = std::get_if<Range>(&entry.constraint);
  if (auto* const* value = std::get_if<int64_t*>(&entry.member)) {
    good = !range || in_range(static_cast<double>(**value), *range);
  } else if (auto* const* value = std::get_if<double*>(&entry.member)) {
    good = std::isfinite(**value) && (!range || in_range(**value, *range));
    if (!std::isfinite(**value)) hint = " (not finite)";
  } else if (auto* const* value = std::get_if<std::string*>(&entry.member)) {
    if (const auto* choices = std::get_if<Choices>(&entry.constraint)) {
      good = contains(choices->words, **value);
      if (!good) hint = word_hint(**value, choices->words);
    }
  } else if (auto* const* value = std::get_if<std::vector<int64_t>*>(&entry.member)) {
    const std::vector<int64_t>& list = **value;
    good = !std::holds_alternative<Interval>(entry.constraint) || list.empty() ||
           (list.size() == 2 && list[0] >= 0 && list[0] <= list[1]);
  }
  return good ? "" : concat("expected ", allowed(entry), ", found ", value_text(entry), hint);
}

}  // namespace genie::config
