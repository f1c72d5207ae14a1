// Products of bfloat16 both ways: by instructions (or torch's emulation of them) and as float32.

#include "genie/ops/products.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <vector>

#include "genie/ops/linear/linear.h"
#include "genie/ops/linear_cross_entropy/linear_cross_entropy.h"
#include "genie/ops/residual_branch/residual_branch.h"

namespace {

using namespace genie;
using Tensors = std::vector<at::Tensor>;
using Function = std::function<at::Tensor(const Tensors&)>;

constexpr double eps = 1e-5;

class Products : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    ops::assume_cpu_multiplies_bfloat16(GetParam());
    constexpr int seed = 11;
    at::manual_seed(seed);
    RecordProperty("seed", seed);
  }
  void TearDown() override { ops::assume_cpu_multiplies_bfloat16(std::nullopt); }
};

INSTANTIATE_TEST_SUITE_P(, Products, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "AsBFloat16" : "AsFloat32"; });

/// Each of them rounded to bfloat16, so that what follows differs by its own rounding only.
at::Tensor narrow_normal(at::IntArrayRef size) { return at::randn(size).to(at::kBFloat16); }

/// The results of `function` and its gradients by all arguments, for a given gradient of the result.
Tensors with_gradients(const Function& function, const Tensors& arguments) {
  Tensors leaves;
  for (const at::Tensor& argument : arguments) leaves.push_back(argument.detach().requires_grad_());
  const at::Tensor out = function(leaves);
  const at::Tensor weight = at::linspace(-1, 1, out.numel()).cos().view(out.sizes()).to(at::kBFloat16);
  (out * weight.to(out.scalar_type())).sum().backward();
  Tensors results = {out.detach()};
  for (const at::Tensor& leaf : leaves) results.push_back(leaf.grad());
  return results;
}

/// Within `tolerance` of the largest of float64's `exact`.
void expect_near(const Tensors& results, const Tensors& exact, double tolerance) {
  ASSERT_EQ(results.size(), exact.size());
  for (size_t i = 0; i < exact.size(); ++i) {
    const at::Tensor error = (results[i].to(at::kDouble) - exact[i]).abs().max() / exact[i].abs().max();
    EXPECT_LE(error.item<double>(), tolerance) << "result " << i;
  }
}

Tensors in_float64(const Tensors& tensors) {
  Tensors exact;
  for (const at::Tensor& tensor : tensors) exact.push_back(tensor.to(at::kDouble));
  return exact;
}

// A product of narrow factors that is rounded once is off by 2^-9 of its size at most; where the factors are
// rounded on the way (normalised rows, activations), their errors add up.
constexpr double once = 1.0 / 256, on_the_way = 1.0 / 64;

TEST_P(Products, OfLinearAreThoseOfFloat64) {
  const Function linear = [](const Tensors& t) { return ops::linear(t[0], t[1], t[2]); };
  const Function exact = [](const Tensors& t) { return at::linear(t[0], t[1], t[2]); };
  const Tensors arguments = {narrow_normal({2, 300, 24}), narrow_normal({40, 24}), narrow_normal({40})};
  const Tensors results = with_gradients(linear, arguments);
  for (const at::Tensor& result : results) EXPECT_EQ(result.scalar_type(), at::kBFloat16);
  expect_near(results, with_gradients(exact, in_float64(arguments)), once);
}

TEST_P(Products, OfLinearWithoutBiasOrWithPartOfTheGradients) {
  const at::Tensor x = narrow_normal({5, 8}), weight = narrow_normal({3, 8}).requires_grad_();
  const at::Tensor out = ops::linear(x, weight, std::nullopt);
  out.sum().backward();
  expect_near(
      {out, weight.grad()},
      {at::linear(x.to(at::kDouble), weight.to(at::kDouble)), x.to(at::kDouble).sum(0).expand({3, 8})}, once);
}

TEST_P(Products, OfLinearCanBeDifferentiatedTwice) {
  const at::Tensor x = narrow_normal({5, 8}).requires_grad_(),
                   weight = narrow_normal({3, 8}).requires_grad_();
  const at::Tensor out = ops::linear(x, weight, std::nullopt).square().sum();
  const auto first = torch::autograd::grad({out}, {x}, {}, {}, /*create_graph=*/true);
  const auto second = torch::autograd::grad({first[0].sum()}, {weight});
  const at::Tensor wide_x = x.detach().to(at::kDouble).requires_grad_(),
                   wide = weight.detach().to(at::kDouble).requires_grad_();
  const auto exact = torch::autograd::grad({at::linear(wide_x, wide).square().sum()}, {wide_x}, {}, {}, true);
  expect_near({second[0]}, {torch::autograd::grad({exact[0].sum()}, {wide})[0]}, on_the_way);
}

/// Rows for several pieces of several threads.
constexpr int64_t rows = 1500;

TEST_P(Products, OfNormLinearAreThoseOfFloat64) {
  const Function fused = [](const Tensors& t) { return ops::norm_linear(t[0], t[1], t[2], eps, t[3], t[4]); };
  const Function parts = [](const Tensors& t) {
    return at::linear(at::layer_norm(t[0], {t[0].size(-1)}, t[1], t[2], eps), t[3], t[4]);
  };
  const Tensors arguments = {at::randn({2, rows, 16}), at::randn({16}), at::randn({16}),
                             narrow_normal({24, 16}), narrow_normal({24})};
  const Tensors results = with_gradients(fused, arguments);
  EXPECT_EQ(results[0].scalar_type(), at::kBFloat16);
  expect_near(results, with_gradients(parts, in_float64(arguments)), on_the_way);
}

TEST_P(Products, OfLinearResidualAreThoseOfFloat64) {
  const Function fused = [](const Tensors& t) { return ops::linear_residual(t[0], t[1], t[2], t[3]); };
  const Function parts = [](const Tensors& t) { return t[3] + at::linear(t[0], t[1], t[2]); };
  const Tensors arguments = {narrow_normal({2, rows, 16}), narrow_normal({24, 16}), narrow_normal({24}),
                             at::randn({2, rows, 24})};
  const Tensors results = with_gradients(fused, arguments);
  EXPECT_EQ(results[0].scalar_type(), at::kFloat);
  expect_near(results, with_gradients(parts, in_float64(arguments)), on_the_way);
}

TEST_P(Products, OfNormMlpResidualAreThoseOfFloat64) {
  const Function fused = [](const Tensors& t) {
    return ops::norm_mlp_residual(t[0], t[1], t[2], eps, t[3], t[4], t[5], t[6]);
  };
  const Function parts = [](const Tensors& t) {
    const at::Tensor normal = at::layer_norm(t[0], {t[0].size(-1)}, t[1], t[2], eps);
    return t[0] + at::linear(at::gelu(at::linear(normal, t[3], t[4])), t[5], t[6]);
  };
  const Tensors arguments = {at::randn({2, rows, 16}), at::randn({16}),     at::randn({16}),
                             narrow_normal({40, 16}),  narrow_normal({40}), narrow_normal({16, 40}),
                             narrow_normal({16})};
  const Tensors results = with_gradients(fused, arguments);
  EXPECT_EQ(results[0].scalar_type(), at::kFloat);
  expect_near(results, with_gradients(parts, in_float64(arguments)), on_the_way);
  at::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(fused(arguments), results[0]));
}

TEST_P(Products, OfLinearCrossEntropyAreThoseOfFloat64) {
  const at::Tensor targets = at::randint(24, {rows}, at::kLong);
  const Function fused = [&](const Tensors& t) {
    return std::get<0>(ops::linear_cross_entropy(t[0], t[1], t[2], targets, 0.1));
  };
  const Function parts = [&](const Tensors& t) {
    return at::cross_entropy_loss(at::linear(t[0], t[1], t[2]), targets, {}, at::Reduction::Sum, -100, 0.1);
  };
  const Tensors arguments = {narrow_normal({rows, 16}), narrow_normal({24, 16}), narrow_normal({24})};
  expect_near(with_gradients(fused, arguments), with_gradients(parts, in_float64(arguments)), on_the_way);
}

TEST(ProductsOfFloat32, AreLeftAlone) {
  const at::Tensor x = at::randn({3, 4});
  EXPECT_TRUE(ops::as_factor(x, at::kFloat).is_same(x));
  EXPECT_FALSE(ops::widened(at::kFloat, at::kCPU));
  EXPECT_FALSE(ops::widened(at::kBFloat16, at::kCUDA));
}

TEST(WidenedFactors, HoldBFloat16InFloat32) {
  ops::assume_cpu_multiplies_bfloat16(false);
  const at::Tensor x = at::linspace(-3, 3, 1001), factor = ops::as_factor(x, at::kBFloat16);
  ops::assume_cpu_multiplies_bfloat16(std::nullopt);
  EXPECT_EQ(factor.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(factor, x.to(at::kBFloat16).to(at::kFloat)));
}

}  // namespace
