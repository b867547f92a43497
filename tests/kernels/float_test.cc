#include <cmath>
#include <limits>

#include "kernels/every_isa.h"

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr double kUnit = 0x1p-24;  // half a unit in the last place, relative

class FloatKernels : public EveryIsa {};
NIBBLE_EVERY_ISA(FloatKernels);

TEST_P(FloatKernels, DotIsWithinTheBoundOfAnyOrderOfSummation) {
  for (const int64_t n : test_sizes()) {
    Guarded<float> a = gaussian(n, 1), b = gaussian(n, 2);
    double exact = 0, magnitude = 0;
    for (int64_t i = 0; i < n; ++i) {
      exact += double{a[i]} * double{b[i]};
      magnitude += std::fabs(double{a[i]} * double{b[i]});
    }
    ASSERT_NEAR(double{table().dot(a.data(), b.data(), n)}, exact, static_cast<double>(n + 1) * kUnit * magnitude) << n;
  }
  EXPECT_EQ(table().dot(nullptr, nullptr, 0), 0.0f);
}

TEST_P(FloatKernels, AxpyIsWithinTwoRoundings) {
  for (const int64_t n : test_sizes()) {
    Guarded<float> x = gaussian(n, 3), y = gaussian(n, 4), before = gaussian(n, 4);
    table().axpy(-1.7f, x.data(), y.data(), n);
    for (int64_t i = 0; i < n; ++i) {
      const double product = double{-1.7f} * double{x[i]}, exact = double{before[i]} + product;
      ASSERT_NEAR(double{y[i]}, exact, kUnit * (std::fabs(product) + std::fabs(exact))) << n;
    }
    ASSERT_TRUE(y.guards_intact());
  }
}

TEST_P(FloatKernels, RmsNormMatchesItsFormula) {
  for (const int64_t n : test_sizes()) {
    for (const float scale : {1e-3f, 1.0f, 25'000.0f}) {
      Guarded<float> x = gaussian(n, 5, scale), weight = gaussian(n, 6), y(n);
      double squares = 0;
      for (int64_t i = 0; i < n; ++i) squares += double{x[i]} * double{x[i]};
      const double inverse = 1 / std::sqrt(squares / static_cast<double>(n) + double{1e-5f});
      table().rms_norm(x.data(), weight.data(), 1e-5f, y.data(), n);
      // Half the error of the sum (the square root halves it), and 6 roundings.
      const double relative = (static_cast<double>(n) / 2 + 6) * kUnit;
      for (int64_t i = 0; i < n; ++i) {
        const double exact = double{x[i]} * inverse * double{weight[i]};
        ASSERT_NEAR(double{y[i]}, exact, relative * std::fabs(exact)) << n << " " << scale;
      }
      ASSERT_TRUE(y.guards_intact());
    }
  }
}

// What differs from the first value carries its own rounding and that of the mean, a sum of n such numbers; the root
// of the mean square is wrong by as much of itself at most, and by half the error of its sum. A mean that is large
// beside the spread changes nothing.
TEST_P(FloatKernels, LayerNormMatchesItsFormula) {
  for (const int64_t n : test_sizes()) {
    for (const float mean : {0.0f, -3.0f, 1000.0f}) {
      Guarded<float> x = gaussian(n, 5, 2.0f), weight = gaussian(n, 6), bias = gaussian(n, 7), y(n);
      for (int64_t i = 0; i < n; ++i) x[i] += mean;
      double sum = 0, squares = 0, spread = 0;
      for (int64_t i = 0; i < n; ++i) sum += double{x[i]};
      const double centre = sum / static_cast<double>(n);
      for (int64_t i = 0; i < n; ++i) {
        squares += (double{x[i]} - centre) * (double{x[i]} - centre);
        spread = std::max(spread, std::fabs(double{x[i]} - double{x[0]}));
      }
      const double inverse = 1 / std::sqrt(squares / static_cast<double>(n) + double{1e-5f});
      table().layer_norm({x.data(), weight.data(), bias.data(), 1e-5f, y.data()}, n);
      ASSERT_TRUE(y.guards_intact());
      const double shift = static_cast<double>(n + 4) * kUnit * spread * inverse;
      for (int64_t i = 0; i < n; ++i) {
        const double u = (double{x[i]} - centre) * inverse, exact = u * double{weight[i]} + double{bias[i]};
        const double relative = shift + (static_cast<double>(n) / 2 + 8) * kUnit;
        const double bound =
            std::fabs(double{weight[i]}) * (shift + std::fabs(u) * relative) + 2 * kUnit * std::fabs(exact);
        ASSERT_NEAR(double{y[i]}, exact, bound) << n << " " << mean;
      }
    }
  }
}

// exp is within 1.1 units in the last place; its argument x - max carries a rounding of up to |x - max| * 2^-24.
TEST_P(FloatKernels, SoftmaxMatchesItsFormula) {
  for (const int64_t n : test_sizes()) {
    Guarded<float> x = gaussian(n, 7, 8.0f), y = gaussian(n, 7, 8.0f);
    double largest = -HUGE_VAL, total = 0;
    for (int64_t i = 0; i < n; ++i) largest = std::max(largest, double{x[i]});
    for (int64_t i = 0; i < n; ++i) total += std::exp(double{x[i]} - largest);
    table().softmax(y.data(), n);
    for (int64_t i = 0; i < n; ++i) {
      const double exact = std::exp(double{x[i]} - largest) / total;
      const double relative = (2 * (largest - double{x[i]}) + static_cast<double>(n) + 8) * kUnit;
      ASSERT_NEAR(double{y[i]}, exact, relative * exact + 1e-44) << n;
    }
    ASSERT_TRUE(y.guards_intact());
  }
}

TEST_P(FloatKernels, SoftmaxOfMaskedValues) {
  for (const int64_t n : {1, 5, 16, 37}) {
    Guarded<float> x(n);
    std::fill_n(x.data(), n, -kInf);
    table().softmax(x.data(), n);
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(x[i], 0.0f);
    std::fill_n(x.data(), n, -kInf);
    x[n - 1] = -3.0f;
    table().softmax(x.data(), n);
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(x[i], i == n - 1 ? 1.0f : 0.0f);
    std::fill_n(x.data(), n, -kInf);
    x[n / 2] = kNan;
    table().softmax(x.data(), n);
    for (int64_t i = 0; i < n; ++i) ASSERT_TRUE(std::isnan(x[i])) << n << " " << i;
  }
  table().softmax(nullptr, 0);
}

TEST_P(FloatKernels, SoftmaxIgnoresACommonShift) {
  Guarded<float> x(40), y(40);
  for (int64_t i = 0; i < 40; ++i) {
    x[i] = static_cast<float>(i % 7);
    y[i] = x[i] + 16384.0f;
  }
  table().softmax(x.data(), 40);
  table().softmax(y.data(), 40);
  EXPECT_EQ(bits(x.values()), bits(y.values()));
}

// Through silu with up = 1: g / (1 + e^-g) depends on e^-g from overflow to underflow.
TEST_P(FloatKernels, SiluMulIsWithinItsBoundOverTheWholeRange) {
  std::vector<float> gate;
  for (float g = -104.0f; g <= 104.0f; g += 0.0137f) gate.push_back(g);
  const auto n = static_cast<int64_t>(gate.size());
  Guarded<float> up = gaussian(n, 8), y(n);
  table().silu_mul(gate.data(), up.data(), y.data(), n);
  for (int64_t i = 0; i < n; ++i) {
    const double g = double{gate[static_cast<size_t>(i)]};
    const double exact = g / (1 + std::exp(-g)) * double{up[i]};
    // 2.2 units of exp, then a sum, a quotient and a product; below -88 the denominator overflows.
    ASSERT_NEAR(double{y[i]}, exact, 7 * kUnit * std::fabs(exact) + (g < -87 ? 1e-35 : 1e-44)) << g;
  }
}

TEST_P(FloatKernels, SiluMulBackwardMatchesItsFormula) {
  for (const int64_t n : test_sizes()) {
    Guarded<float> gate = gaussian(n, 9, 4.0f), up = gaussian(n, 10), dy = gaussian(n, 11), dgate(n), dup(n);
    table().silu_mul_backward({gate.data(), up.data(), dy.data(), dgate.data(), dup.data()}, n);
    for (int64_t i = 0; i < n; ++i) {
      const double g = double{gate[i]}, s = 1 / (1 + std::exp(-g)), d = double{dy[i]};
      const double slope = s * (1 + g * (1 - s));
      ASSERT_NEAR(double{dup[i]}, d * g * s, 8 * kUnit * std::fabs(d * g * s)) << n;
      // 1 and g (1 - s) may cancel.
      ASSERT_NEAR(double{dgate[i]}, d * double{up[i]} * slope,
                  12 * kUnit * std::fabs(d * double{up[i]}) * s * (1 + std::fabs(g)))
          << n;
    }
    ASSERT_TRUE(dgate.guards_intact() && dup.guards_intact());
  }
}

TEST_P(FloatKernels, GelusMatchTheirFormulas) {
  std::vector<float> x;
  for (float v = -15.0f; v <= 15.0f; v += 0.00137f) x.push_back(v);
  const auto n = static_cast<int64_t>(x.size());
  std::vector<float> erf(x.size()), tanh(x.size());
  table().gelu_erf(x.data(), erf.data(), n);
  table().gelu_tanh(x.data(), tanh.data(), n);
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = double{x[i]}, exact = 0.5 * v * std::erfc(-v / std::sqrt(2.0));
    // Of the tail: its polynomial, and an exponent of up to v^2 / 2 that is rounded.
    const double tail = 0.5 * std::fabs(v) * std::erfc(std::fabs(v) / std::sqrt(2.0));
    ASSERT_NEAR(double{erf[i]}, exact, (10 + 3 * v * v) * kUnit * tail + 2 * kUnit * std::fabs(exact) + 1e-37) << v;
    const double z = std::sqrt(2 / std::acos(-1.0)) * (v + 0.044715 * v * v * v);
    const double by_tanh = v / (1 + std::exp(-2 * z));
    ASSERT_NEAR(double{tanh[i]}, by_tanh, (8 + 8 * std::fabs(z)) * kUnit * std::max(std::fabs(by_tanh), 1.0)) << v;
  }
}

TEST_P(FloatKernels, GelusOnEverySizeAndSpecialValues) {
  for (const int64_t n : test_sizes()) {
    Guarded<float> x = gaussian(n, 9, 2.0f), y(n), in_place = x;
    for (const auto gelu : {table().gelu_erf, table().gelu_tanh}) {
      gelu(x.data(), y.data(), n);
      for (int64_t i = 0; i < n; ++i) {
        const double v = double{x[i]};
        ASSERT_NEAR(double{y[i]}, 0.5 * v * std::erfc(-v / std::sqrt(2.0)), 5e-4) << n;  // the two differ by as much
      }
      ASSERT_TRUE(y.guards_intact());
    }
    table().gelu_tanh(in_place.data(), in_place.data(), n);
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(in_place[i], y[i]) << n;
  }
  const std::vector<float> x = {kNan, kInf, 0.0f, 100.0f, -100.0f};
  std::vector<float> y(5);
  for (const auto gelu : {table().gelu_erf, table().gelu_tanh}) {
    gelu(x.data(), y.data(), 5);
    EXPECT_TRUE(std::isnan(y[0]));
    EXPECT_EQ(std::vector<float>(y.begin() + 1, y.end()), (std::vector<float>{kInf, 0.0f, 100.0f, 0.0f}));
    float lowest = -kInf;
    gelu(&lowest, &lowest, 1);
    EXPECT_TRUE(std::isnan(lowest) || (lowest == 0 && gelu == table().gelu_erf));
  }
}

TEST_P(FloatKernels, SiluMulOnEverySizeAndSpecialValues) {
  for (const int64_t n : test_sizes()) {
    Guarded<float> gate = gaussian(n, 9, 3.0f), up = gaussian(n, 10), y(n);
    table().silu_mul(gate.data(), up.data(), y.data(), n);
    for (int64_t i = 0; i < n; ++i) {
      const double exact = double{gate[i]} / (1 + std::exp(-double{gate[i]})) * double{up[i]};
      ASSERT_NEAR(double{y[i]}, exact, 7 * kUnit * std::fabs(exact)) << n;
    }
    ASSERT_TRUE(y.guards_intact());
  }
  const std::vector<float> gate = {kNan, kInf, 0.0f, -0.0f, 1000.0f, -1000.0f}, up(6, 2.0f);
  std::vector<float> y(6);
  table().silu_mul(gate.data(), up.data(), y.data(), 6);
  EXPECT_TRUE(std::isnan(y[0]));
  EXPECT_EQ(std::vector<float>(y.begin() + 1, y.end()), (std::vector<float>{kInf, 0.0f, 0.0f, 2000.0f, 0.0f}));
}

}  // namespace
}  // namespace nibble
