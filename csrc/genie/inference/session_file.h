#pragma once

#include <string>

#include "genie/inference/world_session.h"
#include "genie/models/genie.h"

namespace genie::inference {

// A session file is a safetensors file: the session's tokens, frames, actions and caches, and in its metadata
// the format's version, the sampling options and what tells the model from others.

/// Writes the session beside `path` and moves it there when it is whole. `note` is the caller's, for
/// load_session to give back.
void save_session(const WorldSession& session, const std::string& path, const std::string& note = {});

/// The session of a file, going on as the saved one would have. Throws Error for a file that is damaged,
/// foreign, of another version, or of a session of another model.
WorldSession load_session(models::Genie genie, const std::string& path, std::string* note = nullptr);

}  // namespace genie::inference
