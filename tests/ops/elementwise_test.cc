#include "ops/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/error.h"
#include "ops/norm.h"
#include "support/random.h"

namespace nibble {
namespace {

using test::gaussian;

struct Moments {
  double mean = 0, variance = 0, square = 0;
};

Moments moments(const float* x, int64_t n) {
  Moments m;
  for (int64_t i = 0; i < n; ++i) m.mean += x[i] / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) m.variance += (x[i] - m.mean) * (x[i] - m.mean) / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) m.square += static_cast<double>(x[i]) * x[i] / static_cast<double>(n);
  return m;
}

// Activations of real models reach 25,000: their squares must not overflow anything.
TEST(Norms, EqualTheirFormulas) {
  for (const float scale : {1.0f, 1e-4f, 25000.0f}) {
    const Tensor x = gaussian({5, 72}, 1, scale), weight = gaussian({72}, 2), bias = gaussian({72}, 3);
    const Tensor rms = rms_norm(x, weight, 1e-6f), layer = layer_norm(x, weight, bias, 1e-12f);
    for (int64_t t = 0; t < 5; ++t) {
      const Moments m = moments(x.f32() + t * 72, 72);
      for (int64_t i = 0; i < 72; ++i) {
        const double value = x.f32()[t * 72 + i], w = weight.f32()[i];
        EXPECT_NEAR(rms.f32()[t * 72 + i], value / std::sqrt(m.square + 1e-6) * w, 1e-5);
        EXPECT_NEAR(layer.f32()[t * 72 + i], (value - m.mean) / std::sqrt(m.variance + 1e-12) * w + bias.f32()[i],
                    2e-5);
      }
    }
  }
}

TEST(Norms, RmsNormWorksPerGroupWhenTheWeightIsShorterThanARow) {
  const Tensor x = gaussian({2, 32}, 4), weight = gaussian({8}, 5);
  const Tensor y = rms_norm(x, weight, 1e-6f);
  for (int64_t g = 0; g < 8; ++g) {
    const Moments m = moments(x.f32() + g * 8, 8);
    EXPECT_NEAR(y.f32()[g * 8 + 3], x.f32()[g * 8 + 3] / std::sqrt(m.square + 1e-6) * weight.f32()[3], 1e-5);
  }
}

struct Row {
  const char* name;
  double (*exact)(double);
};

double gelu_tanh(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

TEST(Activations, EqualTheirFormulasUnderTransformersNames) {
  constexpr Row kRows[] = {
      {"relu", [](double x) { return x > 0 ? x : 0.0; }},
      {"silu", [](double x) { return x / (1 + std::exp(-x)); }},
      {"tanh", [](double x) { return std::tanh(x); }},
      {"gelu", [](double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }},
      {"gelu_new", gelu_tanh},
      {"gelu_pytorch_tanh", gelu_tanh},
  };
  for (const Row& row : kRows) {
    const Tensor x = gaussian({3, 100}, 6, 3.0f);
    const Tensor y = activate(parse_activation(row.name, "config.json: hidden_act"), copy_of(x), nullptr);
    for (int64_t i = 0; i < 300; ++i) EXPECT_NEAR(y.f32()[i], row.exact(x.f32()[i]), 2e-6) << row.name;
  }
  EXPECT_THROW(parse_activation("mish", "config.json: hidden_act"), Error);
}

TEST(InPlace, AddMultiplyScaleCap) {
  Tensor x = Tensor::from(std::vector<float>{1, -2, 100}, {1, 3});
  const void* memory = x.raw();
  x = add(std::move(x), Tensor::from(std::vector<float>{1, 1, 0}, {1, 3}), nullptr);
  x = multiply(std::move(x), Tensor::from(std::vector<float>{2, 3, 1}, {1, 3}), nullptr);
  x = softcap(scale(std::move(x), 0.5f, nullptr), 10.0f, nullptr);
  EXPECT_EQ(x.raw(), memory);
  EXPECT_NEAR(x.f32()[0], 10 * std::tanh(0.2), 1e-5);
  EXPECT_NEAR(x.f32()[1], 10 * std::tanh(-0.15), 1e-5);
  EXPECT_NEAR(x.f32()[2], 10 * std::tanh(5.0), 1e-5);
}

}  // namespace
}  // namespace nibble
