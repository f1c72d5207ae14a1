#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "genie/config/data_config.h"

namespace genie::data {

/// Frames uint8 (T,H,W,3) resized to (T,height,width,3): bilinear with antialiasing in float32, rounded to
/// the nearest uint8. The same frames come back where the size is right already.
at::Tensor resize_frames(const at::Tensor& frames, int64_t height, int64_t width);

/// Random crop, then resize to the configured size, then a mirror in half of the cases; one draw for the
/// whole clip. `seed` 0 only resizes.
at::Tensor augment_frames(const at::Tensor& frames, const config::DataConfig& config, uint64_t seed);

}  // namespace genie::data
