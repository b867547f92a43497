// Sums of products of codes, and what comes before and after them: ranges, codes of activations, scales. Integers and
// what is rounded once have the same bits on every instruction set.
#include <cmath>
#include <limits>

#include "kernels/every_isa.h"

namespace nibble {
namespace {

class Codes : public EveryIsa {};
NIBBLE_EVERY_ISA(Codes);

constexpr int64_t kPadding = 3;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

struct Problem {
  Guarded<int8_t> x;
  Guarded<uint32_t> w;
  Guarded<int32_t> y;
  CodeSums args;

  Problem(int64_t tokens, int64_t k, int64_t cols)
      : x(tokens * (k + kPadding)),
        w(k / 4 * (cols + kPadding)),
        y(tokens * (cols + kPadding)),
        args{x.data(), w.data(), y.data(), tokens, k, cols, k + kPadding, cols + kPadding, cols + kPadding} {
    std::mt19937 random(static_cast<uint32_t>(k + cols));
    for (int64_t i = 0; i < tokens * args.ldx; ++i) x[i] = static_cast<int8_t>(random());
    for (int64_t i = 0; i < k / 4 * args.ldw; ++i) w[i] = static_cast<uint32_t>(random());
  }
};

void expect_as_scalar(const Kernels& table, const Kernels& scalar, Problem& p) {
  table.sum_codes(p.args);
  ASSERT_TRUE(p.y.guards_intact());
  const std::vector<int32_t> found = p.y.values();
  Guarded<int32_t> expected(p.args.tokens * p.args.ldy);
  CodeSums args = p.args;
  args.y = expected.data();
  scalar.sum_codes(args);
  ASSERT_EQ(found, expected.values()) << p.args.tokens << " tokens, " << p.args.k << " x " << p.args.cols;
}

TEST_P(Codes, SumsAreExact) {
  for (const int64_t k : {4, 8, 60, 64, 100, 1536}) {
    for (const int64_t cols : {1, 15, 16, 17, 63, 64, 65, 150}) {
      for (const int64_t tokens : {1, 5, 6, 13}) {
        Problem p(tokens, k, cols);
        expect_as_scalar(table(), scalar(), p);
      }
    }
  }
}

// -128 * -128 in every place: the most that 32 bits have to hold, also on the way.
TEST_P(Codes, SumsOfTheLargestCodesDoNotOverflow) {
  for (const int8_t x : {int8_t{-128}, int8_t{127}}) {
    for (const uint32_t word : {0u, 0xffffffffu}) {
      Problem p(2, 131'068, 3);
      for (int64_t i = 0; i < 2 * p.args.ldx; ++i) p.x[i] = x;
      for (int64_t i = 0; i < p.args.k / 4 * p.args.ldw; ++i) p.w[i] = word;
      table().sum_codes(p.args);
      EXPECT_EQ(p.y[0], 131'068 * x * (word == 0 ? -128 : 127));
      expect_as_scalar(table(), scalar(), p);
    }
  }
}

struct Pairs {
  Guarded<int16_t> x;
  Guarded<uint32_t> w;
  Guarded<float> x_scale, w_scale, y;
  PairSums args;

  Pairs(int64_t tokens, int64_t k, int64_t cols)
      : x(tokens * (k + kPadding)),
        w(k / 2 * (cols + kPadding)),
        x_scale(gaussian(tokens, 1)),
        w_scale(gaussian(cols, 2)),
        y(gaussian(tokens * (cols + kPadding), 3, 1e6f)),
        args{x.data(), w.data(), x_scale.data(), w_scale.data(),  y.data(),       tokens,
             k,        cols,     k + kPadding,   cols + kPadding, cols + kPadding} {
    std::mt19937 random(static_cast<uint32_t>(k + cols));
    const auto number = [&](int32_t most) {
      return static_cast<int32_t>(random() % static_cast<uint32_t>(2 * most + 1)) - most;
    };
    for (int64_t i = 0; i < tokens * args.ldx; ++i) x[i] = static_cast<int16_t>(number(kPairX));
    for (int64_t i = 0; i < k / 2 * args.ldw; ++i) w[i] = word(number(kPairW), number(kPairW));
  }

  static uint32_t word(int32_t low, int32_t high) {
    return (static_cast<uint32_t>(low) & 0xffffu) | static_cast<uint32_t>(high) << 16;
  }

  std::vector<uint32_t> sums(const Kernels& table, bool add) {
    Guarded<float> result = y;
    PairSums own = args;
    own.y = result.data();
    own.add = add;
    table.sum_pairs(own);
    EXPECT_TRUE(result.guards_intact());
    return bits(result.values());
  }
};

TEST_P(Codes, SumsOfPairsHaveTheSameBitsEverywhere) {
  for (const int64_t k : {2, 4, 62, 64, 256}) {
    for (const int64_t cols : {1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 150}) {
      for (const int64_t tokens : {1, 3, 4, 6, 13}) {
        Pairs p(tokens, k, cols);
        for (const bool add : {false, true}) {
          ASSERT_EQ(p.sums(table(), add), p.sums(scalar(), add)) << tokens << " tokens, " << k << " x " << cols;
        }
      }
    }
  }
}

TEST_P(Codes, SumsOfTheLargestPairsDoNotOverflow) {
  for (const int32_t sign : {1, -1}) {
    Pairs p(2, kPairTerms, 3);
    for (int64_t i = 0; i < 2 * p.args.ldx; ++i) p.x[i] = kPairX;
    for (int64_t i = 0; i < p.args.k / 2 * p.args.ldw; ++i) p.w[i] = Pairs::word(sign * kPairW, sign * kPairW);
    p.x_scale[0] = p.w_scale[0] = 1;
    table().sum_pairs(p.args);
    EXPECT_EQ(p.y[0], static_cast<float>(sign * kPairTerms * kPairX * kPairW));
  }
}

// Columns that are zero, tiny, infinite or no number among others.
TEST_P(Codes, PairsOfColumnsHaveTheSameBitsEverywhere) {
  for (const int64_t k : {1, 2, 3, 100, 255, 256}) {
    for (const int64_t cols : {1, 7, 8, 9, 15, 16, 17, 64}) {
      Guarded<float> x = gaussian(k * (cols + kPadding), static_cast<uint32_t>(k + cols));
      const int64_t words = (k + 1) / 2 * (cols + kPadding), row = k / 2 * (cols + kPadding);
      if (cols > 5) {
        for (int64_t i = 0; i < k; ++i) x[i * (cols + kPadding)] = 0, x[i * (cols + kPadding) + 1] *= 1e-36f;
        x[row + 2] = kInfinity, x[row + 3] = kNan, x[row + 4] = -kInfinity;
      }
      Guarded<uint32_t> w(words), expected_w(words);
      Guarded<float> scale(cols), expected_scale(cols);
      const auto run = [&](const Kernels& kernels, Guarded<uint32_t>& to, Guarded<float>& scales) {
        kernels.pair_columns({x.data(), to.data(), scales.data(), k, cols, cols + kPadding, cols + kPadding});
        ASSERT_TRUE(to.guards_intact() && scales.guards_intact());
        if (cols > 5) {
          ASSERT_FALSE(std::isfinite(scales[2]) || std::isfinite(scales[3]) || std::isfinite(scales[4]));
          scales[3] = 0;  // NaN has many bits
        }
      };
      run(table(), w, scale);
      run(scalar(), expected_w, expected_scale);
      ASSERT_EQ(w.values(), expected_w.values()) << k << " x " << cols;
      ASSERT_EQ(bits(scale.values()), bits(expected_scale.values())) << k << " x " << cols;
      for (int64_t i = 0; i < k; ++i) {
        const uint32_t found = w[i / 2 * (cols + kPadding) + cols - 1] >> (16 * (i % 2));
        const float value = static_cast<float>(static_cast<int16_t>(found & 0xffffu)) * scale[cols - 1];
        ASSERT_LE(std::fabs(value - x[i * (cols + kPadding) + cols - 1]), 0.501f * scale[cols - 1]);
      }
    }
  }
}

TEST_P(Codes, ScaledSumsHaveTheSameBitsEverywhere) {
  std::mt19937 random(1);
  for (const int64_t n : test_sizes()) {
    Guarded<int32_t> sums(n), column_sums(n);
    for (int64_t i = 0; i < n; ++i) {
      sums[i] = static_cast<int32_t>(random() % 2'000'000) - 1'000'000;
      column_sums[i] = static_cast<int32_t>(random() % 20'000) - 10'000;
    }
    const Guarded<float> scales = gaussian(n, 2), bias = gaussian(n, 3);
    for (const bool with_bias : {false, true}) {
      Guarded<float> y(n), expected(n);
      ScaledSums args = {sums.data(), column_sums.data(), -77, 0.03f, Guarded<float>(scales).data(), nullptr, y.data()};
      Guarded<float> own_scales = scales, own_bias = bias;
      args.scales = own_scales.data();
      args.bias = with_bias ? own_bias.data() : nullptr;
      table().scale_sums(args, n);
      ASSERT_TRUE(y.guards_intact());
      args.y = expected.data();
      scalar().scale_sums(args, n);
      ASSERT_EQ(bits(y.values()), bits(expected.values())) << n;
    }
  }
}

TEST_P(Codes, OfActivationsAreTheSameEverywhere) {
  const AffineCodes kinds[] = {{.inverse = 37.5f, .low = -100, .high = 155, .offset = -28},
                               {.inverse = 1e30f, .low = 0, .high = 255, .offset = -128},
                               {.inverse = 20.0f, .low = -127, .high = 0, .offset = -1}};
  for (const AffineCodes& to : kinds) {
    for (const int64_t n : test_sizes()) {
      Guarded<float> x = gaussian(n, 5, 3.0f);
      for (int64_t i = 0; i < n; i += 3) x[i] = (static_cast<float>(i % 11) - 4.5f) / to.inverse;  // ties
      if (n > 7) x[1] = kNan, x[2] = kInfinity, x[5] = -kInfinity, x[7] = 3e38f;
      Guarded<int8_t> q(n), expected(n);
      table().quantize_affine(x.data(), to, q.data(), n);
      ASSERT_TRUE(q.guards_intact());
      scalar().quantize_affine(x.data(), to, expected.data(), n);
      ASSERT_EQ(q.values(), expected.values()) << n;
      if (n > 7) {
        EXPECT_EQ(q[1], static_cast<int8_t>(to.low + to.offset));
        EXPECT_EQ(q[2], static_cast<int8_t>(to.high + to.offset));
        EXPECT_EQ(q[5], static_cast<int8_t>(to.low + to.offset));
      }
    }
  }
}

TEST_P(Codes, ExtentsLeaveOutWhatIsNoNumber) {
  EXPECT_EQ(table().extent(nullptr, 0).low, kInfinity);
  EXPECT_EQ(table().extent(nullptr, 0).high, -kInfinity);
  for (const int64_t n : test_sizes()) {
    Guarded<float> x = gaussian(n, 7);
    for (int64_t at = 0; at < n; at += std::max<int64_t>(1, n / 5)) {
      Guarded<float> own = x;
      own[at] = 9;
      own[(at + n / 2) % n] = n == 1 ? 9.0f : -11.0f;
      if (n > 3) own[(at + n / 3) % n] = kNan;
      const Extent found = table().extent(own.data(), n), expected = scalar().extent(own.data(), n);
      ASSERT_EQ(found.low, expected.low) << n;
      ASSERT_EQ(found.high, expected.high) << n;
    }
  }
  Guarded<float> none(3);
  for (int64_t i = 0; i < 3; ++i) none[i] = kNan;
  EXPECT_EQ(table().extent(none.data(), 3).high, -kInfinity);
}

}  // namespace
}  // namespace nibble
