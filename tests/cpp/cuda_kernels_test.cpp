// The CUDA kernels run under emulation on the CPU (cuda_emulation/): results and gradients beside those of
// the CPU kernels in float64. This shows nothing about a GPU's speed or memory order.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "genie/ops/area_attention/area_attention.h"
#include "genie/ops/maskgit/maskgit_step.h"
#include "genie/ops/products.h"
#include "genie/ops/rope/rope.h"
#include "genie/ops/st_attention/st_attention.h"
#include "genie/ops/unverified_kernels.h"
#include "genie/ops/vector_quantize/vector_quantize.h"

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
namespace ops = genie::ops;

/// Calls the kernel an op has for `key`.
template <class Function, class... Args>
auto call(c10::DispatchKey key, const char* name, Args&&... args) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Function>();
  return op.redispatch(c10::DispatchKeySet(key), std::forward<Args>(args)...);
}

constexpr auto kCuda = c10::DispatchKey::CUDA, kCpu = c10::DispatchKey::CPU;

/// The largest difference relative to the largest expected value; NaN where there is a NaN.
double difference(const Tensor& actual, const Tensor& expected) {
  if (actual.numel() == 0) return actual.sizes() == expected.sizes() ? 0 : 1;
  const double scale = std::max(expected.abs().max().item<double>(), 0.01);
  return (actual.to(at::kDouble) - expected).abs().max().item<double>() / scale;
}

double tolerance(at::ScalarType dtype) {
  return dtype == at::kDouble ? 1e-12 : dtype == at::kFloat ? 1e-5 : 3e-2;
}

class CudaKernelsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    constexpr uint64_t seed = 11;
    at::manual_seed(seed);
    RecordProperty("seed", static_cast<int>(seed));
    at::set_num_threads(1);  // the CPU's side is small: several threads would only wait for each other
    ops::enable_unverified_cuda_kernels(true);
    ops::assume_cpu_multiplies_bfloat16(true);  // as a GPU does: emulated tensors are the CPU's
  }
  void TearDown() override {
    ops::assume_cpu_multiplies_bfloat16(std::nullopt);
    ops::enable_unverified_cuda_kernels(false);
    at::set_num_threads(threads_);
  }

 private:
  const int threads_ = at::get_num_threads();
};

using St = Tensor(const Tensor&, std::string_view, bool, bool, std::optional<double>);
using StBackward = Tensor(const Tensor&, const Tensor&, std::string_view, bool, bool, std::optional<double>);

struct StCase {
  std::vector<int64_t> size;  // B, T, N, heads, head_dim
  std::string axis;
  bool causal, qk_norm;
  at::ScalarType dtype = at::kFloat;
  std::optional<double> scale = std::nullopt;
};

void compare_st_attention(const StCase& c) {
  SCOPED_TRACE(testing::Message() << at::IntArrayRef(c.size) << " " << c.axis << " causal " << c.causal
                                  << " norm " << c.qk_norm << " " << c.dtype);
  const auto& s = c.size;
  const Tensor qkv = at::randn({s[0], s[1], s[2], 3, s[3], s[4]}, at::kDouble).to(c.dtype);
  const Tensor grad = at::randn({s[0], s[1], s[2], s[3] * s[4]}, at::kDouble).to(c.dtype);
  const Tensor exact = qkv.to(at::kDouble), exact_grad = grad.to(at::kDouble);
  EXPECT_LE(difference(call<St>(kCuda, "genie::st_attention", qkv, c.axis, c.causal, c.qk_norm, c.scale),
                       call<St>(kCpu, "genie::st_attention", exact, c.axis, c.causal, c.qk_norm, c.scale)),
            tolerance(c.dtype));
  EXPECT_LE(difference(call<StBackward>(kCuda, "genie::_st_attention_backward", grad, qkv, c.axis, c.causal,
                                        c.qk_norm, c.scale),
                       call<StBackward>(kCpu, "genie::_st_attention_backward", exact_grad, exact, c.axis,
                                        c.causal, c.qk_norm, c.scale)),
            tolerance(c.dtype));
}

// Up to 32 frames all gradients come from one kernel, up to 64 from two, and beyond from torch's.
TEST_F(CudaKernelsTest, AttentionOverTimeIsThatOfTheCpu) {
  for (const bool causal : {false, true}) {
    compare_st_attention({{1, 1, 3, 2, 8}, "time", causal, true});
    compare_st_attention({{2, 5, 3, 2, 12}, "time", causal, true});
    compare_st_attention({{1, 16, 2, 2, 32}, "time", causal, false});
    compare_st_attention({{1, 32, 1, 1, 33}, "time", causal, true});
    compare_st_attention({{1, 33, 2, 1, 8}, "time", causal, true});
    compare_st_attention({{2, 64, 1, 1, 16}, "time", causal, true});
    compare_st_attention({{1, 70, 2, 1, 8}, "time", causal, true});
  }
}

TEST_F(CudaKernelsTest, AttentionInFramesIsThatOfTheCpu) {
  for (const bool causal : {false, true}) {
    compare_st_attention({{1, 2, 9, 2, 8}, "space", causal, true});
    compare_st_attention({{1, 2, 9, 2, 8}, "space", causal, false});
    compare_st_attention({{1, 2, 21, 2, 12}, "space", causal, true});  // no width of torch's kernels
    compare_st_attention({{1, 1, 75, 1, 20}, "space", causal, true});
    compare_st_attention({{1, 1, 40, 1, 130}, "space", causal, true});
  }
}

TEST_F(CudaKernelsTest, AttentionIsThatOfTheCpuInEveryPrecision) {
  for (const auto dtype : {at::kDouble, at::kBFloat16}) {
    compare_st_attention({{1, 9, 2, 2, 16}, "time", true, true, dtype});
    compare_st_attention({{1, 40, 1, 1, 16}, "time", true, true, dtype});
    compare_st_attention({{1, 2, 11, 2, 16}, "space", false, true, dtype});
  }
}

TEST_F(CudaKernelsTest, AttentionHonoursTheScale) {
  for (const double scale : {0.0, 0.3, -0.5}) {
    compare_st_attention({{1, 5, 2, 2, 8}, "time", true, true, at::kFloat, scale});
    compare_st_attention({{1, 2, 5, 2, 8}, "space", false, true, at::kFloat, scale});
  }
}

TEST_F(CudaKernelsTest, LaterFramesChangeNoBitOfEarlierOnes) {
  for (const int64_t frames : {8, 40}) {
    const Tensor qkv = at::randn({1, frames, 2, 3, 2, 16});
    Tensor changed = qkv.clone();
    changed.narrow(1, 5, frames - 5).normal_(0, 10);
    const auto attend = [](const Tensor& x) {
      return call<St>(kCuda, "genie::st_attention", x, "time", true, true, std::nullopt);
    };
    const Tensor before = attend(qkv), after = attend(changed);
    EXPECT_TRUE(at::equal(before.narrow(1, 0, 5), after.narrow(1, 0, 5)));
    EXPECT_FALSE(at::equal(before, after));
  }
}

using Area = Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, c10::SymInt,
                    std::optional<double>, const OptionalTensor&);
using Three = std::tuple<Tensor, Tensor, Tensor>;
using AreaBackward = Three(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                           c10::SymInt, std::optional<double>, const OptionalTensor&);

void compare_area_attention(const std::vector<int64_t>& lengths, int64_t channels, bool frames,
                            at::ScalarType dtype) {
  SCOPED_TRACE(testing::Message() << at::IntArrayRef(lengths) << " x " << channels << " frames " << frames
                                  << " " << dtype);
  std::vector<int64_t> offsets = {0};
  for (const int64_t length : lengths) offsets.push_back(offsets.back() + length);
  const int64_t total = offsets.back(), longest = *std::max_element(lengths.begin(), lengths.end());
  // Slices of one projection, as the modules have them.
  const Tensor qkv = at::randn({total, 3, 2, channels}, at::kDouble).to(dtype), exact = qkv.to(at::kDouble);
  const Tensor grad = at::randn({total, 2, channels}, at::kDouble).to(dtype);
  const Tensor starts = at::tensor(offsets, at::kLong).to(frames ? at::kLong : at::kInt);
  const OptionalTensor ids = frames ? OptionalTensor(at::randint(4, {total}, at::kLong)) : std::nullopt;
  const auto forward = [&](c10::DispatchKey key, const Tensor& x) {
    return call<Area>(key, "genie::area_attention", x.select(1, 0), x.select(1, 1), x.select(1, 2), starts,
                      longest, std::nullopt, ids);
  };
  const auto backward = [&](c10::DispatchKey key, const Tensor& x, const Tensor& upstream) {
    return call<AreaBackward>(key, "genie::_area_attention_backward", upstream, x.select(1, 0),
                              x.select(1, 1), x.select(1, 2), starts, longest, std::nullopt, ids);
  };
  EXPECT_LE(difference(forward(kCuda, qkv), forward(kCpu, exact)), tolerance(dtype));
  const auto [q, k, v] = backward(kCuda, qkv, grad);
  const auto [exact_q, exact_k, exact_v] = backward(kCpu, exact, grad.to(at::kDouble));
  EXPECT_LE(difference(q, exact_q), tolerance(dtype));
  EXPECT_LE(difference(k, exact_k), tolerance(dtype));
  EXPECT_LE(difference(v, exact_v), tolerance(dtype));
}

TEST_F(CudaKernelsTest, AttentionInAreasIsThatOfTheCpu) {
  const std::vector<std::vector<int64_t>> areas = {{4, 4}, {5, 1, 0, 3, 0}, {1}, {0, 70, 2}, {33, 17}};
  for (const auto& lengths : areas) {
    for (const bool frames : {false, true}) {
      compare_area_attention(lengths, 12, frames, at::kFloat);
      compare_area_attention(lengths, 16, frames, at::kFloat);
    }
  }
  for (const auto dtype : {at::kDouble, at::kBFloat16}) {
    compare_area_attention({9, 20}, 16, true, dtype);
    compare_area_attention({9, 20}, 16, false, dtype);
  }
}

TEST_F(CudaKernelsTest, OffsetsBeyondTheTokensAreCutToThem) {
  const Tensor x = at::randn({10, 1, 12});
  const Tensor out = call<Area>(kCuda, "genie::area_attention", x, x, x, at::tensor({-3, 4, 99}, at::kInt),
                                10, std::nullopt, OptionalTensor(at::zeros({10}, at::kLong)));
  const Tensor expected = ops::area_attention(x.to(at::kDouble), x.to(at::kDouble), x.to(at::kDouble),
                                              at::tensor({0, 4, 10}, at::kInt), 6);
  EXPECT_LE(difference(out, expected), 1e-5);
}

using Rope3d = Tensor(const Tensor&, const Tensor&, c10::SymInt, c10::SymInt, bool);
using RopeRegister = Tensor(const Tensor&, const Tensor&, const Tensor&, bool);

/// By the kernel where they are enabled, by torch's operations where not.
TEST_F(CudaKernelsTest, RotationsAreThoseOfTheCpu) {
  for (const bool enabled : {true, false}) {
    ops::enable_unverified_cuda_kernels(enabled);
    for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
      for (const bool transpose : {false, true}) {
        for (const int64_t channels : {4, 5, 20, 64, 88}) {
          SCOPED_TRACE(testing::Message() << channels << " " << dtype << " enabled " << enabled);
          const Tensor qkv = at::randn({2, 7, 3, 2, channels}, at::kDouble).to(dtype);
          const Tensor x = qkv.narrow(2, 0, 2), ids = at::randint(90, {2, 7}, at::kLong);
          for (const Tensor& positions : {ids, ids[0]}) {
            EXPECT_LE(difference(call<Rope3d>(kCuda, "genie::rope_3d", x, positions, 3, 5, transpose),
                                 ops::rope_3d(x.to(at::kDouble), positions, 3, 5, transpose)),
                      tolerance(dtype));
          }
          if (channels % 4 != 0) continue;
          const Tensor angle = at::rand({7, channels}, at::kDouble) * 6;
          const auto table = dtype == at::kDouble ? at::kDouble : at::kFloat;
          EXPECT_LE(difference(call<RopeRegister>(kCuda, "genie::rope_register", x, angle.cos().to(table),
                                                  angle.sin().to(table), transpose),
                               ops::rope_register(x.to(at::kDouble), angle.cos(), angle.sin(), transpose)),
                    tolerance(dtype));
        }
      }
    }
  }
}

using Quantize = std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&);

void expect_same_codes(const Tensor& x, const Tensor& codebook) {
  const auto [values, indices] = call<Quantize>(kCuda, "genie::vector_quantize", x, codebook);
  const auto [expected, expected_indices] = ops::vector_quantize(x, codebook);
  EXPECT_TRUE(at::equal(indices, expected_indices)) << indices << expected_indices;
  EXPECT_TRUE(at::allclose(values, expected, 0, 0, /*equal_nan=*/true));
}

TEST_F(CudaKernelsTest, NearestCodesAreThoseOfTheCpu) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    expect_same_codes(at::randn({1, 1}).to(dtype), at::randn({1, 1}).to(dtype));
    expect_same_codes(at::randn({33, 32}).to(dtype), at::randn({8, 32}).to(dtype));
    expect_same_codes(at::randn({18, 5}).to(dtype), at::randn({257, 5}).to(dtype));
  }
  const Tensor codes = at::randn({37, 9});
  expect_same_codes(at::randn({20, 9}), codes.repeat({6, 1}));                             // equal codes
  expect_same_codes(at::randn({24, 16}) * 1e-4 + 100, at::randn({100, 16}) * 1e-4 + 100);  // beyond float32
}

TEST_F(CudaKernelsTest, NearestCodesTreatWhatIsNotFiniteAsTheCpuDoes) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN(),
                   infinity = std::numeric_limits<double>::infinity();
  Tensor x = at::randn({12, 4}), codebook = at::randn({12, 4});
  codebook[0].fill_(nan);
  codebook[5].fill_(infinity);
  x[3].fill_(nan);
  x[5][1].fill_(infinity);
  expect_same_codes(x, codebook);
  expect_same_codes(x, at::full({3, 4}, nan));
}

using Step = std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                        const Tensor&, c10::SymInt, double, int64_t, double, double,
                                        std::string_view);

std::tuple<Tensor, Tensor> step(c10::DispatchKey key, const std::vector<Tensor>& x, int64_t num_masked,
                                const ops::MaskgitOptions& options) {
  return call<Step>(key, "genie::maskgit_step", x[0], x[1], x[2], x[3], x[4], num_masked, options.temperature,
                    options.top_k, options.top_p, options.confidence_temperature, options.unmask);
}

std::vector<Tensor> maskgit_inputs(int64_t batch, int64_t positions, int64_t codes) {
  return {at::randn({batch, positions, codes}, at::kDouble) * 3,
          at::randint(1000, 2000, {batch, positions}, at::kLong), at::rand({batch, positions}) < 0.7,
          at::rand({batch, positions}, at::kDouble), at::rand({batch, positions}, at::kDouble)};
}

TEST_F(CudaKernelsTest, MaskgitStepsAreThoseOfTheCpu) {
  const std::vector<ops::MaskgitOptions> options = {{},
                                                    {.temperature = 0},
                                                    {.temperature = 0.4},
                                                    {.top_k = 1},
                                                    {.temperature = 2, .top_k = 3},
                                                    {.top_p = 0.8},
                                                    {.temperature = 1.5, .top_k = 5, .top_p = 0.9},
                                                    {.confidence_temperature = 2.5},
                                                    {.unmask = "random"}};
  for (const auto& option : options) {
    for (const int64_t codes : {1, 3, 11, 70}) {
      for (const int64_t num_masked : {0, 3, 100}) {
        const auto inputs = maskgit_inputs(2, 9, codes);
        const auto [tokens, mask] = step(kCuda, inputs, num_masked, option);
        const auto [expected_tokens, expected_mask] = step(kCpu, inputs, num_masked, option);
        EXPECT_TRUE(at::equal(tokens, expected_tokens))
            << codes << " codes, " << num_masked << " to stay masked";
        EXPECT_TRUE(at::equal(mask, expected_mask)) << codes << " codes, " << num_masked << " to stay masked";
      }
    }
  }
}

TEST_F(CudaKernelsTest, MaskgitKeepsTheFirstOfEqualCodesAsTheCpuDoes) {
  for (const ops::MaskgitOptions& option :
       {ops::MaskgitOptions{.top_k = 5}, ops::MaskgitOptions{.top_p = 0.45},
        ops::MaskgitOptions{.top_k = 37, .top_p = 0.5}}) {
    auto inputs = maskgit_inputs(2, 8, 70);
    inputs[0] = at::randint(3, {2, 8, 70}, at::kDouble) - 1;  // many ties, zeros of both signs
    inputs[0] = at::where(at::rand({2, 8, 70}) < 0.5, inputs[0], -inputs[0]);
    const auto [tokens, mask] = step(kCuda, inputs, 2, option);
    const auto [expected_tokens, expected_mask] = step(kCpu, inputs, 2, option);
    EXPECT_TRUE(at::equal(tokens, expected_tokens));
    EXPECT_TRUE(at::equal(mask, expected_mask));
  }
}

TEST_F(CudaKernelsTest, MaskgitRefusesWhatTheCpuRefuses) {
  const auto refused = [](int64_t input, double value, const std::string& message) {
    auto inputs = maskgit_inputs(2, 5, 4);
    inputs[2].fill_(true);
    inputs[static_cast<size_t>(input)][1][3].fill_(value);
    for (const auto key : {kCuda, kCpu}) {
      try {
        step(key, inputs, 0, {});
        ADD_FAILURE() << "accepted " << message;
      } catch (const c10::ValueError& error) {
        EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
      }
    }
  };
  constexpr double infinity = std::numeric_limits<double>::infinity();
  refused(0, std::numeric_limits<double>::quiet_NaN(), "sample 1, position 3 hold NaN");
  refused(0, infinity, "sample 1, position 3 hold NaN");
  refused(0, -infinity, "sample 1, position 3 hold NaN");
  refused(3, 1.0, "sample_noise must be in [0, 1), got 1");
  refused(4, -0.5, "confidence_noise must be in [0, 1), got -0.5");
}

using NormLinear = Tensor(const Tensor&, const Tensor&, const Tensor&, double, const Tensor&,
                          const OptionalTensor&);
using LinearResidual = Tensor(const Tensor&, const Tensor&, const OptionalTensor&, const Tensor&);
using LinearResidualBackward = std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&,
                                                                  const Tensor&);
using Mlp = std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, double, const Tensor&,
                                       const Tensor&, const Tensor&, const Tensor&, bool);
using Tensors5 = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
using Tensors7 = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using NormLinearBackward = Tensors5(const Tensor&, const Tensor&, const Tensor&, const Tensor&, double,
                                    const Tensor&);
using MlpBackward = Tensors7(const Tensor&, const Tensor&, const Tensor&, const Tensor&, double,
                             const Tensor&, const Tensor&, const Tensor&);

template <class Tuple>
void expect_all_close(const Tuple& actual, const Tuple& expected, double limit) {
  std::vector<Tensor> all, exact;
  std::apply([&](const auto&... x) { (all.push_back(x), ...); }, actual);
  std::apply([&](const auto&... x) { (exact.push_back(x), ...); }, expected);
  for (size_t i = 0; i < all.size(); ++i) {
    ASSERT_EQ(all[i].sizes(), exact[i].sizes()) << "result " << i;
    EXPECT_LE(difference(all[i], exact[i]), limit) << "result " << i;
  }
}

TEST_F(CudaKernelsTest, PiecesOfABlockAreThoseOfTheCpu) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto multiplied = [&](at::IntArrayRef shape) { return at::randn(shape, at::kDouble).to(dtype); };
    const auto draw = [&](at::IntArrayRef shape) { return multiplied(shape).to(ops::sum_type(dtype)); };
    const Tensor x = draw({2, 5, 8}), nw = draw({8}), nb = draw({8}), w1 = multiplied({300, 8}),
                 b1 = multiplied({300}), w2 = multiplied({8, 300}), b2 = multiplied({8}),
                 grad = draw({2, 5, 8}), wide_grad = multiplied({2, 5, 300});
    const auto exact = [](const Tensor& t) { return t.to(at::kDouble); };
    const double eps = 1e-5;
    const auto on = [&](c10::DispatchKey key, const auto& as) {
      const auto [out, hidden] = call<Mlp>(key, "genie::_norm_mlp_residual", as(x), as(nw), as(nb), eps,
                                           as(w1), as(b1), as(w2), as(b2), true);
      return std::tuple_cat(
          std::tuple(
              out, hidden,
              call<NormLinear>(key, "genie::norm_linear", as(x), as(nw), as(nb), eps, as(w1), as(b1)),
              call<NormLinear>(key, "genie::norm_linear", as(x), as(nw), as(nb), eps, as(w1), std::nullopt),
              call<LinearResidual>(key, "genie::linear_residual", as(wide_grad), as(w2), as(b2), as(x))),
          call<LinearResidualBackward>(key, "genie::_linear_residual_backward", as(grad), as(wide_grad),
                                       as(w2)),
          call<NormLinearBackward>(key, "genie::_norm_linear_backward", as(wide_grad), as(x), as(nw), as(nb),
                                   eps, as(w1)),
          call<MlpBackward>(key, "genie::_norm_mlp_residual_backward", as(grad), as(x), as(nw), as(nb), eps,
                            as(w1), hidden, as(w2)));
    };
    expect_all_close(on(kCuda, [](const Tensor& t) { return t; }), on(kCpu, exact), tolerance(dtype));
  }
}

TEST_F(CudaKernelsTest, KernelsThatWereNeverRunOnAGpuAreOffUntilEnabled) {
  ops::enable_unverified_cuda_kernels(false);
  const Tensor qkv = at::randn({1, 2, 2, 3, 1, 4});
  try {
    call<St>(kCuda, "genie::st_attention", qkv, "time", true, true, std::nullopt);
    ADD_FAILURE() << "ran a kernel that is off";
  } catch (const c10::NotImplementedError& error) {
    EXPECT_NE(std::string(error.what()).find("genie_cpp.ops.enable_unverified_cuda_kernels()"),
              std::string::npos);
    EXPECT_NE(std::string(error.what()).find("GENIE_UNVERIFIED_CUDA_KERNELS=1"), std::string::npos);
  }
}

}  // namespace
