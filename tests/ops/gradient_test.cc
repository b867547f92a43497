// The backward pass of every operation.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>

#include "core/error.h"
#include "ops/cross_entropy.h"
#include "ops/elementwise.h"
#include "ops/gradient_check.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/rope.h"

namespace nibble {
namespace {

using namespace nibble::test;

size_t at(int64_t i) { return static_cast<size_t>(i); }

/// x w^T, [n, k] by [m, k].
Values product(const Values& x, const Values& w, int64_t n, int64_t m, int64_t k) {
  Values y(at(n * m));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < m; ++j) {
      for (int64_t l = 0; l < k; ++l) y[at(i * m + j)] += x[at(i * k + l)] * w[at(j * k + l)];
    }
  }
  return y;
}

// More rows than a tile has, more columns than a grain, and tails of both.
TEST(Gradients, LinearWithBias) {
  for (const auto& [n, out, in] : {std::array<int64_t, 3>{3, 5, 7}, std::array<int64_t, 3>{2, 259, 19}}) {
    expect_gradients({"linear",
                      {gaussian({n, in}, 1), gaussian({out, in}, 2), gaussian({out}, 3)},
                      [](const std::vector<Tensor>& t, Tape* tape) {
                        return linear(t[0], {.name = "l", .weight = t[1], .bias = t[2]}, {}, tape);
                      },
                      [n = n, out = out, in = in](const std::vector<Values>& v) {
                        Values y = product(v[0], v[1], n, out, in);
                        for (size_t i = 0; i < y.size(); ++i) y[i] += v[2][i % at(out)];
                        return y;
                      }});
  }
}

TEST(Gradients, EmbeddingAddsUpRowsThatComeTwice) {
  const std::vector<int32_t> ids = {3, 0, 3};
  expect_gradients(
      {"embedding",
       {gaussian({4, 20}, 1)},
       [&](const std::vector<Tensor>& t, Tape* tape) { return embedding(ids, {.name = "e", .weight = t[0]}, tape); },
       [&](const std::vector<Values>& v) {
         Values y;
         for (const int32_t id : ids) y.insert(y.end(), &v[0][at(id * 20)], &v[0][at(id * 20)] + 20);
         return y;
       }});
}

Values normalized(const std::vector<Values>& v, size_t n, double eps, bool centred) {
  Values y(v[0].size());
  for (size_t r = 0; r < y.size(); r += n) {
    double mean = 0, square = 0;
    for (size_t i = 0; i < n; ++i) mean += centred ? v[0][r + i] / static_cast<double>(n) : 0;
    for (size_t i = 0; i < n; ++i) square += (v[0][r + i] - mean) * (v[0][r + i] - mean) / static_cast<double>(n);
    for (size_t i = 0; i < n; ++i) {
      y[r + i] = (v[0][r + i] - mean) / std::sqrt(square + eps) * v[1][i] + (centred ? v[2][i] : 0);
    }
  }
  return y;
}

TEST(Gradients, Norms) {
  expect_gradients({"rms_norm over heads",
                    {gaussian({3, 36}, 1), gaussian({18}, 2)},
                    [](const std::vector<Tensor>& t, Tape* tape) { return rms_norm(t[0], t[1], 1e-5f, tape); },
                    [](const std::vector<Values>& v) { return normalized(v, 18, 1e-5f, false); }});
  expect_gradients({"layer_norm",
                    {gaussian({3, 37}, 1), gaussian({37}, 2), gaussian({37}, 3)},
                    [](const std::vector<Tensor>& t, Tape* tape) { return layer_norm(t[0], t[1], t[2], 1e-5f, tape); },
                    [](const std::vector<Values>& v) { return normalized(v, 37, 1e-5f, true); }});
}

double gelu_tanh(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

struct ActivationRow {
  const char* name;
  double (*exact)(double);
};

TEST(Gradients, Activations) {
  constexpr ActivationRow kRows[] = {
      {"relu", [](double x) { return x > 0 ? x : 0.0; }},
      {"silu", [](double x) { return x / (1 + std::exp(-x)); }},
      {"tanh", [](double x) { return std::tanh(x); }},
      {"gelu", [](double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }},
      {"gelu_new", gelu_tanh},
  };
  for (const ActivationRow& row : kRows) {
    expect_gradients({row.name,
                      {gaussian({4, 50}, 1, 2.0f)},
                      [&](const std::vector<Tensor>& t, Tape* tape) {
                        return activate(parse_activation(row.name, ""), tape ? Tensor(t[0]) : copy_of(t[0]), tape);
                      },
                      [&](const std::vector<Values>& v) {
                        Values y;
                        for (const double x : v[0]) y.push_back(row.exact(x));
                        return y;
                      }});
  }
}

TEST(Gradients, GatedProducts) {
  expect_gradients({"silu_mul",
                    {gaussian({3, 21}, 1, 2.0f), gaussian({3, 21}, 2)},
                    [](const std::vector<Tensor>& t, Tape* tape) { return silu_mul(t[0], t[1], tape); },
                    [](const std::vector<Values>& v) {
                      Values y = v[1];
                      for (size_t i = 0; i < y.size(); ++i) y[i] *= v[0][i] / (1 + std::exp(-v[0][i]));
                      return y;
                    }});
  expect_gradients({"multiply",
                    {gaussian({3, 21}, 1), gaussian({3, 21}, 2)},
                    [](const std::vector<Tensor>& t, Tape* tape) {
                      return multiply(tape ? Tensor(t[0]) : copy_of(t[0]), t[1], tape);
                    },
                    [](const std::vector<Values>& v) {
                      Values y = v[1];
                      for (size_t i = 0; i < y.size(); ++i) y[i] *= v[0][i];
                      return y;
                    }});
}

// (x + 2 x) capped at 3: x is used twice, so its two gradients add up.
TEST(Gradients, AddScaleAndCap) {
  expect_gradients({"softcap(x + scale(x))",
                    {gaussian({3, 21}, 1)},
                    [](const std::vector<Tensor>& t, Tape* tape) {
                      Tensor twice = scale(copy_of(t[0]), 2.0f, nullptr);
                      if (tape) twice = scale(Tensor(t[0]), 2.0f, tape);
                      return softcap(add(std::move(twice), t[0], tape), 3.0f, tape);
                    },
                    [](const std::vector<Values>& v) {
                      Values y;
                      for (const double x : v[0]) y.push_back(3 * std::tanh(x));
                      return y;
                    }});
}

TEST(Gradients, SlicesAndRows) {
  const std::vector<int64_t> rows = {2, 0, 2};
  expect_gradients({"columns 1..2 times columns 3..4 of rows 2, 0, 2",
                    {gaussian({3, 5}, 1)},
                    [&](const std::vector<Tensor>& t, Tape* tape) {
                      const Tensor taken = take_rows(t[0], rows, tape);
                      return multiply(slice_columns(taken, 1, 3, tape), slice_columns(taken, 3, 5, tape), tape);
                    },
                    [&](const std::vector<Values>& v) {
                      Values y;
                      for (const int64_t row : rows) {
                        for (const int64_t c : {1, 2}) y.push_back(v[0][at(row * 5 + c)] * v[0][at(row * 5 + c + 2)]);
                      }
                      return y;
                    }});
}

// Six of eight elements of each head turn; yarn stretches them by its attention factor.
TEST(Gradients, RopeOfAPartOfEachHead) {
  const RopeConfig config = {
      .head_dim = 6, .theta = 100, .scaling = RopeScaling::yarn, .factor = 4, .original_context = 16};
  const std::vector<int64_t> lengths = {3, 2};
  const RopeTable table = rope_table(config, lengths);
  expect_gradients({"rope",
                    {gaussian({5, 16}, 1)},
                    [&](const std::vector<Tensor>& t, Tape* tape) {
                      return apply_rope(tape ? Tensor(t[0]) : copy_of(t[0]), 8, table, tape);
                    },
                    [&](const std::vector<Values>& v) {
                      Values y = v[0];
                      for (int64_t i = 0; i < 5 * 2 * 3; ++i) {
                        const int64_t token = i / 6, head = i / 3 % 2, pair = i % 3,
                                      first = token * 16 + head * 8 + pair;
                        const double cos = table.cos.f32()[token * 3 + pair], sin = table.sin.f32()[token * 3 + pair];
                        y[at(first)] = v[0][at(first)] * cos - v[0][at(first + 3)] * sin;
                        y[at(first + 3)] = v[0][at(first + 3)] * cos + v[0][at(first)] * sin;
                      }
                      return y;
                    }});
}

TEST(Loss, CrossEntropyAndItsGradient) {
  const std::vector<int32_t> labels = {4, kNoLabel, 0};
  const Tensor logits = gaussian({3, 5}, 1, 2.0f);
  const auto exact = [&](const Values& x) {
    double loss = 0;
    for (size_t r = 0; r < 3; ++r) {
      if (labels[r] == kNoLabel) continue;
      double sum = 0;
      for (size_t c = 0; c < 5; ++c) sum += std::exp(x[r * 5 + c]);
      loss += std::log(sum) - x[r * 5 + at(labels[r])];
    }
    return loss;
  };
  Tensor gradient = copy_of(logits);
  EXPECT_NEAR(cross_entropy(gradient, labels, 0.5f), exact(values_of(logits)), 1e-6);
  for (size_t i = 0; i < 15; ++i) {
    Values up = values_of(logits), down = up;
    up[i] += 1e-5;
    down[i] -= 1e-5;
    EXPECT_NEAR(gradient.f32()[i], 0.5 * (exact(up) - exact(down)) / 2e-5, 1e-6) << i;
  }
}

TEST(Loss, CrossEntropySurvivesLargeLogitsAndRefusesOtherLabels) {
  Tensor logits = Tensor::from(std::vector<float>{1e4f, -1e4f, 0}, {1, 3});
  EXPECT_EQ(cross_entropy(logits, std::vector<int32_t>{1}, 1.0f), 2e4);
  EXPECT_EQ(values_of(logits), (Values{1, -1, 0}));
  for (const int32_t label : {-1, 3}) EXPECT_THROW(cross_entropy(logits, std::vector<int32_t>{label}, 1.0f), Error);
}

// A row is summed in pieces: one without any probability, one that holds nearly all.
TEST(Loss, CrossEntropyOfALargeVocabulary) {
  Tensor logits = gaussian({1, 5000}, 3, 4.0f);
  for (int64_t c = 1024; c < 2048; ++c) logits.f32()[c] = -std::numeric_limits<float>::infinity();
  for (int64_t c = 0; c < 5000; ++c) logits.f32()[c] += c < 1024 ? -500.0f : c < 3000 ? -1000.0f : -990.0f;
  const Values before = values_of(logits);
  double sum = 0;
  for (const double x : before) sum += std::exp(x + 500);
  const double loss = cross_entropy(logits, std::vector<int32_t>{7}, 0.25f);
  EXPECT_NEAR(loss, std::log(sum) - (before[7] + 500), 1e-6 * loss);
  for (size_t c = 0; c < 5000; ++c) {
    const double p = 0.25 * std::exp(before[c] + 500) / sum - (c == 7 ? 0.25 : 0);
    ASSERT_NEAR(logits.f32()[c], p, 1e-6 * std::fabs(p) + 1e-30) << c;
  }
  logits.f32()[3000] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(cross_entropy(logits, std::vector<int32_t>{7}, 1.0f)));
}

TEST(Loss, SquaredErrorAndItsGradient) {
  Tensor values = Tensor::from(std::vector<float>{1, 2}, {2, 1});
  EXPECT_EQ(squared_error(values, std::vector<float>{3, 1}, 0.5f), 5.0);
  EXPECT_EQ(values_of(values), (Values{-2, 1}));
}

}  // namespace
}  // namespace nibble
