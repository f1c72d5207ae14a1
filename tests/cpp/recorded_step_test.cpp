// The step that training.cuda_graph records, run by the CPU: what is recorded, not that a GPU records it.
#include "genie/training/recorded_step.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "genie/core/error.h"
#include "genie/models/genie.h"
#include "genie/training/module_state.h"

namespace genie::training {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kSeed = 5;
constexpr int64_t kSteps = 9, kBatch = 3, kFrames = 4, kPixels = 16;
// A rehearsed step and a replayed one.
const std::set<int64_t> kBadSteps = {2, 7};

/// All that draws, weighs or counts is on.
config::Config small_config() {
  config::Config config;
  config.data.num_frames = kFrames;
  config.data.height = config.data.width = kPixels;
  const config::TransformerConfig stack{.depth = 1, .dim = 16, .heads = 2};
  config.tokenizer.encoder = config.tokenizer.decoder = stack;
  config.latent_action.encoder = config.latent_action.decoder = config.dynamics.transformer = stack;
  config.tokenizer.quantizer = {.num_codes = 16, .code_dim = 8, .dead_code_steps = 2};
  config.tokenizer.initialization = "random";
  config.latent_action.patch_size = 8;
  config.latent_action.quantizer = {.num_codes = 6, .code_dim = 4, .update = "loss", .dead_code_steps = 2};
  config.latent_action.history_mask = 0.3;
  config.latent_action.change_weight = 1;
  config.dynamics.context_corruption = 0.3;
  config.dynamics.masked_frame_share = 0.5;
  config.dynamics.label_smoothing = 0.1;
  auto& training = config.training;
  for (auto* phase : {&training.tokenizer, &training.latent_action, &training.dynamics, &training.cotrain})
    *phase = {.steps = kSteps,
              .batch_size = kBatch,
              .learning_rate = 1.0 / 256,  // all rates are float32's: the recorded step takes them as such
              .schedule = "constant",
              .warmup_steps = 4};
  training.latent_action.clip_gradient_norm = training.cotrain.clip_gradient_norm = 0;
  return config;
}

Part batch_of(int64_t step) {
  std::vector<int64_t> samples;
  for (int64_t i = 0; i < kBatch; ++i) samples.push_back((step - 1) * kBatch + i);
  at::manual_seed(kSeed + static_cast<uint64_t>(step));
  const at::Tensor still = at::rand({kBatch, 1, 3, kPixels, kPixels});
  return {(still + 0.2 * at::rand({kBatch, kFrames, 3, kPixels, kPixels})).clamp(0, 1), samples};
}

/// Stands for a GPU that records: does the work each time, in the place of a replay.
class Eager : public Recording {
 public:
  void rehearse(const Work& work) override { work(); }
  void record(const Work& work) override { work_ = work; }
  void replay() override { work_(); }

 private:
  Work work_;
};

/// A phase in training, and what its steps leave.
struct Training {
  explicit Training(const std::string& phase_name, const config::Config& config)
      : genie((at::manual_seed(kSeed), models::Genie(config))),
        phase((genie->eval(), make_phase(phase_name, genie))),
        optimizer(phase->model(), phase->settings()) {
    phase->initialize(batch_of(1).video);
    phase->model().train();
  }

  std::unique_ptr<Step> ordinary(at::ScalarType dtype) {
    return std::make_unique<OrdinaryStep>(*phase, optimizer, Processes(), StepPlace{at::kCPU, dtype}, kSeed);
  }
  std::unique_ptr<Step> recorded(at::ScalarType dtype, std::unique_ptr<Recording> recording) {
    return std::make_unique<RecordedStep>(*phase, optimizer, StepPlace{at::kCPU, dtype},
                                          std::move(recording));
  }

  TensorMap trained() const {
    TensorMap all = optimizer.state();
    all.merge(module_state(phase->model()));
    all.merge(phase->gathering());
    for (auto& [name, tensor] : all) tensor = tensor.detach().clone();
    return all;
  }

  /// What take() gives for a step, which is spoilt by a weight that is no number where it is to be a bad one.
  StepResult take(Step& step, int64_t number) {
    const bool bad = kBadSteps.count(number) > 0;
    at::Tensor weight = phase->model().parameters()[0].detach();
    const at::Tensor whole = weight.clone();
    const TensorMap before = trained();
    if (bad) weight.fill_(std::numeric_limits<double>::quiet_NaN());
    const StepResult result = step.take(number, {batch_of(number)});
    EXPECT_EQ(result.finite(), !bad) << "step " << number;
    if (bad) {
      EXPECT_TRUE(weight.isnan().all().item<bool>());
      weight.copy_(whole);
    }
    phase->after_step(number, !result.finite());
    if (bad) {
      for (const auto& [name, tensor] : trained())
        EXPECT_TRUE(at::equal(tensor, before.at(name))) << name << " after bad step " << number;
    }
    return result;
  }

  models::Genie genie;
  std::unique_ptr<Phase> phase;
  AdamW optimizer;
};

double difference(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  return (x - y).abs().max().item<double>() / std::max(1e-2, y.abs().max().item<double>());
}

struct Case {
  std::string phase;
  at::ScalarType dtype;
  double tolerance;  // relative to a tensor's largest value
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.phase << " " << c.dtype; }

class RecordedStepTest : public ::testing::TestWithParam<Case> {};

TEST_P(RecordedStepTest, TrainsAsOrdinaryStepsDo) {
  const auto& [name, dtype, tolerance] = GetParam();
  RecordProperty("seed", static_cast<int>(kSeed));
  Training expected(name, small_config()), actual(name, small_config());
  const auto ordinary = expected.ordinary(dtype),
             recorded = actual.recorded(dtype, std::make_unique<Eager>());
  for (int64_t step = 1; step <= kSteps; ++step) {
    const StepResult wanted = expected.take(*ordinary, step), found = actual.take(*recorded, step);
    if (!wanted.finite()) continue;
    EXPECT_LE(std::abs(found.loss - wanted.loss), tolerance * std::abs(wanted.loss)) << "step " << step;
    EXPECT_LE(std::abs(found.gradient_norm - wanted.gradient_norm), tolerance * wanted.gradient_norm)
        << "step " << step;
    TensorMap values(found.values.begin(), found.values.end());
    ASSERT_EQ(values.size(), wanted.values.size());
    for (const auto& [figure, value] : wanted.values)
      EXPECT_LE(difference(values.at(figure), value), tolerance) << figure << " of step " << step;
  }
  const TensorMap wanted = expected.trained(), found = actual.trained();
  ASSERT_EQ(found.size(), wanted.size());
  for (const auto& [tensor, value] : wanted)
    EXPECT_LE(difference(found.at(tensor), value), tolerance) << tensor;
  EXPECT_EQ(wanted.at(expected.phase->model().named_parameters().begin()->key() + ".step").item<float>(),
            static_cast<float>(kSteps - static_cast<int64_t>(kBadSteps.size())));
  const Metrics wanted_usage = expected.phase->gathered(), usage = actual.phase->gathered();
  ASSERT_EQ(usage.size(), wanted_usage.size());
  for (size_t i = 0; i < usage.size(); ++i)
    EXPECT_LE(std::abs(usage[i].second - wanted_usage[i].second), 1e-3) << usage[i].first;
}

/// The dynamics model's loss is summed in another order; AdamW makes much of a gradient that is little but
/// rounding.
INSTANTIATE_TEST_SUITE_P(Phases, RecordedStepTest,
                         ::testing::Values(Case{"tokenizer", at::kFloat, 0},
                                           Case{"latent_action", at::kFloat, 0},
                                           Case{"dynamics", at::kFloat, 1e-4},
                                           Case{"cotrain", at::kFloat, 1e-4},
                                           Case{"tokenizer", at::kBFloat16, 0}));

/// While it lives, the operations of this thread that on a GPU would wait for it, bring a value from the
/// host, draw random numbers, or make as many entries as the values of others say.
class Observer {
 public:
  Observer() {
    found().clear();
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&start, &end));
  }
  ~Observer() { at::removeCallback(handle_); }
  Observer(const Observer&) = delete;
  Observer& operator=(const Observer&) = delete;

  static std::set<std::string>& found() {
    thread_local std::set<std::string> names;
    return names;
  }

 private:
  // The CPU's kernel reads the learning rate and the flag, the GPU's takes them where they are.
  static bool is_adamw(const at::RecordFunction& function) {
    return std::string(function.name()) == "aten::_fused_adamw_";
  }
  static int64_t& within_adamw() {
    thread_local int64_t depth = 0;
    return depth;
  }

  static std::unique_ptr<at::ObserverContext> start(const at::RecordFunction& function) {
    static const std::set<std::string> refused = {"aten::item",          "aten::_local_scalar_dense",
                                                  "aten::is_nonzero",    "aten::nonzero",
                                                  "aten::nonzero_numpy", "aten::masked_select",
                                                  "aten::unique_dim",    "aten::_unique2",
                                                  "aten::equal",         "aten::multinomial",
                                                  "aten::randperm",      "aten::bernoulli_",
                                                  "aten::random_",       "aten::uniform_",
                                                  "aten::normal_",       "aten::lift_fresh"};
    if (is_adamw(function)) ++within_adamw();
    const std::string name = function.name();
    if (within_adamw() == 0 && refused.count(name)) found().insert(name);
    return nullptr;
  }

  static void end(const at::RecordFunction& function, at::ObserverContext*) {
    if (is_adamw(function)) --within_adamw();
  }

  at::CallbackHandle handle_;
};

/// Watches each replay.
class Observed : public Eager {
 public:
  explicit Observed(std::set<std::string>& found) : found_(found) {}
  void replay() override {
    const Observer observer;
    Eager::replay();
    found_.insert(Observer::found().begin(), Observer::found().end());
  }

 private:
  std::set<std::string>& found_;
};

class RecordedWorkTest : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Phases, RecordedWorkTest,
                         ::testing::Values(Case{"tokenizer", at::kFloat, 0},
                                           Case{"latent_action", at::kFloat, 0},
                                           Case{"dynamics", at::kFloat, 0}, Case{"cotrain", at::kFloat, 0},
                                           Case{"cotrain", at::kBFloat16, 0}));

TEST_P(RecordedWorkTest, ReadsNothingBackAndHasFixedShapes) {
  config::Config rotary = small_config(), registers = small_config(), crossed = small_config();
  rotary.tokenizer.decoder.temporal_position = "rotary";
  rotary.latent_action.decoder.temporal_position = rotary.dynamics.transformer.temporal_position = "rotary";
  rotary.dynamics.previous_frame_input = true;
  registers.tokenizer.encoder.spatial_attention = registers.latent_action.encoder.spatial_attention =
      registers.dynamics.transformer.spatial_attention = "vit5";
  registers.dynamics.action_conditioning = "prepend";
  crossed.tokenizer.loss = "mse";
  crossed.latent_action.loss = "sigmoid_cross_entropy";
  crossed.dynamics.action_conditioning = "cross_attention";
  crossed.dynamics.cross_attention_every = 1;
  for (const config::Config& config : {small_config(), rotary, registers, crossed}) {
    Training training(GetParam().phase, config);
    std::set<std::string> found;
    const auto step = training.recorded(GetParam().dtype, std::make_unique<Observed>(found));
    for (int64_t number = 1; number <= RecordedStep::kRehearsals + 2; ++number) {
      EXPECT_TRUE(step->take(number, {batch_of(number)}).finite());
      training.phase->after_step(number, false);
    }
    EXPECT_THAT(found, IsEmpty());
  }
}

TEST(RecordedWork, TheObserverSeesWhatTheOrdinaryLossDoes) {
  Training training("dynamics", small_config());
  const TensorMap inputs = training.phase->inputs(batch_of(1));
  const Observer observer;
  training.phase->loss(inputs, training.phase->totals(inputs));
  EXPECT_THAT(Observer::found(), ::testing::IsSupersetOf({"aten::nonzero", "aten::_local_scalar_dense"}));
}

TEST(RecordedWork, TheObserverSeesTheFirstStartOfACodebook) {
  Training training("latent_action", small_config());
  const TensorMap inputs = training.phase->inputs(batch_of(1));
  const Observer observer;
  training.phase->loss(inputs, training.phase->totals(inputs));
  EXPECT_TRUE(Observer::found().count("aten::_local_scalar_dense"));
}

TEST(RecordedTokens, OfACacheTrainAsInOrdinaryStepsAndAreChecked) {
  Training expected("dynamics", small_config()), actual("dynamics", small_config());
  const auto ordinary = expected.ordinary(at::kFloat),
             recorded = actual.recorded(at::kFloat, std::make_unique<Eager>());
  const auto tokens_of = [](int64_t step) {
    Part part = batch_of(step);
    part.video = at::Tensor();
    part.tokens = at::randint(16, {kBatch, kFrames, 16}, at::kLong);
    part.actions = at::randint(6, {kBatch, kFrames - 1}, at::kLong);
    return part;
  };
  for (int64_t step = 1; step <= kSteps; ++step) {
    const double wanted = ordinary->take(step, {tokens_of(step)}).loss;
    EXPECT_LE(std::abs(recorded->take(step, {tokens_of(step)}).loss - wanted), 1e-4 * wanted);
  }
  Part damaged = tokens_of(1);
  damaged.tokens[0][0][0] = 16;
  EXPECT_THROW(recorded->take(kSteps + 1, {damaged}), c10::IndexError);
}

TEST(DynamicsLoss, IsTheSameByTensorsOfFixedShape) {
  at::manual_seed(kSeed);
  RecordProperty("seed", static_cast<int>(kSeed));
  models::Genie genie(small_config());
  models::DynamicsModel& model = genie->dynamics();
  const at::Tensor tokens = at::randint(16, {2, kFrames, 16}, at::kLong);
  const at::Tensor mask = at::rand({2, kFrames, 16}) < 0.4;
  for (const double smoothing : {0.0, 0.2}) {
    const at::Tensor compact = at::randn({2, kFrames, 16, 16}).requires_grad_(),
                     fixed = compact.detach().clone().requires_grad_();
    const auto [expected, hits] = model->cross_entropy(compact, tokens, mask, smoothing);
    const auto [actual, fixed_hits] = model->cross_entropy_of_fixed_shape(fixed, tokens, mask, smoothing);
    EXPECT_LE(difference(actual, expected), 1e-6);
    EXPECT_EQ(hits.item<int64_t>(), fixed_hits.item<int64_t>());
    expected.backward();
    actual.backward();
    EXPECT_LE(difference(fixed.grad(), compact.grad()), 1e-5);
  }
}

TEST(RecordedStepRefusals, NameTheReasonAndTheRemedy) {
  const auto error = [](const std::string& phase, const std::function<void(config::Config&)>& change,
                        c10::DeviceType device = c10::DeviceType::CUDA) -> std::string {
    config::Config config = small_config();
    change(config);
    try {
      check_recordable(config, phase, c10::Device(device), Processes());
    } catch (const Error& caught) {
      return caught.what();
    }
    return "";
  };
  const auto nothing = [](config::Config&) {};
  for (const auto& phase : {"tokenizer", "latent_action", "dynamics", "cotrain"}) {
    EXPECT_EQ(error(phase, nothing), "");
    EXPECT_THAT(error(phase, nothing, c10::DeviceType::CPU), HasSubstr("on the CPU"));
  }
  EXPECT_THAT(error("jepa", nothing), HasSubstr("train another phase"));
  EXPECT_THAT(error("tokenizer", [](auto& c) { c.training.tokenizer.accumulation = 2; }),
              HasSubstr("training.tokenizer.accumulation=1"));
  EXPECT_THAT(error("dynamics", [](auto& c) { c.training.dynamics.final_weight_decay = 0.1; }),
              HasSubstr("training.dynamics.final_weight_decay=-1"));
  EXPECT_THAT(error("latent_action", [](auto& c) { c.latent_action.decoder.dropout = 0.1; }),
              HasSubstr("latent_action.decoder drops"));
  EXPECT_THAT(error("cotrain", [](auto& c) { c.dynamics.transformer.drop_path = 0.1; }),
              HasSubstr("dynamics.transformer drops"));
  EXPECT_THAT(error("tokenizer", [](auto& c) { c.tokenizer.encoder.gradient_checkpointing = true; }),
              HasSubstr("gradient_checkpointing=false"));
  EXPECT_THAT(error("dynamics", [](auto& c) { c.dynamics.transformer.use_area_attention = true; }),
              HasSubstr("use_area_attention=false"));
  EXPECT_EQ(error("dynamics", [](auto& c) { c.tokenizer.encoder.dropout = 0.1; }), "");  // evaluates only
  EXPECT_THAT(error("dynamics", [](auto& c) { c.training.dynamics.accumulation = 4; }),
              HasSubstr("training.cuda_graph=false"));
}

TEST(RecordedStepRefusals, ABuildWithoutCudaSaysSo) {
  if (cuda_graphs_compiled()) GTEST_SKIP() << "this build has CUDA";
  try {
    make_cuda_graph(c10::Device(c10::DeviceType::CUDA));
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_THAT(std::string(error.what()), HasSubstr("docs/development.md"));
  }
}

}  // namespace
}  // namespace genie::training
