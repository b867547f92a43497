// The gradient of every family: along the gradient of one parameter, the loss must change by the gradient's length.
// Random weights and in-memory models; no reference results are needed.
#include <gtest/gtest.h>

#include <random>

#include "ops/elementwise.h"
#include "support/families.h"
#include "support/model_weights.h"
#include "train/harness.h"
#include "train/schedule.h"

namespace nibble {
namespace {

using namespace nibble::test;

constexpr int kHidden = 32;

/// From a random generator.
ModelWeights random_weights(const Json& config) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 0.25f);
  return ModelWeights(config, [&](Tensor& values) {
    for (int64_t i = 0; i < values.count(); ++i) values.f32()[i] = normal(random);
  });
}

class EveryFamilyGradient : public ::testing::TestWithParam<Family> {
 protected:
  void SetUp() override {
    const Family& family = GetParam();
    const Json config = Json::parse(config_text(family, kHidden), "config.json");
    const ModelWeights weights = random_weights(config);
    Loader loader(weights, {});
    model_ = build_model(config, "config.json", loader);
    parameters_ = train_parameters(*model_, [](std::string_view) { return true; });
    batch_ = {.ids = {5, 17, 9, 3, 24, 31, 12, 20, 33, 7, 11, 2}, .lengths = {7, 5}};
    batch_.labels = model_->info().predicts_text() ? batch_.ids : std::vector<int32_t>{2, 0};
    if (family.model_type == "bert") batch_.token_type_ids = {0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1};
  }

  /// d loss along `direction`, a tensor of length 1, by differences of the f32 loss.
  double slope(Tensor value, const Tensor& direction) {
    const Tensor centre = copy_of(value);
    // Rounding of the loss, 1e-6 of it, over the step against the third derivative times its square.
    constexpr double kStep = 1e-2;
    double difference = 0;
    for (const double sign : {1.0, -1.0}) {
      for (int64_t i = 0; i < value.count(); ++i) {
        value.f32()[i] = static_cast<float>(centre.f32()[i] + sign * kStep * direction.f32()[i]);
      }
      difference += sign * loss_of(*model_, batch_).mean() / (2 * kStep);
    }
    std::copy_n(centre.f32(), centre.count(), value.f32());
    return difference;
  }

  std::unique_ptr<Model> model_;
  std::vector<TrainedParameter> parameters_;
  LabelledBatch batch_;
};

TEST_P(EveryFamilyGradient, PredictsHowTheLossChanges) {
  Tape tape = tape_for(parameters_);
  add_gradients(*model_, batch_, label_count(*model_, batch_), tape);
  for (const TrainedParameter& p : parameters_) {
    ASSERT_FALSE(tape.gradient(p.value).empty()) << p.name;
    Tensor direction = copy_of(tape.gradient(p.value));
    const double length = gradient_norm({direction});
    ASSERT_TRUE(std::isfinite(length)) << p.name;
    if (length < 1e-4) continue;  // of a key's bias in a softmax: rounding only
    scale_in_place(direction, static_cast<float>(1 / length));
    EXPECT_NEAR(slope(p.value, direction) / length, 1.0, 0.01 + 2e-4 / length) << p.name;
  }
}

// Tables of words, positions and types: A and B are both random, so neither gradient is zero.
TEST_P(EveryFamilyGradient, ThatOfEmbeddingAdaptersPredictsHowTheLossChanges) {
  const auto none = [](std::string_view) { return std::optional<LoraOptions>(); };
  const auto all = [](std::string_view) {
    return std::optional<LoraOptions>({.rank = 3, .alpha = 0.3, .init = LoraInit::random});
  };
  const std::vector<TrainedParameter> adapters = add_lora(*model_, none, all);
  ASSERT_GE(adapters.size(), 2u);
  Tape tape = tape_for(adapters);
  add_gradients(*model_, batch_, label_count(*model_, batch_), tape);
  for (const TrainedParameter& p : adapters) {
    ASSERT_FALSE(tape.gradient(p.value).empty()) << p.name;
    Tensor direction = copy_of(tape.gradient(p.value));
    const double length = gradient_norm({direction});
    ASSERT_GT(length, 1e-4) << p.name;
    scale_in_place(direction, static_cast<float>(1 / length));
    EXPECT_NEAR(slope(p.value, direction) / length, 1.0, 0.01 + 2e-4 / length) << p.name;
  }
}

// One sequence after the other must be what each is alone, in training as in evaluation.
TEST_P(EveryFamilyGradient, EvaluatesAsItTrains) {
  Tape tape = tape_for(parameters_);
  const Loss trained = add_gradients(*model_, batch_, label_count(*model_, batch_), tape);
  EXPECT_EQ(trained.sum, loss_of(*model_, batch_).sum);
}

INSTANTIATE_TEST_SUITE_P(Families, EveryFamilyGradient, ::testing::ValuesIn(every_family()),
                         [](const auto& info) { return info.param.model_type; });
INSTANTIATE_TEST_SUITE_P(Classifiers, EveryFamilyGradient, ::testing::ValuesIn(decoder_classifiers()),
                         [](const auto& info) { return info.param.model_type; });

}  // namespace
}  // namespace nibble
