#include "genie/training/device.h"

#include <sys/resource.h>

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>

#include <cstdio>

#include "genie/core/error.h"

namespace genie::training {
c10::Device training_device(const config::TrainingConfig& config) {
  const bool available = at::hasCUDA();
  check(config.device != "cuda" || available,
        "training.device is cuda, but this torch sees no CUDA device; set training.device=cpu or install a "
        "CUDA build of torch");
  return c10::Device(config.device != "cpu" && available ? c10::DeviceType::CUDA : c10::DeviceType::CPU);
}

at::Tensor sent_to(const c10::Device& device, const at::Tensor& tensor) {
  return device.is_cuda() ? tensor.pin_memory().to(device, /*non_blocking=*/true) : tensor.to(device);
}

double peak_host_memory_gib() {
  // getrusage's peak also counts the program that started this one.
  if (std::FILE* status = std::fopen("/proc/self/status", "r")) {
    char line[256];
    long kib = 0;
    while (kib == 0 && std::fgets(line, sizeof line, status)) std::sscanf(line, "VmHWM: %ld kB", &kib);
    std::fclose(status);
    if (kib > 0) return static_cast<double>(kib) / (1024.0 * 1024.0);
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / (1024.0 * 1024.0);
}

double peak_device_memory_gib(const c10::Device& device) {
  if (device.is_cpu()) return 0;
  const auto index = device.has_index() ? device.index() : at::accelerator::getDeviceIndex();
  const auto stats = at::accelerator::getDeviceStats(index);
  const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return static_cast<double>(stats.reserved_bytes[all].peak) / (1024.0 * 1024.0 * 1024.0);
}

std::string describe_peak_memory(const c10::Device& device) {
  char text[96];
  std::snprintf(text, sizeof text, "%.2f GiB", peak_host_memory_gib());
  std::string result = text;
  if (!device.is_cpu()) {
    std::snprintf(text, sizeof text, ", and %.2f GiB on the GPU", peak_device_memory_gib(device));
    result += text;
  }
  return result;
}

}  // namespace genie::training
