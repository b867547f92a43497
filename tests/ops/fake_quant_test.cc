// Fake quantization against torch: values and gradients on the edges of a grid, a whole run of eager QAT, and torchao's
// int4 weights with int8 activations.
#include "ops/fake_quant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/elementwise.h"
#include "ops/gradient_check.h"
#include "ops/matrix.h"
#include "support/goldens.h"

namespace nibble {
namespace {

using namespace nibble::test;

SafetensorsFile torch_file(const std::string& name) {
  return SafetensorsFile(shared_folder() / "goldens/torch" / (name + ".safetensors"));
}

Tensor ones(const Shape& shape) {
  Tensor t(DType::f32, shape);
  std::fill_n(t.f32(), t.count(), 1.0f);
  return t;
}

double number_at(const Json& object, const std::string& key) { return object.find(key)->as_double(key); }

void expect_values_and_gradient(const Tensor& x, const AffineGrid& grid, const Tensor& y, const Tensor& dx) {
  Tape tape;
  tape.watch(x);
  const Tensor got = fake_quantize(x, grid, &tape);
  EXPECT_EQ(floats(got), floats(y));
  tape.backward(got, ones(x.shape));
  EXPECT_EQ(floats(tape.gradient(x)), floats(dx));
}

TEST(FakeQuantize, EqualsTorchOnTheEdges) {
  NIBBLE_NEED_SHARED("goldens/torch/fake_quant.json");
  const Json index = shared_json("goldens/torch/fake_quant.json");
  const SafetensorsFile file = torch_file("fake_quant");
  const Tensor x = file.load("x");
  for (const std::string name : {"t0", "t1", "t2", "t3"}) {
    SCOPED_TRACE(name);
    const Json& row = *index.find(name);
    const AffineRange range = {.scale = static_cast<float>(number_at(row, "scale")),
                               .zero_point = static_cast<int32_t>(int_at(row, "zero_point"))};
    const AffineGrid grid = {.ranges = {range},
                             .group = x.count(),
                             .low = static_cast<int32_t>(int_at(row, "qmin")),
                             .high = static_cast<int32_t>(int_at(row, "qmax"))};
    expect_values_and_gradient(x, grid, file.load(name + ".y"), file.load(name + ".dx"));
  }
  AffineGrid rows = {.ranges = {}, .group = 12, .low = -8, .high = 7};
  for (const float scale : floats(file.load("channel.scale"))) rows.ranges.push_back({.scale = scale});
  expect_values_and_gradient(file.load("channel.w"), rows, file.load("channel.y"), file.load("channel.dx"));
}

/// torch's MLP after prepare_qat: every weight and every result of a layer has an observer and is fake quantized.
class TorchMlp {
 public:
  TorchMlp(const SafetensorsFile& file, const std::string& engine, const Json& observers) : per_row_(engine == "x86") {
    for (const char* name : {"fc1", "fc2"}) {
      const std::string prefix = engine + ".init." + name;
      weights_.push_back(copy_of(file.load(prefix + ".weight")));
      biases_.push_back(copy_of(file.load(prefix + ".bias")));
    }
    levels_ = static_cast<int>(int_at(*observers.find("quant.activation_post_process"), "qmax"));
  }

  std::vector<Tensor> parameters() const { return {weights_[0], biases_[0], weights_[1], biases_[1]}; }

  Tensor forward(const Tensor& x, Tape* tape) {
    Tensor h = activations(x, 0, tape);
    for (size_t i = 0; i < 2; ++i) {
      const int64_t group = per_row_ ? weights_[i].cols() : weights_[i].count();
      if (observes) of_weights_[i].observe(weights_[i], group);
      const AffineGrid grid = signed_grid(of_weights_[i].extents(), group, -128, 127);
      const Tensor w = fake_quantize(weights_[i], grid, tape);
      h = activations(linear(h, {.name = "fc", .weight = w, .bias = biases_[i]}, {}, tape), i + 1, tape);
      if (i == 0) h = activate(Activation::relu, std::move(h), tape);
    }
    return h;
  }

  bool observes = true;

  void expect_observed(const Json& observers) const {
    const char* names[] = {"quant.activation_post_process", "fc1.activation_post_process",
                           "fc2.activation_post_process"};
    for (size_t i = 0; i < 3; ++i) {
      const Json& expected = *observers.find(names[i]);
      const Extent extent = of_results_[i].extents()[0];
      EXPECT_NEAR(extent.low, expected.find("min")->as_array("min")[0].as_double("min"), 1e-4) << names[i];
      EXPECT_NEAR(extent.high, expected.find("max")->as_array("max")[0].as_double("max"), 1e-4) << names[i];
      const int64_t zero_point = expected.find("zero_point")->as_array("zero_point")[0].as_int("zero_point");
      EXPECT_EQ(choose_range(extent, levels_).zero_point, zero_point) << names[i];
    }
  }

 private:
  Tensor activations(const Tensor& x, size_t i, Tape* tape) {
    if (observes) of_results_[i].observe(x, x.count());
    return fake_quantize(x, unsigned_grid(of_results_[i].extents(), x.count(), levels_), tape);
  }

  bool per_row_;
  int levels_ = 255;
  std::vector<Tensor> weights_, biases_;
  MovingExtents of_weights_[2], of_results_[3];
};

/// 2 (y - target) / n, and the mean of (y - target)^2.
std::pair<Tensor, double> squared_error(const Tensor& y, const Tensor& target) {
  Tensor dy(DType::f32, y.shape);
  double sum = 0;
  for (int64_t i = 0; i < y.count(); ++i) {
    const float off = y.f32()[i] - target.f32()[i];
    sum += static_cast<double>(off) * off;
    dy.f32()[i] = 2 * off / static_cast<float>(y.count());
  }
  return {dy, sum / static_cast<double>(y.count())};
}

class EagerQat : public ::testing::TestWithParam<const char*> {};

TEST_P(EagerQat, TheRunEqualsTorch) {
  NIBBLE_NEED_SHARED("goldens/torch/qat.json");
  constexpr int64_t kBatch = 16, kFrozenFrom = 16;
  constexpr float kRate = 0.05f, kMomentum = 0.9f;
  const std::string engine = GetParam();
  const Json index = shared_json("goldens/torch/qat.json");
  const Json &run = *index.find(engine), &observers = *run.find("observers");
  const SafetensorsFile file = torch_file("qat");
  const Tensor x = file.load("x"), target = file.load("target");
  TorchMlp mlp(file, engine, observers);
  std::vector<Tensor> momentum;
  for (const Tensor& p : mlp.parameters()) momentum.emplace_back(DType::f32, p.shape);
  const auto& losses = run.find("losses")->as_array("losses");
  for (int64_t step = 0; step < static_cast<int64_t>(losses.size()); ++step) {
    const int64_t first = step % 4 * kBatch;
    mlp.observes = step < kFrozenFrom;
    Tape tape;
    for (const Tensor& p : mlp.parameters()) tape.watch(p);
    const Tensor y = mlp.forward(copy_of(x.slice_rows(first, first + kBatch)), &tape);
    const auto [dy, loss] = squared_error(y, target.slice_rows(first, first + kBatch));
    EXPECT_NEAR(loss, losses[static_cast<size_t>(step)].as_double("loss"), 1e-4) << "step " << step;
    tape.backward(y, dy);
    for (size_t i = 0; i < momentum.size(); ++i) {
      Tensor p = mlp.parameters()[i];
      scale_in_place(momentum[i], kMomentum);
      add_in_place(momentum[i], tape.gradient(p));
      for (int64_t j = 0; j < p.count(); ++j) p.f32()[j] -= kRate * momentum[i].f32()[j];
    }
  }
  mlp.expect_observed(observers);
  const char* names[] = {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"};
  for (size_t i = 0; i < 4; ++i) {
    const Tensor expected = file.load(engine + ".final." + names[i]);
    EXPECT_LE(difference(floats(mlp.parameters()[i]), floats(expected)).largest, 1e-4) << names[i];
  }
  // A value on the edge of two codes may fall to either side; a few may.
  const std::vector<float> y = floats(mlp.forward(x, nullptr)), expected = floats(file.load(engine + ".prepared_y"));
  int64_t off = 0;
  for (size_t i = 0; i < y.size(); ++i) off += std::abs(y[i] - expected[i]) > 1e-4;
  EXPECT_LE(off, 4);
}

INSTANTIATE_TEST_SUITE_P(Engines, EagerQat, ::testing::Values("qnnpack", "x86"),
                         [](const auto& info) { return std::string(info.param); });

/// As torchao: no gradient passes through the first and the last code.
Tensor strictly_quantized(const Tensor& x, const AffineGrid& grid, Tape* tape) {
  const Tensor y = fake_quantize(x, grid, nullptr);
  AffineGrid inner = grid;
  ++inner.low;
  --inner.high;
  if (is_traced(tape, x)) {
    tape->record(y,
                 [x, inner, to = tape->slot(x)](Tape& t, const Tensor& dy) { t.add(to, pass_straight(x, inner, dy)); });
  }
  return y;
}

// torchao's Int8DynActInt4: weights in groups of 32 with scale absmax / 7.5, one range of activations per token.
TEST(FakeQuantize, ComposesToTorchaoInt4) {
  NIBBLE_NEED_SHARED("goldens/torch/qat_torchao.safetensors");
  constexpr int64_t kGroup = 32;
  const SafetensorsFile file = torch_file("qat_torchao");
  const auto weights = [](const Tensor& w, Tape* tape) {
    AffineGrid grid = {.ranges = {}, .group = kGroup, .low = -8, .high = 7};
    for (int64_t i = 0; i < w.count(); i += kGroup) {
      const Extent extent = extent_of(w.f32() + i, kGroup);
      grid.ranges.push_back({.scale = std::max(-extent.low, extent.high) / 7.5f});
    }
    return strictly_quantized(w, grid, tape);
  };
  const auto inputs = [](const Tensor& x, Tape* tape) {
    std::vector<Extent> extents;
    for (int64_t t = 0; t < x.rows(); ++t) extents.push_back(extent_of(x.f32() + t * x.cols(), x.cols()));
    return strictly_quantized(x, unsigned_grid(extents, x.cols(), 255), tape);
  };
  const Tensor x = file.load("float32.x"), w0 = file.load("float32.w0"), w2 = file.load("float32.w2");
  Tape tape;
  tape.watch(w0);
  tape.watch(w2);
  const Linear first = {.name = "0", .weight = weights(w0, &tape), .bias = std::nullopt};
  const Linear second = {.name = "2", .weight = weights(w2, &tape), .bias = std::nullopt};
  Tensor h = activate(Activation::relu, linear(inputs(x, &tape), first, {}, &tape), &tape);
  const Tensor y = linear(inputs(h, &tape), second, {}, &tape);
  EXPECT_LE(difference(floats(y), floats(file.load("float32.prepared"))).relative(), 1e-5);
  tape.backward(y, squared_error(y, Tensor(DType::f32, y.shape)).first);
  EXPECT_LE(difference(floats(tape.gradient(w0)), floats(file.load("float32.grad0"))).relative(), 1e-5);
  EXPECT_LE(difference(floats(tape.gradient(w2)), floats(file.load("float32.grad2"))).relative(), 1e-5);
}

TEST(MovingExtents, MoveByAHundredthOfTheWay) {
  MovingExtents moving;
  EXPECT_TRUE(moving.extents().empty());
  const float first[] = {-1, 2, 0, 4}, second[] = {-3, 2, 10, 12};
  moving.observe(Tensor::from(first, {2, 2}), 2);
  EXPECT_EQ(moving.extents()[0].low, -1);
  EXPECT_EQ(moving.extents()[1].low, 0);
  moving.observe(Tensor::from(second, {2, 2}), 2);
  EXPECT_FLOAT_EQ(moving.extents()[0].low, -1.02f);
  EXPECT_FLOAT_EQ(moving.extents()[0].high, 2);
  EXPECT_FLOAT_EQ(moving.extents()[1].low, 0.1f);
  EXPECT_FLOAT_EQ(moving.extents()[1].high, 4.08f);
  expect_error(ErrorCode::internal, "do not divide", [&] { moving.observe(Tensor::from(first, {2, 2}), 3); });
}

// A range over values that are not finite has no zero point to compute; that is no reason to overflow.
TEST(ChooseRange, OfValuesThatAreNotFiniteHasZeroPointZero) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  for (const Extent& extent : {Extent{-kInf, 1}, Extent{-1, kInf}, Extent{-kInf, kInf}, Extent{kNan, kNan}}) {
    const AffineRange range = choose_range(extent, 255);
    EXPECT_EQ(range.zero_point, 0) << extent.low << " " << extent.high;
    EXPECT_FALSE(std::isfinite(range.scale)) << extent.low << " " << extent.high;
  }
}

}  // namespace
}  // namespace nibble
