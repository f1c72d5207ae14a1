#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace genie {

// Only sources include this header: the JSON library is slow to compile.

/// Parses a text of few kilobytes to a megabyte that may be damaged or hostile: nothing for a text that is
/// not JSON or nests deeper than `max_depth`. (Deep nesting costs sixty times the text in memory.)
std::optional<nlohmann::json> parse_json(std::string_view text, int max_depth = 16);

/// A name from a file as it may stand in a message: in quotes, at most 80 characters, all of them printable.
std::string quote(std::string_view name);

}  // namespace genie
