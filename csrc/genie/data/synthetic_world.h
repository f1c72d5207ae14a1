#pragma once

#include <cstdint>
#include <string>

namespace genie::data {

/// Writes a small world in the format of docs/data_format.md, so that everything can be tried and tested
/// without a download: a coloured sprite on a textured background, pulled down by gravity and stopped by
/// platforms. Five actions: 0 nothing, 1 left, 2 right, 3 up (a jump, only from the ground), 4 down (a faster
/// fall); each is held for a few frames. Every episode has platforms and colours of its own. 15 frames a
/// second. The same arguments write the same frames on every platform: integers only.
void write_synthetic_world(const std::string& path, int64_t num_frames = 512, int64_t height = 64,
                           int64_t width = 64, int64_t episode_length = 64, uint64_t seed = 0);

}  // namespace genie::data
