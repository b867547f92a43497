// Products of floats with whatever keys and values are kept as: rows summed with weights, and codes of 8 bits.
#include <cmath>
#include <limits>

#include "core/dtype.h"
#include "kernels/every_isa.h"

namespace nibble {
namespace {

class SumRows : public EveryIsa {};
NIBBLE_EVERY_ISA(SumRows);

struct Sizes {
  int64_t tokens, k, cols;
};

constexpr int64_t kPadding = 3;  // strides beyond the length of a row

float same(float x) { return x; }
int8_t code_of(float x) { return static_cast<int8_t>(std::lround(std::fmax(-127.0f, std::fmin(127.0f, 40 * x)))); }
float value_of(int8_t code) { return code; }

/// A type that rows may have.
template <class W>
struct Stored {
  const char* name;
  void (*Kernels::*sum_rows)(const RowSums<W>&) noexcept;
  void (*Kernels::*product)(const FloatProduct<W>&) noexcept;
  W (*narrow)(float);
  float (*widen)(W);
};
const Stored<float> kF32 = {"f32", &Kernels::sum_rows_f32, &Kernels::matmul_f32, same, same};
const Stored<uint16_t> kF16 = {"f16", &Kernels::sum_rows_f16, &Kernels::matvec_f16, f32_to_f16, f16_to_f32};
const Stored<uint16_t> kBf16 = {"bf16", &Kernels::sum_rows_bf16, &Kernels::matvec_bf16, f32_to_bf16, bf16_to_f32};
const Stored<int8_t> kI8 = {"i8", &Kernels::sum_rows_i8, &Kernels::matvec_i8, code_of, value_of};

template <class Body>
void for_every_type(Body body) {
  body(kF32);
  body(kF16);
  body(kBf16);
  body(kI8);
}

template <class W>
struct Problem {
  Guarded<float> x, y;
  Guarded<W> w;
  RowSums<W> args;

  Problem(Sizes s, const Stored<W>& type)
      : x(gaussian(s.tokens * (s.k + kPadding), 1)),
        y(s.tokens * (s.cols + kPadding)),
        w(s.k * (s.cols + kPadding)),
        args{x.data(), w.data(),       y.data(),          s.tokens,         s.k,
             s.cols,   s.k + kPadding, s.cols + kPadding, s.cols + kPadding} {
    Guarded<float> values = gaussian(s.k * (s.cols + kPadding), 2);
    for (int64_t i = 0; i < s.k * args.ldw; ++i) w[i] = type.narrow(values[i]);
  }
};

template <class W>
void expect_right(const Kernels& table, const Stored<W>& type, Sizes s) {
  Problem<W> p(s, type);
  (table.*type.sum_rows)(p.args);
  ASSERT_TRUE(p.y.guards_intact());
  for (int64_t t = 0; t < s.tokens; ++t) {
    for (int64_t c = 0; c < s.cols; ++c) {
      double exact = 0, magnitude = 0;
      for (int64_t k = 0; k < s.k; ++k) {
        const double product = double{p.x[t * p.args.ldx + k]} * double{type.widen(p.w[k * p.args.ldw + c])};
        exact += product;
        magnitude += std::fabs(product);
      }
      const double bound = static_cast<double>(s.k + 1) * 0x1p-24 * magnitude;  // of any order of summation
      ASSERT_NEAR(double{p.y[t * p.args.ldy + c]}, exact, bound) << type.name << " " << s.k << " " << s.cols;
    }
    for (int64_t c = s.cols; c < p.args.ldy; ++c) ASSERT_EQ(p.y[t * p.args.ldy + c], 77.0f);
  }
  // The first rows, and then the others in addition: the same sums in the same order.
  const std::vector<float> at_once = p.y.values();
  RowSums<W> first = p.args, rest = p.args;
  first.k = s.k / 2;
  rest.k = s.k - first.k;
  rest.x += first.k;
  rest.w += first.k * rest.ldw;
  rest.add = true;
  (table.*type.sum_rows)(first);
  (table.*type.sum_rows)(rest);
  ASSERT_EQ(p.y.values(), at_once) << type.name << " " << s.k << " " << s.cols;
}

TEST_P(SumRows, AreWithinTheBoundOfAnyOrderOfSummation) {
  for_every_type([&](const auto& type) {
    for (const int64_t n : test_sizes()) {
      expect_right(table(), type, {n % 8 + 1, n % 5, n});
      if (n < 200) expect_right(table(), type, {n % 7 + 1, n, n % 9 + 1});
    }
    expect_right(table(), type, {13, 256, 64});
    expect_right(table(), type, {3, 256, 128});
  });
}

// x as it lies, and turned.
TEST_P(SumRows, HaveTheSameBitsHoweverXLies) {
  for_every_type([&](const auto& type) {
    for (const Sizes s : {Sizes{1, 1, 1}, Sizes{13, 37, 70}, Sizes{6, 64, 64}, Sizes{7, 3, 129}}) {
      Problem as_is(s, type), turned(s, type);
      Guarded<float> x(s.k * (s.tokens + kPadding));
      for (int64_t t = 0; t < s.tokens; ++t) {
        for (int64_t k = 0; k < s.k; ++k) x[k * (s.tokens + kPadding) + t] = as_is.x[t * as_is.args.ldx + k];
      }
      turned.args.x = x.data();
      turned.args.ldx = 1;
      turned.args.x_step = s.tokens + kPadding;
      (table().*type.sum_rows)(as_is.args);
      (table().*type.sum_rows)(turned.args);
      ASSERT_EQ(bits(turned.y.values()), bits(as_is.y.values())) << type.name << " " << s.k << " " << s.cols;
    }
  });
}

TEST_P(SumRows, HaveTheSameBitsHoweverTokensAndColumnsAreSplit) {
  for_every_type([&](const auto& type) {
    Problem whole({11, 40, 150}, type), parts({11, 40, 150}, type);
    (table().*type.sum_rows)(whole.args);
    for (int64_t t = 0; t < 11; t += 4) {
      for (int64_t c = 0; c < 150; c += 37) {
        auto piece = parts.args;
        piece.x += t * piece.ldx;
        piece.w += c;
        piece.y += t * piece.ldy + c;
        piece.tokens = std::min<int64_t>(4, 11 - t);
        piece.cols = std::min<int64_t>(37, 150 - c);
        (table().*type.sum_rows)(piece);
      }
    }
    ASSERT_EQ(bits(whole.y.values()), bits(parts.y.values())) << type.name;
  });
}

// What lies before and behind the rows that count has weight 0.
TEST_P(SumRows, ZerosAtEitherEndChangeNothing) {
  for_every_type([&](const auto& type) {
    Problem all({2, 50, 70}, type), middle({2, 50, 70}, type);
    for (int64_t t = 0; t < 2; ++t) {
      for (int64_t k = 0; k < 50; ++k) all.x[t * all.args.ldx + k] *= k >= 11 && k < 42 ? 1.0f : 0.0f;
    }
    (table().*type.sum_rows)(all.args);
    auto part = middle.args;
    part.x += 11;
    part.w += 11 * part.ldw;
    part.k = 31;
    (table().*type.sum_rows)(part);
    ASSERT_EQ(all.y.values(), middle.y.values()) << type.name;
  });
}

TEST_P(SumRows, CarryNanAndInfinityToTheirColumnOnly) {
  for (const float special : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (int64_t column = 0; column < 37; ++column) {
      Problem p({3, 6, 37}, kF32);
      p.w[4 * p.args.ldw + column] = special;
      table().sum_rows_f32(p.args);
      for (int64_t t = 0; t < 3; ++t) {
        for (int64_t c = 0; c < 37; ++c) ASSERT_EQ(std::isfinite(p.y[t * p.args.ldy + c]), c != column);
      }
    }
  }
}

// The products of keys: the bits of matmul_f32 over the widened values, for every number of tokens.
TEST_P(SumRows, ProductsHaveTheBitsOfTheWidenedValues) {
  for_every_type([&](const auto& type) {
    for (const int64_t n : test_sizes()) {
      const int64_t tokens = n % 9 + 1, rows = n % 6 + 1;
      Problem p({tokens, n, rows}, type);  // w as [rows, n]: as many values
      Guarded<float> widened(rows * n), expected(tokens * rows), got(tokens * rows);
      for (int64_t i = 0; i < rows * n; ++i) widened[i] = type.widen(p.w[i]);
      table().matmul_f32({p.x.data(), widened.data(), expected.data(), tokens, rows, n, n + kPadding, n, rows});
      (table().*type.product)({p.x.data(), p.w.data(), got.data(), tokens, rows, n, n + kPadding, n, rows});
      ASSERT_TRUE(got.guards_intact());
      ASSERT_EQ(bits(got.values()), bits(expected.values())) << type.name << " " << n;
    }
  });
}

// The shares of two parts add up to those of the whole.
TEST_P(SumRows, PartsOfASoftmaxAddUp) {
  for (const int64_t n : test_sizes()) {
    Guarded<float> whole = gaussian(n, 5, 4.0f), parts = gaussian(n, 5, 4.0f);
    table().softmax(whole.data(), n);
    const int64_t cut = n / 3;
    const SoftmaxPart a = table().softmax_part(parts.data(), cut),
                      b = table().softmax_part(parts.data() + cut, n - cut);
    const double max = cut > 0 ? std::fmax(a.max, b.max) : double{b.max};
    const double total = (cut > 0 ? double{a.sum} * std::exp(a.max - max) : 0) + double{b.sum} * std::exp(b.max - max);
    for (int64_t i = 0; i < n; ++i) {
      const double share = double{parts[i]} * std::exp((i < cut ? a.max : b.max) - max) / total;
      // exp is within 2 units, its argument (below 40) carries half a unit of its own; n terms are summed.
      ASSERT_NEAR(double{whole[i]}, share, (2 * 40 + static_cast<double>(n) + 8) * 0x1p-24 * share + 1e-44) << n;
    }
    ASSERT_TRUE(parts.guards_intact());
  }
  const SoftmaxPart none = table().softmax_part(nullptr, 0);
  EXPECT_EQ(none.max, 0.0f);
  EXPECT_EQ(none.sum, 0.0f);
  std::vector<float> masked(21, -std::numeric_limits<float>::infinity());
  const SoftmaxPart empty = table().softmax_part(masked.data(), 21);
  EXPECT_EQ(empty.max, 0.0f);
  EXPECT_EQ(empty.sum, 0.0f);
  EXPECT_EQ(masked, std::vector<float>(21, 0.0f));
}

}  // namespace
}  // namespace nibble
