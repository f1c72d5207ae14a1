#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <string>

#include "genie/config/config.h"

namespace genie::training {

/// The device a configuration asks for; "auto" is CUDA where there is one. Throws Error for a CUDA device
/// that is missing.
c10::Device training_device(const config::TrainingConfig& config);

/// `tensor` on the device. To a GPU it goes from pinned memory, so that nobody waits for the copy.
at::Tensor sent_to(const c10::Device& device, const at::Tensor& tensor);

/// The most memory this process has held so far, of the host.
double peak_host_memory_gib();

/// The most memory that torch has taken of a device other than the CPU.
double peak_device_memory_gib(const c10::Device& device);

/// "1.17 GiB", or for another device "1.17 GiB, and 9.81 GiB on the GPU".
std::string describe_peak_memory(const c10::Device& device);

}  // namespace genie::training
