// What the tape promises: gradients flow only where something is watched, layers may run again, and adapters.
#include "ops/tape.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "ops/dora.h"
#include "ops/elementwise.h"
#include "ops/gradient_check.h"
#include "ops/linear.h"
#include "ops/lora.h"
#include "ops/matrix.h"
#include "ops/norm.h"

namespace nibble {
namespace {

using namespace nibble::test;

Linear layer_of(const Tensor& weight) { return {.name = "layer", .weight = weight, .bias = {}}; }

TEST(Tape, WatchesOnlyWhatItIsAskedFor) {
  const Tensor x = gaussian({2, 3}, 1), w = gaussian({4, 3}, 2), v = gaussian({5, 4}, 3);
  Tape tape;
  tape.watch(v);
  const Tensor h = linear(x, layer_of(w), {}, &tape);
  EXPECT_EQ(tape.slot(h), Tape::kNone);
  const Tensor y = linear(h, layer_of(v), {}, &tape);
  EXPECT_NE(tape.slot(y), Tape::kNone);
  tape.backward(y, gaussian(y.shape, 4));
  EXPECT_FALSE(tape.gradient(v).empty());
  EXPECT_THROW(tape.gradient(w), Error);
}

TEST(Tape, SumsGradientsOfSeveralPasses) {
  const Tensor x = gaussian({2, 3}, 1), w = gaussian({4, 3}, 2), dy = gaussian({2, 4}, 3);
  Tape tape;
  tape.watch(w);
  tape.backward(linear(x, layer_of(w), {}, &tape), dy);
  const Values once = values_of(tape.gradient(w));
  tape.backward(linear(x, layer_of(w), {}, &tape), dy);
  const Values twice = values_of(tape.gradient(w));
  for (size_t i = 0; i < once.size(); ++i) EXPECT_EQ(twice[i], 2 * once[i]);
  tape.clear_gradients();
  EXPECT_TRUE(tape.gradient(w).empty());
}

// An addition hands the same gradient to both operands; a later one must not change what the other got.
TEST(Tape, GradientsThatAreSharedAreNotOverwritten) {
  const Tensor a = gaussian({1, 3}, 1), b = gaussian({1, 3}, 2);
  Tape tape;
  tape.watch(a);
  tape.watch(b);
  const Tensor sum = add(Tensor(a), b, &tape);
  tape.backward(add(Tensor(sum), a, &tape), Tensor::from(std::vector<float>{1, 2, 3}, {1, 3}));
  EXPECT_EQ(values_of(tape.gradient(a)), (Values{2, 4, 6}));
  EXPECT_EQ(values_of(tape.gradient(b)), (Values{1, 2, 3}));
}

/// Results that a product needs for its gradient, and that are not held for it.
struct MadeAgain {
  const char* name;
  Tensor (*apply)(const Tensor& x, const Tensor& row, Tape* tape);
};
constexpr MadeAgain kMadeAgain[] = {
    {"rms_norm", [](const Tensor& x, const Tensor& row, Tape* t) { return rms_norm(x, row, 1e-5f, t); }},
    {"layer_norm", [](const Tensor& x, const Tensor& row, Tape* t) { return layer_norm(x, row, row, 1e-5f, t); }},
    {"relu", [](const Tensor& x, const Tensor&, Tape* t) { return activate(Activation::relu, Tensor(x), t); }},
    {"gelu", [](const Tensor& x, const Tensor&, Tape* t) { return activate(Activation::gelu_erf, Tensor(x), t); }},
    {"silu_mul", [](const Tensor& x, const Tensor&, Tape* t) { return silu_mul(x, x, t); }},
    {"multiply", [](const Tensor& x, const Tensor&, Tape* t) { return multiply(Tensor(x), x, t); }},
};

// With the gradients of two products with one input, and of a product with another in between.
TEST(Tape, WhatCanBeMadeAgainIsNotHeld) {
  const Tensor w1 = gaussian({4, 6}, 2), w2 = gaussian({4, 6}, 3), w3 = gaussian({4, 6}, 4), row = gaussian({6}, 5);
  for (const MadeAgain& test : kMadeAgain) {
    const Tensor x = gaussian({3, 6}, 1), z = gaussian({3, 6}, 6);
    Tape tape;
    for (const Tensor* leaf : {&x, &z, &w1, &w2, &w3}) tape.watch(*leaf);
    Tensor y = test.apply(x, row, &tape), other = test.apply(z, row, &tape);
    const Tensor expected = copy_of(y), between = copy_of(other);
    const std::weak_ptr<const Buffer> held = y.buffer;
    const Tensor a = linear(y, layer_of(w1), {}, &tape), b = linear(other, layer_of(w3), {}, &tape);
    const Tensor sum = add(add(Tensor(a), b, &tape), linear(y, layer_of(w2), {}, &tape), &tape);
    y = other = Tensor();
    EXPECT_TRUE(held.expired()) << test.name;
    const Tensor dy = gaussian(sum.shape, 7);
    tape.backward(sum, dy);
    const auto gradient_of = [&](const Tensor& input) { return values_of(turned_matmul(dy, input)); };
    EXPECT_EQ(values_of(tape.gradient(w1)), gradient_of(expected)) << test.name;
    EXPECT_EQ(values_of(tape.gradient(w2)), gradient_of(expected)) << test.name;
    EXPECT_EQ(values_of(tape.gradient(w3)), gradient_of(between)) << test.name;
  }
}

struct Outcome {
  Values y, dw1, dw2;
};

Outcome two_layers(bool recompute, float dropout) {
  const Tensor x = gaussian({6, 8}, 1), w1 = gaussian({8, 8}, 2), w2 = gaussian({8, 8}, 3);
  const auto lora = std::make_shared<Lora>(
      Lora{.a = gaussian({2, 8}, 4), .b = gaussian({8, 2}, 5), .scaling = 0.5f, .dropout = dropout, .stream = 7});
  Linear first = layer_of(w1), second = layer_of(w2);
  first.adapters.push_back(lora);
  Tape tape;
  tape.watch(w1);
  tape.watch(w2);
  tape.watch(lora->a);
  tape.recompute_layers = recompute;
  tape.dropout_seed = 11;
  Tensor h = x;
  for (const Linear* layer : {&first, &second}) {
    h = checkpoint(h, &tape, [layer](const Tensor& in, Tape* t) {
      return activate(Activation::silu, linear(in, *layer, {}, t), t);
    });
  }
  tape.backward(h, gaussian(h.shape, 6));
  return {values_of(h), values_of(tape.gradient(w1)), values_of(tape.gradient(w2))};
}

TEST(Tape, LayersThatRunAgainGiveTheSameBits) {
  for (const float dropout : {0.0f, 0.5f}) {
    const Outcome kept = two_layers(false, dropout), again = two_layers(true, dropout);
    EXPECT_EQ(kept.y, again.y);
    EXPECT_EQ(kept.dw1, again.dw1);
    EXPECT_EQ(kept.dw2, again.dw2);
  }
  EXPECT_NE(two_layers(false, 0.5f).y, two_layers(false, 0.0f).y);
}

TEST(Lora, Gradients) {
  const auto apply = [](const std::vector<Tensor>& t, Tape* tape) {
    Linear layer = layer_of(t[1]);
    layer.adapters.push_back(std::make_shared<Lora>(Lora{.a = t[2], .b = t[3], .scaling = 0.75f}));
    layer.adapters.push_back(std::make_shared<Lora>(Lora{.a = t[3], .b = t[2], .scaling = -2.0f}));
    return linear(t[0], layer, {}, tape);
  };
  // W + 0.75 B A - 2 A' B' with A' = B, B' = A: all four gradients of two adapters at once.
  const auto exact = [](const std::vector<Values>& v) {
    const auto weight = [&](size_t o, size_t i) {
      double w = v[1][o * 6 + i];
      for (size_t r = 0; r < 6; ++r) {
        w += 0.75 * v[3][o * 6 + r] * v[2][r * 6 + i] - 2 * v[2][o * 6 + r] * v[3][r * 6 + i];
      }
      return w;
    };
    Values y(6 * 6);
    for (size_t n = 0; n < 6 * 6 * 6; ++n) y[n / 6] += v[0][n / 36 * 6 + n % 6] * weight(n / 6 % 6, n % 6);
    return y;
  };
  expect_gradients({"two adapters",
                    {gaussian({6, 6}, 1), gaussian({6, 6}, 2), gaussian({6, 6}, 3), gaussian({6, 6}, 4)},
                    apply,
                    exact});
}

// E[id] + 0.75 A[:, id]^T B^T, for ids that come twice and ids that do not come.
TEST(Lora, GradientsOfAnEmbedding) {
  const std::vector<int32_t> ids = {3, 0, 3, 4};
  const auto apply = [&](const std::vector<Tensor>& t, Tape* tape) {
    Embedding table = {.name = "e", .weight = t[0]};
    table.adapters.push_back(std::make_shared<Lora>(Lora{.a = t[1], .b = t[2], .scaling = 0.75f}));
    return embedding(ids, table, tape);
  };
  const auto exact = [&](const std::vector<Values>& v) {
    Values y;
    for (const int32_t id : ids) {
      const auto row = static_cast<size_t>(id);
      for (size_t c = 0; c < 7; ++c) {
        double delta = 0;
        for (size_t j = 0; j < 2; ++j) delta += v[1][j * 5 + row] * v[2][c * 2 + j];
        y.push_back(v[0][row * 7 + c] + 0.75 * delta);
      }
    }
    return y;
  };
  expect_gradients({"embedding", {gaussian({5, 7}, 1), gaussian({2, 5}, 2), gaussian({7, 2}, 3)}, apply, exact});
}

// The lengths count as constant in the gradient, so the reference is given those of the start. Alone and without
// dropout an adapter changes the product that is there already; beside another one (here itself), or where x is dropped
// (here nothing of it is), it has its own.
TEST(Dora, Gradients) {
  const std::vector<Tensor> inputs = {gaussian({4, 6}, 1), gaussian({2, 6}, 2), gaussian({5, 2}, 3), gaussian({5}, 4)};
  const Tensor w = gaussian({5, 6}, 5), bias = gaussian({5}, 6);
  const Values lengths = values_of(dora_row_lengths(w, {.a = inputs[1], .b = inputs[2], .scaling = 0.75f}));
  const auto row = [&](const std::vector<Values>& v, size_t o) {
    Values sum(6);
    for (size_t i = 0; i < 6; ++i) {
      sum[i] = w.f32()[o * 6 + i] + 0.75 * (v[2][o * 2] * v[1][i] + v[2][o * 2 + 1] * v[1][6 + i]);
    }
    return sum;
  };
  for (size_t o = 0; o < 5; ++o) {
    double squares = 0;
    for (const double value : row({{}, values_of(inputs[1]), values_of(inputs[2])}, o)) squares += value * value;
    EXPECT_NEAR(lengths[o], std::sqrt(squares), 1e-5);
  }
  struct Row {
    int adapters;
    float dropout;
  };
  for (const Row& test : {Row{1, 0.0f}, Row{2, 0.0f}, Row{1, 1e-9f}, Row{2, 1e-9f}}) {
    const auto apply = [&](const std::vector<Tensor>& t, Tape* tape) {
      if (tape) tape->dropout_seed = 1;
      const Lora lora = {.a = t[1], .b = t[2], .scaling = 0.75f, .dropout = test.dropout, .magnitude = t[3]};
      Linear layer = {.name = "layer", .weight = w, .bias = bias};
      for (int i = 0; i < test.adapters; ++i) layer.adapters.push_back(std::make_shared<Lora>(lora));
      return linear(t[0], layer, {}, tape);
    };
    const auto exact = [&](const std::vector<Values>& v) {
      Values y(4 * 5);
      for (size_t i = 0; i < 20; ++i) {
        const Values direction = row(v, i % 5);
        double base = 0, sum = 0;
        for (size_t k = 0; k < 6; ++k) {
          base += v[0][i / 5 * 6 + k] * w.f32()[i % 5 * 6 + k];
          sum += v[0][i / 5 * 6 + k] * direction[k];
        }
        y[i] = bias.f32()[i % 5] + (1 - test.adapters) * base + test.adapters * v[3][i % 5] / lengths[i % 5] * sum;
      }
      return y;
    };
    expect_gradients({"dora", inputs, apply, exact});
  }
}

/// Training adds up the products of B in another order: sums of numbers up to 20 that differ by their rounding.
void expect_same_sums(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.shape, b.shape);
  for (int64_t i = 0; i < a.count(); ++i) EXPECT_NEAR(a.f32()[i], b.f32()[i], 5e-6) << i;
}

TEST(Lora, DropoutActsOnTheInputOfAOnlyWhileTraining) {
  const Tensor x = gaussian({3, 8}, 1), w = gaussian({5, 8}, 2), a = gaussian({2, 8}, 3), b = gaussian({5, 2}, 4);
  Linear layer = layer_of(w);
  layer.adapters.push_back(std::make_shared<Lora>(Lora{.a = a, .b = b, .scaling = 2, .dropout = 0.5f, .stream = 3}));
  Tape tape;
  tape.watch(a);
  tape.watch(b);
  tape.watch(x);
  expect_same_sums(linear(x, layer, {}, &tape), linear(x, layer, {}, nullptr));
  tape.dropout_seed = 17;
  const Tensor y = linear(x, layer, {}, &tape), dy = gaussian(y.shape, 5);
  tape.backward(y, dy);

  const Tensor seen = dropout(x, 0.5f, 17, 3);
  Tensor expected = linear(x, layer_of(w), {});
  Lora plain = {.a = a, .b = b, .scaling = 2};
  add_lora(seen, plain, nullptr, expected);
  expect_same_sums(y, expected);

  // dx = dy W + s M (dy B A)
  Tensor through = matmul(matmul(dy, transpose(b)), transpose(a));
  scale_in_place(through, 2.0f);
  Tensor dx = matmul(dy, transpose(w));
  add_in_place(dx, dropout(through, 0.5f, 17, 3));
  const Values got = values_of(tape.gradient(x)), want = values_of(dx);
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-5);
}

TEST(Dropout, DropsItsShareAndKeepsTheMean) {
  Tensor ones(DType::f32, {100, 1000});
  for (int64_t i = 0; i < ones.count(); ++i) ones.f32()[i] = 1.0f;
  const Values dropped = values_of(dropout(ones, 0.25f, 1, 2));
  const auto zeros = static_cast<double>(std::count(dropped.begin(), dropped.end(), 0.0));
  EXPECT_NEAR(zeros / 1e5, 0.25, 4 * std::sqrt(0.25 * 0.75 / 1e5));  // four standard deviations
  for (const double value : dropped) ASSERT_TRUE(value == 0.0 || std::abs(value - 4.0 / 3.0) < 1e-6);
  EXPECT_NE(dropped, values_of(dropout(ones, 0.25f, 2, 2)));
  EXPECT_NE(dropped, values_of(dropout(ones, 0.25f, 1, 3)));
}

// Frozen weights of every format: the gradient goes through the values they decode to.
TEST(Linear, GradientThroughEveryFormat) {
  const Tensor x = gaussian({3, 256}, 1), dy = gaussian({3, 300}, 2);
  for (const Format& format : all_formats()) {
    if (format.encode == nullptr && !format.dense) continue;
    const Weight weight = encode(gaussian({300, 256}, 3), format, {});
    Tape tape;
    tape.watch(x);
    tape.backward(linear(x, {.name = "layer", .weight = weight, .bias = {}}, {}, &tape), dy);
    const Values got = values_of(tape.gradient(x)), want = values_of(matmul(dy, transpose(decode(weight))));
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-4) << format.name;
  }
}

}  // namespace
}  // namespace nibble
