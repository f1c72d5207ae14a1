#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "genie/config/config.h"
#include "genie/config/entry.h"
#include "genie/config/nearest_key.h"
#include "genie/config/scalar.h"
#include "genie/config/text.h"
#include "genie/core/error.h"

namespace genie::config {
namespace {

/// Run directories and checkpoints from before its meaning went may still hold it.
constexpr const char* retired = "training.slow_bfloat16";

/// Stores what a YAML document says in the configuration its entries point into.
class Reader {
 public:
  Reader(std::string name, const std::vector<Entry>& entries) : name_(std::move(name)), entries_(entries) {}

  /// Reads the keys of a mapping; `section` is its full key, "" for the whole document.
  void read_section(const YAML::Node& node, const std::string& section) const {
    if (node.IsNull()) return;  // an empty file, or a section whose keys are all commented out
    check(node.IsMap(), where(node), section.empty() ? "a configuration" : section,
          ": expected a section with ", keys_of(section), ", found ", kind(node));
    std::map<std::string, int> lines;
    for (const auto& item : node) {
      const YAML::Node &key_node = item.first, &value = item.second;
      check(key_node.IsScalar(), where(key_node), section, section.empty() ? "" : ": ",
            "expected a key, found ", kind(key_node));
      const std::string key = (section.empty() ? "" : section + ".") + key_node.Scalar();
      const auto [first, inserted] = lines.emplace(key, key_node.Mark().line + 1);
      check(inserted, where(key_node), key, " is set twice, first in line ", first->second);
      if (key != retired) read_entry(find(key, key_node), value);
    }
  }

 private:
  void read_entry(const Entry& entry, const YAML::Node& value) const {
    if (entry.is_section()) return read_section(value, entry.key);
    check(!value.IsNull(), where(value), entry.key, ": expected ", allowed(entry), ", found no value",
          std::holds_alternative<std::string*>(entry.member) ? " ('' is the empty text)" : "");
    if (value.IsSequence() && std::holds_alternative<std::vector<int64_t>*>(entry.member)) {
      return assign(entry, {list_text(value), false}, where(value));
    }
    check(value.IsScalar(), where(value), entry.key, ": expected ", allowed(entry), ", found ", kind(value));
    // yaml-cpp marks quoted scalars with the tag "!".
    const bool quoted = value.Tag() == "!" || value.Tag() == "tag:yaml.org,2002:str";
    assign(entry, {value.Scalar(), quoted}, where(value));
  }

  const Entry& find(const std::string& key, const YAML::Node& key_node) const {
    const bool dotted = key_node.Scalar().find('.') != std::string::npos;
    for (const Entry& entry : entries_) {
      if (entry.key != key) continue;
      check(!dotted, where(key_node), "unknown key ", key, "; write it in its section: '", entry.section(),
            ":', below it '", entry.name(), ":'");
      return entry;
    }
    throw Error(concat(where(key_node), "unknown key ", key, "; ", unknown_key_hint(key, entries_)));
  }

  /// A list in one line; what is no plain item in it stands there by its kind.
  static std::string list_text(const YAML::Node& list) {
    std::vector<std::string> items;
    for (const auto& item : list) items.push_back(item.IsScalar() ? item.Scalar() : kind(item));
    return "[" + join(items, ", ") + "]";
  }

  std::string keys_of(const std::string& section) const {
    std::vector<std::string> keys;
    for (const Entry& entry : entries_) {
      if (entry.section() == section) keys.push_back(entry.name());
    }
    return concat(section.empty() ? "the sections " : "the keys ", join(keys, ", "));
  }

  std::string where(const YAML::Node& node) const {
    const YAML::Mark mark = node.Mark();
    return mark.is_null() ? name_ + ": " : concat(name_, ":", mark.line + 1, ": ");
  }

  static std::string kind(const YAML::Node& node) {
    if (node.IsSequence()) return "a list";
    if (node.IsMap()) return "a section";
    if (node.IsScalar()) return concat("the value ", yaml_string(node.Scalar()));
    return "nothing";
  }

  std::string name_;
  const std::vector<Entry>& entries_;
};

YAML::Node parse_document(const std::string& yaml, const std::string& name) {
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(yaml);
    check(documents.size() <= 1, name, ": expected one YAML document, found ", documents.size(),
          " (a line '---' starts another)");
    return documents.empty() ? YAML::Node() : documents[0];
  } catch (const YAML::Exception& error) {
    throw Error(
        concat(name, ":", error.mark.line + 1, ":", error.mark.column + 1, ": not valid YAML: ", error.msg));
  }
}

}  // namespace

Config parse_config(const std::string& yaml, const std::string& name) {
  Config config;
  const std::vector<Entry> entries = list_entries(config);
  Reader(name, entries).read_section(parse_document(yaml, name), "");
  try {
    validate(config);
  } catch (const Error& error) {
    throw Error(concat(name, ": ", error.what()));
  }
  return config;
}

Config load_config(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  check(std::filesystem::exists(status), path, ": no such file; expected a YAML configuration");
  check(!std::filesystem::is_directory(status), path, " is a directory; expected a YAML configuration file");
  std::ifstream file(path, std::ios::binary);
  check(file.good(), path, ": cannot be opened for reading (permissions?)");
  const std::string yaml((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  check(!file.bad(), path, ": reading failed");
  return parse_config(yaml, path);
}

}  // namespace genie::config
