#pragma once

#include <string>
#include <vector>

namespace genie::config {

/// The shortest decimal that reads back as exactly this double; YAML's .nan and .inf where it is not finite.
std::string number_text(double value);

/// The string as a YAML scalar that every YAML reader takes for a string: quoted only where it has to be.
std::string yaml_string(const std::string& value);

std::string lower_case(std::string text);
std::string trim(const std::string& text);
std::string join(const std::vector<std::string>& parts, const std::string& separator);
bool contains(const std::vector<std::string>& words, const std::string& word);

}  // namespace genie::config
