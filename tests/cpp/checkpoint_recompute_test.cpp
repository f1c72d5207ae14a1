#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "genie/nn/st_transformer.h"

namespace {

TEST(GradientCheckpointing, GivesTheOutputAndEveryGradientOfThePlainTransformer) {
  constexpr uint64_t kSeed = 3;
  std::vector<std::vector<at::Tensor>> found;
  for (const bool checkpointing : {false, true}) {
    at::manual_seed(kSeed);
    RecordProperty("seed", static_cast<int>(kSeed));
    genie::nn::STTransformerOptions options;
    options.dim = 16;
    options.depth = 2;
    options.num_heads = 2;
    options.num_patches_per_frame = 6;
    options.drop_rate = 0.2;  // the same dropout both times
    options.gradient_checkpointing = checkpointing;
    genie::nn::STTransformer model(options);
    const at::Tensor x = at::randn({2, 3, 6, 16}).requires_grad_(true);
    const at::Tensor y = model->forward(x);
    (y * y.detach()).sum().backward();
    std::vector<at::Tensor> results = {y.detach(), x.grad()};
    for (const at::Tensor& parameter : model->parameters()) results.push_back(parameter.grad());
    found.push_back(results);
  }
  ASSERT_EQ(found[0].size(), found[1].size());
  for (size_t i = 0; i < found[0].size(); ++i) {
    ASSERT_EQ(found[0][i].defined(), found[1][i].defined()) << i;
    if (!found[0][i].defined()) continue;
    EXPECT_LE((found[0][i] - found[1][i]).abs().max().item<double>(), 1e-5) << i;
  }
}

}  // namespace
