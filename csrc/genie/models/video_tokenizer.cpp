#include "genie/models/video_tokenizer.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <tuple>

#include "genie/models/transformer_factory.h"
#include "genie/nn/autocast.h"
#include "genie/nn/input_check.h"
#include "genie/nn/kmeans.h"

namespace genie::models {
namespace {

void zero_(nn::Linear& linear) {
  at::NoGradGuard no_grad;
  linear->weight.zero_();
  linear->bias.zero_();
}

}  // namespace

VideoEncoderImpl::VideoEncoderImpl(const config::TransformerConfig& config, int64_t num_frames,
                                   const nn::PatchGrid& grid, int64_t code_dim, bool linear_path) {
  embed_ = register_module("embed", nn::Linear(grid.values(), config.dim));
  position_ = register_module("position", make_position(config, num_frames, grid));
  transformer_ = register_module("transformer", make_transformer(config, num_frames, grid));
  head_ = register_module("head", nn::Linear(config.dim, code_dim));
  initialize_weights(*this, config.depth);
  if (linear_path) {
    linear_ = register_module("linear", nn::Linear(grid.values(), code_dim));
    zero_(head_);
  }
}

at::Tensor VideoEncoderImpl::forward(const at::Tensor& patches) {
  nn::check_input("VideoTokenizer", "video's patches", patches, embed_->weight.size(1), embed_->weight);
  const at::Tensor encoded =
      head_->forward(transformer_->forward(position_->forward(embed_->forward(patches))));
  return linear_ ? linear_->forward(patches) + encoded : encoded;
}

VideoDecoderImpl::VideoDecoderImpl(const config::TransformerConfig& config, int64_t num_frames,
                                   const nn::PatchGrid& grid, int64_t code_dim, bool linear_path) {
  embed_ = register_module("embed", nn::Linear(code_dim, config.dim));
  position_ = register_module("position", make_position(config, num_frames, grid));
  transformer_ = register_module("transformer", make_transformer(config, num_frames, grid));
  head_ = register_module("head", nn::Linear(config.dim, grid.values()));
  initialize_weights(*this, config.depth);
  if (linear_path) {
    linear_ = register_module("linear", nn::Linear(code_dim, grid.values()));
    zero_(head_);
  }
}

at::Tensor VideoDecoderImpl::forward(const at::Tensor& codes) {
  nn::check_input("VideoTokenizer", "codes", codes, embed_->weight.size(1), embed_->weight);
  const at::Tensor decoded =
      head_->forward(transformer_->forward(position_->forward(embed_->forward(codes))));
  return linear_ ? linear_->forward(codes) + decoded : decoded;
}

at::Tensor VideoDecoderImpl::forward_cached(const at::Tensor& codes, nn::TemporalCache& cache) {
  const at::Tensor x = position_->forward(embed_->forward(codes), cache.length());
  const at::Tensor decoded = head_->forward(transformer_->forward_cached(x, cache));
  return linear_ ? linear_->forward(codes) + decoded : decoded;
}

VideoTokenizerImpl::VideoTokenizerImpl(const config::TokenizerConfig& config, int64_t num_frames,
                                       int64_t height, int64_t width)
    : config_(config), num_frames_(num_frames), grid_{height, width, config.patch_size} {
  TORCH_CHECK_VALUE(num_frames >= 1 && height >= 1 && width >= 1 && config.patch_size >= 1,
                    "VideoTokenizer: num_frames, height, width and patch_size must be at least 1, got ",
                    num_frames, ", ", height, ", ", width, ", ", config.patch_size);
  const bool linear_path = config.initialization == "pca_kmeans";
  const int64_t code_dim = config.quantizer.code_dim;
  encoder_ =
      register_module("encoder", VideoEncoder(config.encoder, num_frames, grid_, code_dim, linear_path));
  quantizer_ = register_module("quantizer", nn::VectorQuantizer(config.quantizer));
  decoder_ =
      register_module("decoder", VideoDecoder(config.decoder, num_frames, grid_, code_dim, linear_path));
}

TokenizerOutput VideoTokenizerImpl::forward(const at::Tensor& video) {
  TokenizerOutput out;
  out.patches = nn::patchify(video, grid_);
  const nn::Quantized quantized = quantizer_->forward(encoder_->forward(out.patches));
  out.reconstruction = decoder_->forward(quantized.values);
  out.tokens = quantized.indices;
  out.quantizer_loss = quantized.loss;
  return out;
}

at::Tensor VideoTokenizerImpl::encode(const at::Tensor& video) {
  const at::Tensor encodings =
      encoder_->forward(nn::patchify(video, grid_)).to(quantizer_->codebook().scalar_type());
  return nn::nearest(encodings.flatten(0, 2), quantizer_->codebook())
      .view({video.size(0), video.size(1), grid_.count()});
}

at::Tensor VideoTokenizerImpl::lookup(const at::Tensor& tokens) {
  TORCH_CHECK_VALUE(tokens.dim() == 3 && tokens.size(2) == grid_.count(),
                    "VideoTokenizer.decode: expected tokens (B,T,", grid_.count(), "), got ", tokens.sizes());
  return quantizer_->lookup(tokens);
}

at::Tensor VideoTokenizerImpl::to_video(const at::Tensor& patches) const {
  return nn::unpatchify(patches.to(at::kFloat), grid_).clamp(0, 1);
}

at::Tensor VideoTokenizerImpl::decode(const at::Tensor& tokens) {
  return to_video(decoder_->forward(lookup(tokens)));
}

at::Tensor VideoTokenizerImpl::decode_cached(const at::Tensor& tokens, nn::TemporalCache& cache) {
  const at::Tensor video = to_video(decoder_->forward_cached(lookup(tokens), cache));
  cache.commit(tokens.size(1));
  return video;
}

nn::TemporalCache VideoTokenizerImpl::make_decoder_cache(int64_t history) const {
  return nn::TemporalCache(config_.decoder.depth, num_frames_, config_.decoder.rotary_time() ? history : 0);
}

void VideoTokenizerImpl::initialize_from(const at::Tensor& video, uint64_t seed) {
  if (config_.initialization == "random") return;
  const nn::NoAutocastScope full_precision;
  constexpr int64_t kSamplesPerCode = 128;
  at::NoGradGuard no_grad;
  at::Generator generator = at::detail::createCPUGenerator(seed);
  at::Tensor patches = nn::patchify(video, grid_).flatten(0, 2);
  const int64_t wanted = std::min(patches.size(0), kSamplesPerCode * config_.quantizer.num_codes);
  patches = patches.index_select(
      0, at::randperm(patches.size(0), generator, at::kLong).narrow(0, 0, wanted).to(patches.device()));

  // PCA: the directions of greatest variance, orthonormal, so that distances between codes are distances of
  // patches.
  const at::Tensor mean = patches.mean(0);
  const at::Tensor centered = patches - mean;
  const at::Tensor covariance =
      at::mm(centered.t(), centered).to(at::kDouble) / static_cast<double>(patches.size(0));
  const at::Tensor directions = std::get<1>(at::linalg_eigh(covariance)).flip(1).to(patches.scalar_type());
  const int64_t kept = std::min(config_.quantizer.code_dim, grid_.values());
  at::Tensor basis = at::zeros({config_.quantizer.code_dim, grid_.values()}, patches.options());
  basis.narrow(0, 0, kept).copy_(directions.narrow(1, 0, kept).t());

  encoder_->linear()->weight.copy_(basis);
  encoder_->linear()->bias.copy_(-basis.mv(mean));
  decoder_->linear()->weight.copy_(basis.t());
  decoder_->linear()->bias.copy_(mean);
  quantizer_->initialize_from(centered.mm(basis.t()), seed);
}

}  // namespace genie::models
