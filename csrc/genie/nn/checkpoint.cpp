#include "genie/nn/checkpoint.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "genie/nn/autocast.h"
#include "genie/nn/dropout.h"

namespace genie::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

at::Generator generator_of(const at::Tensor& t) { return at::globalContext().defaultGenerator(t.device()); }

/// Sets a generator's state for a scope and puts the former one back.
class GeneratorStateScope {
 public:
  GeneratorStateScope(at::Generator generator, const at::Tensor& state)
      : generator_(std::move(generator)), former_(generator_.get_state()) {
    generator_.set_state(state);
  }
  ~GeneratorStateScope() { generator_.set_state(former_); }
  GeneratorStateScope(const GeneratorStateScope&) = delete;
  GeneratorStateScope& operator=(const GeneratorStateScope&) = delete;

 private:
  at::Generator generator_;
  at::Tensor former_;
};

/// What backward needs to run the function as forward did.
struct Recompute : torch::CustomClassHolder {
  std::function<at::Tensor(const at::Tensor&)> function;
  std::function<std::vector<at::Tensor>()> current_parameters;
  std::vector<at::Tensor> parameters;  // those of forward
  at::Tensor generator_state;
  SampleSeeds seeds;
  at::ScalarType autocast_dtype = at::kFloat;  // float32 where autocast is off
};

struct CheckpointFunction : torch::autograd::Function<CheckpointFunction> {
  static Variable forward(AutogradContext* ctx, const at::Tensor& input, at::TensorList parameters,
                          const c10::intrusive_ptr<Recompute>& recompute) {
    const auto device = input.device().type();
    recompute->parameters = parameters.vec();
    recompute->generator_state = generator_of(input).get_state();
    recompute->seeds = sample_seeds();
    if (at::autocast::is_autocast_enabled(device)) {
      recompute->autocast_dtype = at::autocast::get_autocast_dtype(device);
    }
    variable_list saved{input};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["recompute"] = c10::IValue::make_capsule(recompute);
    at::NoGradGuard no_grad;
    return recompute->function(input);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    TORCH_CHECK_NOT_IMPLEMENTED(!at::GradMode::is_enabled(),
                                "gradient checkpointing: double backward isn't supported; turn it off");
    const auto saved = ctx->get_saved_variables();  // throws where a parameter has changed since
    const auto recompute =
        c10::static_intrusive_pointer_cast<Recompute>(ctx->saved_data["recompute"].toCapsule());
    const auto current = recompute->current_parameters();
    for (size_t i = 0; i < current.size(); ++i) {
      TORCH_CHECK(
          current[i].is_same(recompute->parameters[i]),
          "gradient checkpointing: a parameter was exchanged between forward and backward, which would "
          "compute the layer again with the new one; call backward before the next forward, or turn "
          "gradient checkpointing off");
    }
    at::AutoGradMode with_grad(true);
    const at::Tensor input = saved[0].detach().requires_grad_(saved[0].requires_grad());
    at::Tensor output;
    {
      GeneratorStateScope random(generator_of(input), recompute->generator_state);
      SampleSeedsScope samples(recompute->seeds);
      AutocastScope precision(input.device().type(), recompute->autocast_dtype);
      output = recompute->function(input);
    }
    variable_list wanted;
    if (input.requires_grad()) wanted.push_back(input);
    for (const auto& parameter : recompute->parameters) {
      if (parameter.requires_grad()) wanted.push_back(parameter);
    }
    const auto found = torch::autograd::grad({output}, wanted, {gradients[0]}, /*retain_graph=*/false,
                                             /*create_graph=*/false, /*allow_unused=*/true);
    variable_list result(saved.size() + 1);  // input, parameters, and none for the function
    size_t next = 0;
    if (input.requires_grad()) result[0] = found[next++];
    for (size_t i = 0; i < recompute->parameters.size(); ++i) {
      if (recompute->parameters[i].requires_grad()) result[i + 1] = found[next++];
    }
    return result;
  }
};

}  // namespace

at::Tensor checkpoint(std::function<at::Tensor(const at::Tensor&)> function, const at::Tensor& input,
                      std::function<std::vector<at::Tensor>()> parameters) {
  if (!at::GradMode::is_enabled()) return function(input);
  auto recompute = c10::make_intrusive<Recompute>();
  recompute->function = std::move(function);
  recompute->current_parameters = std::move(parameters);
  const std::vector<at::Tensor> used = recompute->current_parameters();
  return CheckpointFunction::apply(input, at::TensorList(used), recompute);
}

}  // namespace genie::nn
