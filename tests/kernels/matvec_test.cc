#include <cmath>
#include <limits>

#include "core/dtype.h"
#include "kernels/every_isa.h"
#include "kernels/levels.h"

namespace nibble {
namespace {

class Matvec : public EveryIsa {};
NIBBLE_EVERY_ISA(Matvec);

struct Sizes {
  int64_t tokens, rows, k;
};

constexpr int64_t kPadding = 3;  // strides beyond the length of a row

std::vector<Sizes> products() {
  std::vector<Sizes> result;
  for (const int64_t n : test_sizes()) result.push_back({n % 6 + 1, n % 9 + 1, n});  // every k
  for (int64_t n = 1; n <= 9; ++n) {
    result.push_back({n, 5, 192});
    result.push_back({2, n, 192});
  }
  result.push_back({4, 67, 576});
  return result;
}

// A sum of k rounded products in any order is within (k + 1) * 2^-24 * sum |x w| of the exact one.
struct Expected {
  double value, bound;
};

template <class X, class W>
Expected expected(int64_t k, X x, W w) {
  double exact = 0, magnitude = 0;
  for (int64_t i = 0; i < k; ++i) {
    const double product = double{x(i)} * double{w(i)};
    exact += product;
    magnitude += std::fabs(product);
  }
  return {exact, static_cast<double>(k + 1) * 0x1p-24 * magnitude};
}

struct HalfKernel {
  const char* name;
  void (*Kernels::*multiply)(const MatvecHalf&) noexcept;
  uint16_t (*narrow)(float);
  float (*widen)(uint16_t);
};
const HalfKernel kHalfKernels[] = {{"f16", &Kernels::matvec_f16, f32_to_f16, f16_to_f32},
                                   {"bf16", &Kernels::matvec_bf16, f32_to_bf16, bf16_to_f32}};

struct HalfProblem {
  Guarded<float> x, y;
  Guarded<uint16_t> w;
  MatvecHalf args;

  HalfProblem(Sizes s, const HalfKernel& kernel)
      : x(gaussian(s.tokens * (s.k + kPadding), 1)),
        y(s.tokens * (s.rows + kPadding)),
        w(s.rows * (s.k + kPadding)),
        args{x.data(), w.data(), y.data(), s.tokens, s.rows, s.k, s.k + kPadding, s.k + kPadding, s.rows + kPadding} {
    Guarded<float> values = gaussian(s.rows * (s.k + kPadding), 2);
    for (int64_t i = 0; i < s.rows * args.ldw; ++i) w[i] = kernel.narrow(values[i]);
  }
};

void expect_right(const Kernels& table, const HalfKernel& kernel, Sizes s) {
  HalfProblem p(s, kernel);
  (table.*kernel.multiply)(p.args);
  ASSERT_TRUE(p.y.guards_intact());
  for (int64_t t = 0; t < s.tokens; ++t) {
    for (int64_t r = 0; r < s.rows; ++r) {
      const Expected e = expected(
          s.k, [&](int64_t i) { return p.x[t * p.args.ldx + i]; },
          [&](int64_t i) { return kernel.widen(p.w[r * p.args.ldw + i]); });
      ASSERT_NEAR(double{p.y[t * p.args.ldy + r]}, e.value, e.bound) << kernel.name << " " << s.k;
    }
    for (int64_t r = s.rows; r < p.args.ldy; ++r) ASSERT_EQ(p.y[t * p.args.ldy + r], 77.0f);
  }
}

TEST_P(Matvec, OfHalvesIsWithinTheBoundOfAnyOrderOfSummation) {
  for (const HalfKernel& kernel : kHalfKernels) {
    for (const Sizes s : products()) expect_right(table(), kernel, s);
  }
}

TEST_P(Matvec, OfHalvesGivesTheSameBitsHoweverRowsAndTokensAreSplit) {
  for (const HalfKernel& kernel : kHalfKernels) {
    HalfProblem whole({5, 21, 200}, kernel), parts({5, 21, 200}, kernel);
    (table().*kernel.multiply)(whole.args);
    for (int64_t t = 0; t < 5; t += 2) {
      for (int64_t r = 0; r < 21; r += 5) {
        MatvecHalf piece = parts.args;
        piece.x += t * piece.ldx;
        piece.w += r * piece.ldw;
        piece.y += t * piece.ldy + r;
        piece.tokens = std::min<int64_t>(2, 5 - t);
        piece.rows = std::min<int64_t>(5, 21 - r);
        (table().*kernel.multiply)(piece);
      }
    }
    ASSERT_EQ(bits(whole.y.values()), bits(parts.y.values())) << kernel.name;
  }
}

TEST_P(Matvec, OfHalvesKeepsSubnormalsAndCarriesNanAndInfinityToTheirOutputsOnly) {
  for (const HalfKernel& kernel : kHalfKernels) {
    for (const float special : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      for (int64_t position = 0; position < 37; ++position) {
        HalfProblem p({3, 6, 37}, kernel);
        p.w[4 * p.args.ldw + position] = kernel.narrow(special);
        (table().*kernel.multiply)(p.args);
        for (int64_t t = 0; t < 3; ++t) {
          for (int64_t r = 0; r < 6; ++r) ASSERT_EQ(std::isfinite(p.y[t * p.args.ldy + r]), r != 4);
        }
      }
    }
    const std::vector<uint16_t> smallest(20, 1);
    const std::vector<float> ones(20, 1.0f);
    float y = 0;
    (table().*kernel.multiply)({ones.data(), smallest.data(), &y, 1, 1, 20, 20, 20, 1});
    EXPECT_EQ(y, 20 * kernel.widen(1)) << kernel.name;
  }
}

struct StoredProblem {
  Guarded<float> x, y, absmax;
  Guarded<uint8_t> packed;
  Matvec4Bit args;

  StoredProblem(Sizes s, int64_t first, int64_t block, const std::array<float, 16>& levels)
      : x(gaussian(s.tokens * (s.k + kPadding), 1)),
        y(s.tokens * (s.rows + kPadding)),
        absmax(gaussian((first + s.rows * s.k) / block + 1, 3)),
        packed((first + s.rows * s.k) / 2 + 1),
        args{x.data(), packed.data(), absmax.data(), levels.data(), y.data(),       first,
             block,    s.tokens,      s.rows,        s.k,           s.k + kPadding, s.rows + kPadding} {
    std::mt19937 random(4);
    for (int64_t i = 0; i < (first + s.rows * s.k) / 2 + 1; ++i) packed[i] = static_cast<uint8_t>(random());
  }

  std::vector<float> decoded_row(int64_t r) const {
    std::vector<float> row(static_cast<size_t>(args.k));
    supported_kernels().back().decode_4bit(args.packed, args.absmax, args.levels, args.first + r * args.k, args.k,
                                           args.block, row.data());
    return row;
  }
};

void expect_right(const Kernels& table, Sizes s, int64_t first, int64_t block, const std::array<float, 16>& levels) {
  StoredProblem p(s, first, block, levels);
  table.matvec_4bit(p.args);
  ASSERT_TRUE(p.y.guards_intact());
  for (int64_t r = 0; r < s.rows; ++r) {
    const std::vector<float> row = p.decoded_row(r);
    for (int64_t t = 0; t < s.tokens; ++t) {
      const Expected e = expected(
          s.k, [&](int64_t i) { return p.x[t * p.args.ldx + i]; },
          [&](int64_t i) { return row[static_cast<size_t>(i)]; });
      ASSERT_NEAR(double{p.y[t * p.args.ldy + r]}, e.value, e.bound)
          << s.tokens << " " << s.rows << " " << s.k << " first " << first << " block " << block;
    }
  }
  for (int64_t t = 0; t < s.tokens; ++t) {
    for (int64_t r = s.rows; r < p.args.ldy; ++r) ASSERT_EQ(p.y[t * p.args.ldy + r], 77.0f);
  }
}

TEST_P(Matvec, OfStoredCodesIsWithinTheBoundOfAnyOrderOfSummation) {
  for (const auto& levels : {kNf4, kFp4}) {
    for (const Sizes s : products()) {
      for (const int64_t block : {32, 64, 256}) {
        for (const int64_t first : {int64_t{0}, 2 * block, int64_t{35}}) expect_right(table(), s, first, block, levels);
      }
    }
  }
}

TEST_P(Matvec, OfStoredCodesGivesTheSameBitsHoweverRowsAndTokensAreSplit) {
  for (const int64_t k : {320, 100}) {  // rows that begin with a block, and rows that do not
    StoredProblem whole({7, 13, k}, 0, 64, kNf4), parts({7, 13, k}, 0, 64, kNf4);
    table().matvec_4bit(whole.args);
    for (int64_t t = 0; t < 7; t += 3) {
      for (int64_t r = 0; r < 13; r += 3) {
        Matvec4Bit piece = parts.args;
        piece.x += t * piece.ldx;
        piece.first = r * k;
        piece.y += t * piece.ldy + r;
        piece.tokens = std::min<int64_t>(3, 7 - t);
        piece.rows = std::min<int64_t>(3, 13 - r);
        table().matvec_4bit(piece);
      }
    }
    ASSERT_EQ(bits(whole.y.values()), bits(parts.y.values()));
  }
}

TEST_P(Matvec, OfStoredCodesCarriesNanAndInfiniteScalesToTheirRowsOnly) {
  for (const float special : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    StoredProblem p({2, 6, 192}, 0, 64, kFp4);
    p.absmax[4 * 3 + 1] = special;
    table().matvec_4bit(p.args);
    for (int64_t t = 0; t < 2; ++t) {
      for (int64_t r = 0; r < 6; ++r) ASSERT_EQ(std::isfinite(p.y[t * p.args.ldy + r]), r != 4);
    }
  }
}

}  // namespace
}  // namespace nibble
