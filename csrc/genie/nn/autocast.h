#pragma once

#include <ATen/autocast_mode.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <string>

namespace genie::nn {

/// The type of matrix multiplications that a configuration's `dtype` names.
inline c10::ScalarType dtype_named(const std::string& dtype) {
  return dtype == "bfloat16" ? c10::ScalarType::BFloat16 : c10::ScalarType::Float;
}

/// Runs matrix multiplications of its scope in `dtype` (at::autocast, as torch.autocast does in Python);
/// nothing where `dtype` is float32.
class AutocastScope {
 public:
  AutocastScope(c10::DeviceType device, c10::ScalarType dtype)
      : device_(device),
        former_enabled_(at::autocast::is_autocast_enabled(device)),
        former_dtype_(at::autocast::get_autocast_dtype(device)) {
    at::autocast::set_autocast_enabled(device, dtype != c10::ScalarType::Float);
    if (dtype != c10::ScalarType::Float) at::autocast::set_autocast_dtype(device, dtype);
    at::autocast::increment_nesting();
  }
  ~AutocastScope() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device_, former_enabled_);
    at::autocast::set_autocast_dtype(device_, former_dtype_);
  }
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

 private:
  c10::DeviceType device_;
  bool former_enabled_;
  c10::ScalarType former_dtype_;
};

/// Keeps a scope out of autocast: distances and statistics need every bit.
struct NoAutocastScope {
  c10::impl::ExcludeDispatchKeyGuard guard{c10::autocast_dispatch_keyset};
};

}  // namespace genie::nn
