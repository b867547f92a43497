#include "train/optimizer.h"

#include <gtest/gtest.h>

#include "core/parallel.h"
#include "quant/dynamic_map.h"
#include "support/sha256.h"
#include "train/harness.h"

namespace nibble {
namespace {

using namespace nibble::test;

TrainedParameter parameter(const std::vector<float>& values) { return {"p", Tensor::from(values)}; }

/// `steps` steps with gradients 1, 2, ... at rate 0.1 from the value 1.
double after(OptimizerOptions options, int steps) {
  const TrainedParameter p = parameter({1.0f});
  Optimizer optimizer({p}, std::move(options));
  for (int i = 1; i <= steps; ++i) optimizer.step({Tensor::from(std::vector<float>{static_cast<float>(i)})}, 0.1);
  return p.value.f32()[0];
}

TEST(Optimizer, AdamwEqualsItsFormula) {
  double value = 1, m = 0, v = 0;
  for (int t = 1; t <= 5; ++t) {
    m = 0.8 * m + 0.2 * t;
    v = 0.9 * v + 0.1 * t * t;
    value *= 1 - 0.1 * 0.05;
    value -= 0.1 * (m / (1 - std::pow(0.8, t))) / (std::sqrt(v / (1 - std::pow(0.9, t))) + 0.01);
  }
  EXPECT_NEAR(after({.beta1 = 0.8, .beta2 = 0.9, .eps = 0.01, .weight_decay = 0.05}, 5), value, 1e-6);
}

TEST(Optimizer, SgdWithMomentumEqualsItsFormula) {
  double value = 1, momentum = 0;
  for (int t = 1; t <= 4; ++t) {
    momentum = 0.9 * momentum + t + 0.05 * value;
    value -= 0.1 * momentum;
  }
  EXPECT_NEAR(after({.name = "sgd", .weight_decay = 0.05, .momentum = 0.9}, 4), value, 1e-5);
}

TEST(Optimizer, UnknownNamesAndRangesAreRefused) {
  expect_error(ErrorCode::invalid_argument, "expected one of adamw, adamw8bit, sgd",
               [] { Optimizer({parameter({1})}, {.name = "adam"}); });
  expect_error(ErrorCode::invalid_argument, "beta1 must be", [] { Optimizer({parameter({1})}, {.beta1 = 1.0}); });
  expect_error(ErrorCode::invalid_argument, "eps must be", [] { Optimizer({parameter({1})}, {.eps = 0.0}); });
}

Tensor wave(int64_t count, double phase) {
  Tensor t(DType::f32, {count});
  for (int64_t i = 0; i < count; ++i) t.f32()[i] = static_cast<float>(std::sin(phase + static_cast<double>(i) * 0.37));
  return t;
}

// A norm that files hold less 1: in memory 1 more, it takes the same way.
TEST(Optimizer, DecaysTowardsWhatIsZeroInFiles) {
  // Of two values below 4, in each of five steps three results.
  constexpr double kRoundings = 2 * 5 * 3 * 0x1p-23;
  for (const std::string name : {"adamw", "sgd", "adamw8bit"}) {
    const OptimizerOptions options = {.name = name, .weight_decay = 0.3, .momentum = 0.5};
    const TrainedParameter stored = {"p", wave(5000, 0)}, held = {"p", wave(5000, 0), 1.0f};
    for (int64_t i = 0; i < 5000; ++i) Tensor(held.value).f32()[i] += 1.0f;
    Optimizer one({stored}, options), other({held}, options);
    for (int i = 0; i < 5; ++i) {
      one.step({wave(5000, i)}, 0.1);
      other.step({wave(5000, i)}, 0.1);
    }
    for (int64_t i = 0; i < 5000; ++i) {
      ASSERT_NEAR(held.value.f32()[i] - 1.0f, stored.value.f32()[i], kRoundings) << name << " " << i;
    }
  }
}

// Stopping and going on is the same as not stopping, and threads change nothing.
TEST(Optimizer, RestoredStateGivesTheSameBits) {
  for (const std::string name : {"adamw", "adamw8bit", "sgd"}) {
    const OptimizerOptions options = {.name = name, .weight_decay = 0.01, .momentum = 0.9};
    const TrainedParameter a = {"p", wave(5000, 0)}, b = {"p", wave(5000, 0)};
    Optimizer whole({a}, options), first({b}, options);
    for (int i = 0; i < 4; ++i) whole.step({wave(5000, i)}, 0.01);
    set_thread_count(3);
    for (int i = 0; i < 2; ++i) first.step({wave(5000, i)}, 0.01);
    Optimizer second({b}, options);
    second.restore(first.steps(), first.state());
    for (int i = 2; i < 4; ++i) second.step({wave(5000, i)}, 0.01);
    set_thread_count(0);
    EXPECT_EQ(floats(a.value), floats(b.value)) << name;
    EXPECT_NE(floats(a.value), floats(wave(5000, 0))) << name;
    auto wrong = first.state();
    wrong[0].first = "q.first";
    expect_error(ErrorCode::format, "p.first is missing", [&] { second.restore(2, wrong); });
  }
}

TEST(DynamicMaps, HaveThePublishedBits) {
  const auto digest = [](DynamicMap map) {
    return sha256(std::as_bytes(std::span(dynamic_map_levels(map)))).substr(0, 16);
  };
  EXPECT_EQ(digest(DynamicMap::with_sign), "e732639a65f497b4");
  EXPECT_EQ(digest(DynamicMap::without_sign), "305f002cc11278fb");
}

// bitsandbytes' own run: the gradients it saw, what it made of the parameters, and its states after three steps.
class AdamW8BitGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(AdamW8BitGolden, ReplaysTheRunOfBitsandbytes) {
  NIBBLE_NEED_SHARED("goldens/training");
  const std::string name = GetParam();
  const SafetensorsFile golden(shared_folder() / "goldens/training/bert-full-adamw8bit.safetensors");
  const SafetensorsFile base(shared_folder() / "goldens/models/bert/model.safetensors");
  const Tensor start = base.load(name);
  const TrainedParameter p = {name, Tensor::from({start.f32(), static_cast<size_t>(start.count())}, start.shape)};
  Optimizer optimizer({p}, {.name = "adamw8bit", .weight_decay = 0.01});
  for (int step = 1; step <= 3; ++step) {
    optimizer.step({golden.load("clipped_grad." + std::to_string(step) + "." + name)}, 0.002);
  }
  EXPECT_LE(difference(floats(p.value), floats(golden.load("final." + name))).largest, 1e-7);
  const Tensor first = optimizer.state()[0].second;
  const Tensor expected = golden.load("state." + name + ".state1");
  ASSERT_EQ(first.dtype, expected.dtype);
  if (first.dtype == DType::f32) {
    EXPECT_LE(difference(floats(first), floats(expected)).relative(), 1e-6);
    return;
  }
  // A value on the edge between two codes may fall on either side.
  int differ = 0;
  for (int64_t i = 0; i < first.count(); ++i) {
    const int distance = std::abs(first.data<uint8_t>()[i] - expected.data<uint8_t>()[i]);
    EXPECT_LE(distance, 1);
    differ += distance;
  }
  EXPECT_LE(differ, first.count() / 1000);
}

INSTANTIATE_TEST_SUITE_P(Parameters, AdamW8BitGolden,
                         ::testing::Values("bert.pooler.dense.weight", "classifier.weight"), [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

}  // namespace
}  // namespace nibble
