#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "genie/config/model_config.h"
#include "genie/nn/linear.h"
#include "genie/nn/patches.h"
#include "genie/nn/positional_embedding.h"
#include "genie/nn/st_transformer.h"
#include "genie/nn/vector_quantizer.h"

namespace genie::models {

// Shape suffixes: B batch, T frames, C = 3 colours, H, W pixels, N patches a frame, P values a patch, D code
// width, E transformer width.

/// Patches to encodings: patches (B,T,N,P) to (B,T,N,D). With `linear_path`, encodings are a linear map of
/// the patch plus what the transformer adds, which starts at zero.
class VideoEncoderImpl : public torch::nn::Module {
 public:
  VideoEncoderImpl(const config::TransformerConfig& config, int64_t num_frames, const nn::PatchGrid& grid,
                   int64_t code_dim, bool linear_path);
  at::Tensor forward(const at::Tensor& patches_BTNP);
  nn::Linear& linear() { return linear_; }

 private:
  nn::Linear embed_{nullptr}, head_{nullptr}, linear_{nullptr};
  nn::CombinedPositionalEmbedding position_{nullptr};
  nn::STTransformer transformer_{nullptr};
};
TORCH_MODULE(VideoEncoder);

/// Codebook entries to patches: (B,T,N,D) to (B,T,N,P); the encoder's mirror.
class VideoDecoderImpl : public torch::nn::Module {
 public:
  VideoDecoderImpl(const config::TransformerConfig& config, int64_t num_frames, const nn::PatchGrid& grid,
                   int64_t code_dim, bool linear_path);
  at::Tensor forward(const at::Tensor& codes_BTND);
  /// forward() of new frames behind those committed to the cache, without computing those again; T_new is 1
  /// unless the cache is empty. cache.commit(T_new) keeps the new ones.
  at::Tensor forward_cached(const at::Tensor& codes_BTND, nn::TemporalCache& cache);
  nn::Linear& linear() { return linear_; }

 private:
  nn::Linear embed_{nullptr}, head_{nullptr}, linear_{nullptr};
  nn::CombinedPositionalEmbedding position_{nullptr};
  nn::STTransformer transformer_{nullptr};
};
TORCH_MODULE(VideoDecoder);

/// What a training step of the tokenizer needs.
struct TokenizerOutput {
  at::Tensor patches;         ///< (B,T,N,P): the video's own patches
  at::Tensor reconstruction;  ///< (B,T,N,P)
  at::Tensor tokens;          ///< int64 (B,T,N)
  at::Tensor quantizer_loss;  ///< scalar, squared distance, mean over vectors
};

/// The video tokenizer of Genie (arXiv 2402.15391): causal ST-ViViT encoder, vector quantizer, causal
/// ST-ViViT decoder. Frames that are no multiple of the patch are padded by edge replication and cropped
/// again.
class VideoTokenizerImpl : public torch::nn::Module {
 public:
  VideoTokenizerImpl(const config::TokenizerConfig& config, int64_t num_frames, int64_t height,
                     int64_t width);

  /// video (B,T,3,H,W) in [0,1], T <= num_frames.
  TokenizerOutput forward(const at::Tensor& video_BTCHW);
  /// video (B,T,3,H,W) in [0,1] to tokens int64 (B,T,N). Frame t's tokens depend on frames up to t.
  at::Tensor encode(const at::Tensor& video_BTCHW);
  /// tokens int64 (B,T,N) to video (B,T,3,H,W) in [0,1]. Frame t depends on tokens up to t. With rotary time
  /// positions T may be any here and in encode(); a layer's frame then sees the last num_frames() frames.
  at::Tensor decode(const at::Tensor& tokens_BTN);
  /// decode() of frames that follow those committed to the cache, to which they are added; T_new is 1 unless
  /// the cache is empty.
  at::Tensor decode_cached(const at::Tensor& tokens_BTN, nn::TemporalCache& cache);
  /// An empty cache for decode_cached. With rotary time positions it takes any number of frames and can go
  /// back by `history`, else num_frames() of them.
  nn::TemporalCache make_decoder_cache(int64_t history = 0) const;

  /// Fits the linear path (PCA of patches) and the codebook (k-means of its encodings) to sample video
  /// (B,T,3,H,W). Does nothing with initialization "random".
  void initialize_from(const at::Tensor& video_BTCHW, uint64_t seed);

  nn::VectorQuantizer& quantizer() { return quantizer_; }
  const nn::PatchGrid& grid() const { return grid_; }
  int64_t num_frames() const { return num_frames_; }
  const config::TokenizerConfig& config() const { return config_; }

 private:
  at::Tensor lookup(const at::Tensor& tokens);
  at::Tensor to_video(const at::Tensor& patches) const;

  config::TokenizerConfig config_;
  int64_t num_frames_;
  nn::PatchGrid grid_;
  VideoEncoder encoder_{nullptr};
  nn::VectorQuantizer quantizer_{nullptr};
  VideoDecoder decoder_{nullptr};
};
TORCH_MODULE(VideoTokenizer);

}  // namespace genie::models
