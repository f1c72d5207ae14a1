#include "genie/nn/checkpoint.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "genie/nn/autocast.h"

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

struct Recompute : torch::CustomClassHolder {
  std::function<at::Tensor(const at::Tensor&)> function;
  at::Tensor generator_state;
  at::ScalarType autocast_dtype = at::kFloat;  // float32 where autocast is off
};

struct CheckpointFunction : torch::autograd::Function<CheckpointFunction> {
  // `anchor` is a leaf that requires a gradient, so that the output does even where only parameters need one.
  static Variable forward(AutogradContext* ctx, const at::Tensor& input, const at::Tensor& /*anchor*/,
                          c10::intrusive_ptr<Recompute> recompute) {
    recompute->generator_state = generator_of(input).get_state();
    const auto device = input.device().type();
    if (at::autocast::is_autocast_enabled(device)) {
      recompute->autocast_dtype = at::autocast::get_autocast_dtype(device);
    }
    ctx->save_for_backward({input});
    ctx->saved_data["recompute"] = c10::IValue::make_capsule(recompute);
    at::NoGradGuard no_grad;
    return recompute->function(input);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    auto saved = ctx->get_saved_variables();
    const auto recompute =
        c10::static_intrusive_pointer_cast<Recompute>(ctx->saved_data["recompute"].toCapsule());
    at::AutoGradMode with_grad(true);
    at::Tensor input = saved[0].detach().requires_grad_(saved[0].requires_grad());
    at::Tensor output;
    {
      GeneratorStateScope scope(generator_of(input), recompute->generator_state);
      AutocastScope precision(input.device().type(), recompute->autocast_dtype);
      output = recompute->function(input);
    }
    torch::autograd::backward({output}, {gradients[0]});
    return {input.grad(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor checkpoint(std::function<at::Tensor(const at::Tensor&)> function, const at::Tensor& input) {
  if (!at::GradMode::is_enabled()) return function(input);
  auto recompute = c10::make_intrusive<Recompute>();
  recompute->function = std::move(function);
  return CheckpointFunction::apply(input, at::zeros({}, input.options()).requires_grad_(true), recompute);
}

}  // namespace genie::nn
