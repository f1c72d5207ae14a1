#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "genie/models/latent_action_model.h"
#include "genie/models/video_tokenizer.h"

namespace genie::training {

/// Reconstruction plus quantizer loss. "sum_of_squares": both are squared distances of a patch and its code,
/// which the PCA start makes commensurable; "mse": both are means over values.
at::Tensor tokenizer_loss(const models::TokenizerOutput& output, const config::TokenizerConfig& config);

/// Prediction of the next frames' patches (summed over a patch's values) plus quantizer loss. With
/// change_weight w, a value weighs 1 + w * |change| / mean_change, by default the mean |change| of `output`
/// (`mean_change`: a scalar).
at::Tensor latent_action_loss(const models::LatentActionOutput& output,
                              const config::LatentActionConfig& config, const at::Tensor& mean_change = {});

/// Peak signal-to-noise ratio in dB of values in [0,1], for each entry of the leading `kept` dimensions.
at::Tensor psnr(const at::Tensor& a, const at::Tensor& b, int64_t kept);

}  // namespace genie::training
