#pragma once

#include <torch/csrc/utils/pybind.h>
#include <torch/nn/module.h>
