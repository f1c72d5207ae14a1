#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "genie/config/entry.h"

namespace genie::config {

/// Letters to insert, delete, replace or swap with their neighbour to make `b` of `a` (optimal string
/// alignment).
size_t edit_distance(const std::string& a, const std::string& b);

/// The word nearest to `found`, or "" where none is near enough to have been meant.
std::string nearest_word(const std::string& found, const std::vector<std::string>& words);

/// The known keys, in full, that `key` (in full too) was most probably meant to be: the nearest by spelling,
/// wherever in the configuration they are. Several where they are equally near; empty where none is near.
std::vector<std::string> nearest_keys(const std::string& key, const std::vector<Entry>& entries);

/// An unknown key's remedy: "did you mean ...?", or the keys its section has.
std::string unknown_key_hint(const std::string& key, const std::vector<Entry>& entries);

}  // namespace genie::config
