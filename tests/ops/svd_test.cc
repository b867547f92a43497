// Singular values against numpy, vectors by what they must satisfy.
#include "ops/svd.h"

#include <gtest/gtest.h>

#include <cmath>

#include "ops/elementwise.h"
#include "ops/gradient_check.h"
#include "ops/matrix.h"
#include "support/files.h"
#include "support/goldens.h"

namespace nibble {
namespace {

using namespace nibble::test;

struct Golden {
  int64_t rows, cols, rank, decay;
  double rest;  // length of what the rank leaves over
  std::vector<double> s;
};

const Golden kGoldens[] = {
#include "ops/svd_golden.inc"
};

// A value moves by less than 1e-6 of the first in the last pass, and by a tenth less in each that would have followed.
constexpr double kTolerance = 1e-5;

/// The matrices of make_svd_golden.py.
Tensor matrix_of(const Golden& g) {
  Tensor w(DType::f32, {g.rows, g.cols});
  for (int64_t i = 0; i < g.rows; ++i) {
    for (int64_t j = 0; j < g.cols; ++j) {
      const double value = static_cast<double>((i * 7919 + j * 104729 + i * j * 31) % 1009) / 1009 - 0.5;
      w.f32()[i * g.cols + j] = static_cast<float>(value / (1 + static_cast<double>(j) / static_cast<double>(g.decay)));
    }
  }
  return w;
}

double length(const Tensor& x) {
  double squares = 0;
  for (const float value : floats(x)) squares += static_cast<double>(value) * value;
  return std::sqrt(squares);
}

/// W - U diag(s) V^T
Tensor rest_of(const Tensor& w, const PartialSvd& svd) {
  Tensor scaled = copy_of(svd.u);
  for (int64_t i = 0; i < scaled.count(); ++i) scaled.f32()[i] *= -svd.s[static_cast<size_t>(i / scaled.cols())];
  Tensor rest = matmul_by_columns(transpose(scaled), svd.v);
  add_in_place(rest, w);
  return rest;
}

void expect_orthonormal(const Tensor& rows) {
  const Tensor products = matmul(rows, rows);
  for (int64_t i = 0; i < products.count(); ++i) {
    const double expected = i / rows.rows() == i % rows.rows() ? 1 : 0;
    EXPECT_NEAR(products.f32()[i], expected, kTolerance) << i;
  }
}

TEST(PartialSvd, FindsWhatNumpyFinds) {
  for (const Golden& g : kGoldens) {
    SCOPED_TRACE(shape_text({g.rows, g.cols}) + " rank " + std::to_string(g.rank));
    const Tensor w = matrix_of(g);
    const PartialSvd svd = partial_svd(w, {.rank = g.rank});
    ASSERT_EQ(svd.s.size(), g.s.size());
    for (size_t i = 0; i < g.s.size(); ++i) EXPECT_NEAR(svd.s[i], g.s[i], kTolerance * g.s[0]) << i;
    expect_orthonormal(svd.u);
    expect_orthonormal(svd.v);
    // Nothing of this rank comes closer to W (Eckart and Young).
    EXPECT_NEAR(length(rest_of(w, svd)), g.rest, kTolerance * length(w));
  }
}

TEST(PartialSvd, AFewPassesComeClose) {
  for (const Golden& g : kGoldens) {
    SCOPED_TRACE(shape_text({g.rows, g.cols}) + " rank " + std::to_string(g.rank));
    const Tensor w = matrix_of(g);
    const double one = length(rest_of(w, partial_svd(w, {.rank = g.rank, .passes = 1})));
    const double five = length(rest_of(w, partial_svd(w, {.rank = g.rank, .passes = 5})));
    EXPECT_GE(one, five - kTolerance * length(w));
    EXPECT_LE(five, 1.01 * g.rest + kTolerance * length(w));
  }
}

TEST(PartialSvd, WhatIsNotThereIsZero) {
  const Tensor w = matmul(gaussian({30, 2}, 1), gaussian({50, 2}, 2));  // rank 2
  const PartialSvd svd = partial_svd(w, {.rank = 5});
  EXPECT_GT(svd.s[1], 1);
  for (size_t i = 2; i < 5; ++i) EXPECT_EQ(svd.s[i], 0);
  EXPECT_EQ(length(svd.u.slice_rows(2, 5)), 0);
  EXPECT_EQ(length(svd.v.slice_rows(2, 5)), 0);
  EXPECT_LE(length(rest_of(w, svd)), kTolerance * length(w));
  const PartialSvd nothing = partial_svd(Tensor(DType::f32, {6, 4}), {.rank = 2});
  EXPECT_EQ(nothing.s, (std::vector<float>{0, 0}));
  EXPECT_EQ(length(nothing.u), 0);
}

// Squares of such values are beyond f32.
TEST(PartialSvd, HugeAndTinyValuesScale) {
  const Tensor w = gaussian({20, 12}, 3);
  const PartialSvd one = partial_svd(w, {.rank = 3});
  for (const float factor : {0x1p80f, 0x1p-80f}) {
    Tensor scaled = copy_of(w);
    scale_in_place(scaled, factor);
    const PartialSvd svd = partial_svd(scaled, {.rank = 3});
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(svd.s[i] / factor, one.s[i], kTolerance * one.s[0]);
  }
}

TEST(PartialSvd, ThreadsChangeNoBit) {
  const Tensor w = matrix_of(kGoldens[2]);
  set_thread_count(1);
  const PartialSvd one = partial_svd(w, {.rank = 5});
  set_thread_count(3);
  const PartialSvd three = partial_svd(w, {.rank = 5});
  set_thread_count(0);
  EXPECT_EQ(floats(one.u), floats(three.u));
  EXPECT_EQ(floats(one.v), floats(three.v));
  EXPECT_EQ(one.s, three.s);
}

TEST(PartialSvd, RefusesARankThatTheMatrixCannotHave) {
  for (const int64_t rank : {0, 4}) {
    expect_error(ErrorCode::invalid_argument, "of a matrix [3, 7], expected 1 to 3", [&] {
      partial_svd(gaussian({3, 7}, 1), {.rank = rank});
    });
  }
}

}  // namespace
}  // namespace nibble
