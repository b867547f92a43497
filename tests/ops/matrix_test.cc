// Products in whole numbers of 16 bits beside those in f32 and in double, over weights of several formats.
#include "ops/matrix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>

#include "kernels/codes.h"
#include "ops/gradient_check.h"
#include "ops/linear.h"
#include "quant/panels.h"

namespace nibble {
namespace {

using namespace nibble::test;

struct Case {
  std::string format;
  int64_t tokens, out, in;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const std::string format : {"fp32", "bf16", "nf4", "int8"}) {
    for (const auto& [tokens, out, in] :
         {std::tuple<int64_t, int64_t, int64_t>{kTurnFrom, 64, 64}, {49, 321, 128}, {100, 70, 576}}) {
      all.push_back({format, tokens, out, in});
    }
  }
  all.push_back({"fp32", 33, 5, 259});  // odd sums, and a group that is nearly empty
  all.push_back({"bf16", 37, 1027, 3});
  return all;
}

Weight encoded(const Case& c) {
  const Tensor w = gaussian({c.out, c.in}, 3, 0.05f);
  return c.format == "fp32" ? Weight(w) : encode(w, find_format(c.format), {});
}

Tensor decoded(const Weight& w) {
  const Shape shape = weight_shape(w);
  Tensor all(DType::f32, shape);
  decode_rows(w, 0, shape[0], all.f32());
  return all;
}

/// Element (r, c) at data[r * stride + c * step].
struct Matrix {
  const float* data;
  int64_t stride, step;
  double at(int64_t r, int64_t c) const { return data[r * stride + c * step]; }
};

double largest(const Matrix& m, int64_t row, int64_t begin, int64_t end) {
  double result = 0;
  for (int64_t k = begin; k < end; ++k) result = std::max(result, std::abs(m.at(row, k)));
  return result;
}

/// y = x w^T within what rounding every factor to its nearest number can make of it, and f32's own sums. x: [rows, k],
/// w: [cols, k].
void expect_within_steps(const Tensor& y, const Matrix& x, const Matrix& w, int64_t k) {
  constexpr double kF32 = 1e-6;
  for (int64_t r = 0; r < y.rows(); ++r) {
    for (int64_t c = 0; c < y.cols(); ++c) {
      double sum = 0, bound = 0;
      for (int64_t begin = 0; begin < k; begin += kPairTerms) {
        const int64_t end = std::min(k, begin + kPairTerms);
        const double x_step = largest(x, r, begin, end) / kPairX, w_step = largest(w, c, begin, end) / kPairW;
        for (int64_t i = begin; i < end; ++i) {
          const double a = std::abs(x.at(r, i)), b = std::abs(w.at(c, i));
          sum += x.at(r, i) * w.at(c, i);
          bound += a * w_step / 2 + b * x_step / 2 + x_step * w_step / 4 + kF32 * a * b;
        }
      }
      ASSERT_NEAR(y.f32()[r * y.cols() + c], sum, bound) << r << ", " << c;
    }
  }
}

TEST(ProductsInPairs, StayWithinTheirSteps) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.format + " " + std::to_string(c.out) + " x " + std::to_string(c.in));
    const Weight w = encoded(c);
    const Tensor values = decoded(w), x = gaussian({c.tokens, c.in}, 1), dy = gaussian({c.tokens, c.out}, 2);
    Tensor y = Tensor::uninitialized(DType::f32, {c.tokens, c.out});
    multiply_decoded(w, {.x = x.f32(), .y = y.f32(), .tokens = c.tokens}, true);
    expect_within_steps(y, {x.f32(), c.in, 1}, {values.f32(), c.in, 1}, c.in);
    const Tensor dx = matmul_by_columns(dy, w, true);
    expect_within_steps(dx, {dy.f32(), c.out, 1}, {values.f32(), 1, c.in}, c.out);
  }
}

TEST(ProductsInPairs, AddToWhatIsThere) {
  const Weight w = encoded({"nf4", 0, 600, 64});
  const Tensor dy = gaussian({40, 600}, 2), before = gaussian({40, 64}, 4);
  Tensor sum = Tensor::from({before.f32(), static_cast<size_t>(before.count())}, before.shape);
  add_matmul_by_columns(dy, w, sum, true);
  const Tensor product = matmul_by_columns(dy, w, true);
  for (int64_t i = 0; i < sum.count(); ++i) ASSERT_NEAR(sum.f32()[i], before.f32()[i] + product.f32()[i], 1e-5);
}

TEST(ProductsInPairs, HaveTheSameBitsForEveryNumberOfThreads) {
  const Weight w = encoded({"nf4", 0, 320, 576});
  const Tensor dy = gaussian({100, 320}, 2);
  const auto run = [&](int threads) {
    set_thread_count(threads);
    const Values y = values_of(matmul_by_columns(dy, w, true));
    set_thread_count(0);
    return y;
  };
  EXPECT_EQ(run(1), run(3));
}

TEST(ProductsInPairs, OfFewTokensAreThoseOfF32) {
  const Weight w = encoded({"bf16", 0, 70, 64});
  const Tensor dy = gaussian({kTurnFrom - 1, 70}, 2);
  EXPECT_EQ(values_of(matmul_by_columns(dy, w, true)), values_of(matmul_by_columns(dy, w)));
}

TEST(ProductsInPairs, ShowWhatIsNotFinite) {
  const Weight w = encoded({"nf4", 0, 320, 64});
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Tensor dy = gaussian({40, 320}, 2);
    dy.f32()[7 * 320 + 300] = bad;
    const Tensor dx = matmul_by_columns(dy, w, true);
    for (int64_t t = 0; t < 40; ++t) ASSERT_EQ(std::isfinite(dx.f32()[t * 64]), t != 7) << t;
  }
}

/// The gradients of x and of the weight, where that learns.
std::vector<Values> gradients(const Linear& layer, const Tensor& x, bool weight_learns, bool in_pairs) {
  Tape tape;
  tape.in_pairs = in_pairs;
  tape.watch(x);
  if (weight_learns) tape.watch(std::get<Tensor>(layer.weight));
  const Tensor y = linear(x, layer, {}, &tape);
  tape.backward(y, gaussian(y.shape, 9));
  std::vector<Values> result = {values_of(y), values_of(tape.gradient(x))};
  if (weight_learns) result.push_back(values_of(tape.gradient(std::get<Tensor>(layer.weight))));
  return result;
}

TEST(ProductsInPairs, AreForWeightsThatDoNotLearn) {
  const Linear layer = {.name = "l", .weight = gaussian({65, 66}, 1), .bias = {}};
  const Tensor x = gaussian({40, 66}, 2);
  EXPECT_EQ(gradients(layer, x, true, true), gradients(layer, x, true, false));
  EXPECT_NE(gradients(layer, x, false, true), gradients(layer, x, false, false));
}

}  // namespace
}  // namespace nibble
