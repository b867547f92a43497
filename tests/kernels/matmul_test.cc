#include <cmath>
#include <limits>

#include "kernels/every_isa.h"

namespace nibble {
namespace {

struct Sizes {
  int64_t tokens, rows, k;
};

std::vector<Sizes> products() {
  std::vector<Sizes> result;
  for (const int64_t n : test_sizes()) result.push_back({n % 7 + 1, n % 9 + 1, n});  // every k
  for (int64_t n = 1; n <= 13; ++n) {
    result.push_back({n, 5, 33});  // every number of tokens in a tile
    result.push_back({2, n, 33});
  }
  result.push_back({67, 67, 67});
  result.push_back({33, 19, 576});
  result.push_back({3, 200, 1000});  // more rows than one block of the cache holds
  return result;
}

constexpr int64_t kPadding = 3;  // strides beyond the length of a row

class MatmulF32Test : public EveryIsa {};
class MatmulI8Test : public EveryIsa {};
NIBBLE_EVERY_ISA(MatmulF32Test);
NIBBLE_EVERY_ISA(MatmulI8Test);

struct FloatProblem {
  Guarded<float> x, w, y;
  MatmulF32 args;

  explicit FloatProblem(Sizes s)
      : x(gaussian(s.tokens * (s.k + kPadding), 1)),
        w(gaussian(s.rows * (s.k + kPadding), 2)),
        y(s.tokens * (s.rows + kPadding)),
        args{x.data(), w.data(), y.data(), s.tokens, s.rows, s.k, s.k + kPadding, s.k + kPadding, s.rows + kPadding} {}
};

// A sum of k rounded products in any order is within k * 2^-24 * sum |x w| of the exact one; lanes make it better.
TEST_P(MatmulF32Test, IsWithinTheBoundOfAnyOrderOfSummation) {
  for (const Sizes s : products()) {
    FloatProblem p(s);
    table().matmul_f32(p.args);
    for (int64_t t = 0; t < s.tokens; ++t) {
      for (int64_t r = 0; r < s.rows; ++r) {
        double exact = 0, magnitude = 0;
        for (int64_t k = 0; k < s.k; ++k) {
          const double product = double{p.x[t * p.args.ldx + k]} * double{p.w[r * p.args.ldw + k]};
          exact += product;
          magnitude += std::fabs(product);
        }
        const double bound = static_cast<double>(s.k + 1) * 0x1p-24 * magnitude;
        ASSERT_NEAR(double{p.y[t * p.args.ldy + r]}, exact, bound) << s.tokens << " " << s.rows << " " << s.k;
      }
    }
  }
}

TEST_P(MatmulF32Test, WritesNothingBesideTheResult) {
  for (const Sizes s : products()) {
    FloatProblem p(s);
    table().matmul_f32(p.args);
    ASSERT_TRUE(p.y.guards_intact());
    for (int64_t t = 0; t < s.tokens; ++t) {
      for (int64_t r = s.rows; r < s.rows + kPadding; ++r) ASSERT_EQ(p.y[t * p.args.ldy + r], 77.0f);
    }
  }
}

TEST_P(MatmulF32Test, GivesTheSameBitsHoweverRowsAndTokensAreSplit) {
  for (const int64_t k : {1, 7, 33, 64, 576, 1000}) {
    FloatProblem whole({23, 21, k}), parts({23, 21, k});
    table().matmul_f32(whole.args);
    for (int64_t t = 0; t < 23; t += 5) {
      for (int64_t r = 0; r < 21; r += 3) {
        MatmulF32 piece = parts.args;
        piece.x += t * piece.ldx;
        piece.w += r * piece.ldw;
        piece.y += t * piece.ldy + r;
        piece.tokens = std::min<int64_t>(5, 23 - t);
        piece.rows = std::min<int64_t>(3, 21 - r);
        table().matmul_f32(piece);
      }
    }
    ASSERT_EQ(bits(whole.y.values()), bits(parts.y.values())) << k;
  }
}

TEST_P(MatmulF32Test, CarriesNanAndInfinityToTheirOutputsOnly) {
  for (const float special : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (int64_t position = 0; position < 37; ++position) {
      FloatProblem p({7, 9, 37});
      p.w[4 * p.args.ldw + position] = special;
      table().matmul_f32(p.args);
      for (int64_t t = 0; t < 7; ++t) {
        for (int64_t r = 0; r < 9; ++r) ASSERT_EQ(std::isfinite(p.y[t * p.args.ldy + r]), r != 4);
      }
    }
  }
}

TEST_P(MatmulF32Test, OfLengthZeroIsZero) {
  FloatProblem p({3, 5, 0});
  table().matmul_f32(p.args);
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t r = 0; r < 5; ++r) EXPECT_EQ(p.y[t * p.args.ldy + r], 0.0f);
  }
}

struct IntProblem {
  Guarded<int8_t> x, w;
  Guarded<int32_t> y;
  MatmulI8 args;

  explicit IntProblem(Sizes s)
      : x(s.tokens * (s.k + kPadding)),
        w(s.rows * (s.k + kPadding)),
        y(s.tokens * (s.rows + kPadding)),
        args{x.data(), w.data(), y.data(), s.tokens, s.rows, s.k, s.k + kPadding, s.k + kPadding, s.rows + kPadding} {
    std::mt19937 random(static_cast<uint32_t>(s.k));
    for (int64_t i = 0; i < s.tokens * args.ldx; ++i) x[i] = static_cast<int8_t>(random());
    for (int64_t i = 0; i < s.rows * args.ldw; ++i) w[i] = static_cast<int8_t>(random());
  }
};

TEST_P(MatmulI8Test, IsExact) {
  for (const Sizes s : products()) {
    IntProblem p(s);
    table().matmul_i8(p.args);
    ASSERT_TRUE(p.y.guards_intact());
    for (int64_t t = 0; t < s.tokens; ++t) {
      for (int64_t r = 0; r < s.rows; ++r) {
        int64_t exact = 0;
        for (int64_t k = 0; k < s.k; ++k) exact += p.x[t * p.args.ldx + k] * p.w[r * p.args.ldw + k];
        ASSERT_EQ(p.y[t * p.args.ldy + r], exact) << s.tokens << " " << s.rows << " " << s.k;
      }
      for (int64_t r = s.rows; r < s.rows + kPadding; ++r) ASSERT_EQ(p.y[t * p.args.ldy + r], 77);
    }
  }
}

TEST_P(MatmulI8Test, IsExactAtTheEndsOfTheRange) {
  constexpr int64_t kLength = 131'071;
  for (const int x : {-128, 127}) {
    for (const int w : {-128, 127}) {
      const std::vector<int8_t> xs(kLength, static_cast<int8_t>(x)), ws(kLength, static_cast<int8_t>(w));
      int32_t y = 0;
      table().matmul_i8({xs.data(), ws.data(), &y, 1, 1, kLength, kLength, kLength, 1});
      EXPECT_EQ(y, kLength * x * w);
    }
  }
}

}  // namespace
}  // namespace nibble
