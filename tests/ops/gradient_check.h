#pragma once
// Gradients of an operation against central differences of its formula in double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "ops/tape.h"
#include "support/random.h"

namespace nibble::test {

using Values = std::vector<double>;

inline Values values_of(const Tensor& t) { return {t.f32(), t.f32() + t.count()}; }

/// An operation on tensors and the same formula in double.
struct Operation {
  std::string name;
  std::vector<Tensor> inputs;
  std::function<Tensor(const std::vector<Tensor>&, Tape*)> run;
  std::function<Values(const std::vector<Values>&)> exact;
};

/// The gradients of sum(y * dy) by every input, in `threads` threads.
inline std::vector<Tensor> gradients_of(const Operation& op, const Tensor& dy, int threads) {
  set_thread_count(threads);
  Tape tape;
  for (const Tensor& input : op.inputs) tape.watch(input);
  tape.backward(op.run(op.inputs, &tape), dy);
  set_thread_count(0);
  std::vector<Tensor> gradients;
  for (const Tensor& input : op.inputs) gradients.push_back(tape.gradient(input));
  return gradients;
}

/// d(sum(y * dy)) / d(inputs[which][i]), by central differences: exact to the step squared, 1e-9.
inline double numeric_gradient(const Operation& op, const Values& dy, size_t which, size_t i) {
  constexpr double kStep = 1e-5;
  std::vector<Values> inputs;
  for (const Tensor& input : op.inputs) inputs.push_back(values_of(input));
  const double centre = inputs[which][i];
  double result = 0;
  for (const double sign : {1.0, -1.0}) {
    inputs[which][i] = centre + sign * kStep;
    const Values y = op.exact(inputs);
    for (size_t j = 0; j < y.size(); ++j) result += sign * y[j] * dy[j] / (2 * kStep);
  }
  return result;
}

/// Checks the result, the gradient of every input (tolerance relative to its largest element), that threads change no
/// bit, and that a tape that watches nothing changes no bit of the result.
inline void expect_gradients(const Operation& op, double tolerance = 2e-5) {
  SCOPED_TRACE(op.name);
  std::vector<Values> inputs;
  for (const Tensor& input : op.inputs) inputs.push_back(values_of(input));
  const Tensor y = op.run(op.inputs, nullptr);
  const Values expected = op.exact(inputs), got = values_of(y);
  ASSERT_EQ(expected.size(), got.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-5 * (1 + std::abs(expected[i]))) << i;

  const Tensor dy = gaussian(y.shape, 99);
  const std::vector<Tensor> gradients = gradients_of(op, dy, 1), again = gradients_of(op, dy, 3);
  for (size_t which = 0; which < op.inputs.size(); ++which) {
    ASSERT_FALSE(gradients[which].empty()) << "input " << which;
    const Values gradient = values_of(gradients[which]);
    EXPECT_EQ(gradient, values_of(again[which])) << "input " << which;
    ASSERT_EQ(gradient.size(), inputs[which].size());
    Values numeric;
    double largest = 0;
    for (size_t i = 0; i < gradient.size(); ++i) {
      numeric.push_back(numeric_gradient(op, values_of(dy), which, i));
      largest = std::max(largest, std::abs(numeric.back()));
    }
    for (size_t i = 0; i < gradient.size(); ++i) {
      ASSERT_NEAR(gradient[i], numeric[i], tolerance * largest) << "input " << which << " element " << i;
    }
  }
}

}  // namespace nibble::test
