#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <memory>
#include <optional>
#include <string>

#include "genie/config/config.h"
#include "genie/inference/maskgit.h"
#include "genie/models/genie.h"
#include "genie/nn/kmeans.h"
#include "genie/python/bindings.h"
#include "genie/python/module_handle.h"
#include "genie/python/sampling.h"

namespace genie::python {
namespace {

namespace py = pybind11;
using namespace py::literals;
using namespace genie::models;
using config::Config;

nn::PatchGrid tokenizer_grid(const Config& config) {
  return {config.data.height, config.data.width, config.tokenizer.patch_size};
}

void bind_video_tokenizer(py::module_& m) {
  module_class<VideoTokenizerImpl>(m, "VideoTokenizer")
      .def(py::init([](const Config& config) {
             config::validate(config);
             const auto& data = config.data;
             return std::make_shared<VideoTokenizerImpl>(config.tokenizer, data.num_frames, data.height,
                                                         data.width);
           }),
           "config"_a, NoGil())
      .def(
          "forward",
          [](VideoTokenizerImpl& model, const at::Tensor& video) {
            TokenizerOutput out;
            {
              const py::gil_scoped_release no_gil;
              out = model.forward(video);
            }
            return py::dict("patches"_a = out.patches, "reconstruction"_a = out.reconstruction,
                            "tokens"_a = out.tokens, "quantizer_loss"_a = out.quantizer_loss);
          },
          "video"_a)
      .def("encode", &VideoTokenizerImpl::encode, "video"_a, NoGil())
      .def("decode", &VideoTokenizerImpl::decode, "tokens"_a, NoGil())
      .def("initialize_from", &VideoTokenizerImpl::initialize_from, "video"_a, "seed"_a = 0, NoGil())
      .def_property_readonly("num_frames", &VideoTokenizerImpl::num_frames)
      .def_property_readonly("num_codes",
                             [](const VideoTokenizerImpl& m) { return m.config().quantizer.num_codes; })
      .def_property_readonly("tokens_per_frame",
                             [](const VideoTokenizerImpl& m) { return m.grid().count(); });
}

void bind_latent_action(py::module_& m) {
  module_class<LatentActionModelImpl>(m, "LatentActionModel")
      .def(py::init([](const Config& config) {
             config::validate(config);
             const auto& data = config.data;
             return std::make_shared<LatentActionModelImpl>(config.latent_action, data.num_frames,
                                                            data.height, data.width);
           }),
           "config"_a, NoGil())
      .def(
          "forward",
          [](LatentActionModelImpl& model, const at::Tensor& video, const std::optional<at::Tensor>& hidden) {
            LatentActionOutput out;
            {
              const py::gil_scoped_release no_gil;
              out = model.forward(video, hidden.value_or(at::Tensor()));
            }
            return py::dict("target"_a = out.target, "prediction"_a = out.prediction,
                            "previous"_a = out.previous, "actions"_a = out.actions,
                            "quantizer_loss"_a = out.quantizer_loss);
          },
          "video"_a, "hidden"_a = py::none())
      .def("infer", &LatentActionModelImpl::infer, "video"_a, NoGil())
      .def("predict", &LatentActionModelImpl::predict, "video"_a, "actions"_a, NoGil())
      .def_property_readonly("num_frames", &LatentActionModelImpl::num_frames)
      .def_property_readonly("num_actions", &LatentActionModelImpl::num_actions);
}

void bind_dynamics(py::module_& m) {
  module_class<DynamicsModelImpl>(m, "DynamicsModel")
      .def(py::init([](const Config& config) {
             config::validate(config);
             return std::make_shared<DynamicsModelImpl>(
                 config.dynamics, config.data.num_frames, tokenizer_grid(config),
                 config.tokenizer.quantizer.num_codes, config.latent_action.quantizer.num_codes);
           }),
           "config"_a, NoGil())
      .def("forward", &DynamicsModelImpl::forward, "tokens"_a, "actions"_a, "mask"_a, NoGil())
      .def("features", &DynamicsModelImpl::features, "tokens"_a, "actions"_a, "mask"_a, NoGil())
      .def("logits", &DynamicsModelImpl::logits, "features"_a, NoGil())
      .def("cross_entropy", &DynamicsModelImpl::cross_entropy, "features"_a, "tokens"_a, "mask"_a,
           "label_smoothing"_a = 0.0, NoGil())
      .def("initialize_from", &DynamicsModelImpl::initialize_from, "codebook"_a, "seed"_a = 0, NoGil())
      .def(
          "generate",
          [](DynamicsModelImpl& model, const Config& config, const at::Tensor& prompt,
             const at::Tensor& actions, uint64_t seed, std::optional<int64_t> steps,
             std::optional<double> temperature, std::optional<std::string> schedule,
             std::optional<std::string> unmasking, std::optional<int64_t> top_k,
             std::optional<double> top_p) {
            const Sampling sampling{steps, top_k, temperature, top_p, schedule, unmasking};
            DynamicsModel holder(std::static_pointer_cast<DynamicsModelImpl>(model.shared_from_this()));
            return inference::generate(holder, prompt, actions, sampling.over(config), seed);
          },
          "config"_a, "prompt_tokens"_a, "actions"_a, "seed"_a = 0, py::kw_only(), "steps"_a = py::none(),
          "temperature"_a = py::none(), "schedule"_a = py::none(), "unmasking"_a = py::none(),
          "top_k"_a = py::none(), "top_p"_a = py::none(), NoGil(),
          "MaskGIT with the inference section of `config` and what is given otherwise.")
      .def_property_readonly("num_frames", &DynamicsModelImpl::num_frames)
      .def_property_readonly("tokens_per_frame", &DynamicsModelImpl::tokens_per_frame)
      .def_property_readonly("num_tokens", &DynamicsModelImpl::num_tokens)
      .def_property_readonly("num_actions", &DynamicsModelImpl::num_actions);
}

void bind_genie(py::module_& m) {
  module_class<GenieImpl>(m, "Genie")
      .def(py::init([](const Config& config) {
             config::validate(config);
             return std::make_shared<GenieImpl>(config);
           }),
           "config"_a, NoGil())
      .def_property_readonly("config", [](const GenieImpl& genie) { return genie.config(); });
}

/// The models' own classes, so that each can be called by itself.
void bind_parts(py::module_& m) {
  module_class<VideoEncoderImpl>(m, "VideoEncoder").def("forward", &VideoEncoderImpl::forward, NoGil());
  module_class<VideoDecoderImpl>(m, "VideoDecoder").def("forward", &VideoDecoderImpl::forward, NoGil());
  module_class<ActionEncoderImpl>(m, "ActionEncoder").def("forward", &ActionEncoderImpl::forward, NoGil());
  module_class<FramePredictorImpl>(m, "FramePredictor").def("forward", &FramePredictorImpl::forward, NoGil());
  module_class<TokenEmbeddingImpl>(m, "TokenEmbedding").def("forward", &TokenEmbeddingImpl::forward, NoGil());
  module_class<ActionEmbeddingImpl>(m, "ActionEmbedding")
      .def("forward", &ActionEmbeddingImpl::forward, NoGil());
}

}  // namespace

void bind_models(py::module_& m) {
  bind_parts(m);
  bind_video_tokenizer(m);
  bind_latent_action(m);
  bind_dynamics(m);
  bind_genie(m);
  m.def("kmeans", &nn::kmeans, "points"_a, "count"_a, "iterations"_a, "seed"_a = 0, NoGil(),
        "Lloyd's algorithm: `count` centers (count,D) of points (M,D).");
  m.def("nearest", &nn::nearest, "points"_a, "centers"_a, NoGil(),
        "Index int64 (M) of the nearest row of centers (K,D) for each row of points (M,D); ties take the "
        "lower index.");
}

}  // namespace genie::python
