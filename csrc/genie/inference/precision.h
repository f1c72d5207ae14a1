#pragma once

#include <c10/core/Device.h>

#include <string>

namespace genie::inference {

/// Throws Error where matrix multiplications in `dtype` are no gain on the device: bfloat16 on a processor
/// without instructions for it is multiplied as float32 after more rounding.
void check_precision(const std::string& dtype, const c10::Device& device);

}  // namespace genie::inference
