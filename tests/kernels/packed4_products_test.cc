#include <cmath>
#include <limits>

#include "kernels/packed_weights.h"

namespace nibble {
namespace {

class Packed4Products : public EveryIsa {};
NIBBLE_EVERY_ISA(Packed4Products);

void expect_bits_of_scalar(const Kernels& table, const Precision& p, PackedWeights& w) {
  const int64_t k = w.sizes.k;
  for (const int64_t tokens : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 18, 33, 63, 64, 83}) {
    const std::vector<float> x = gaussian(tokens * k, 6).values();
    ASSERT_EQ(bits(product(table, p, w.view(), x.data(), tokens)),
              bits(product(supported_kernels().back(), p, w.view(), x.data(), tokens)))
        << p.name << " " << w.sizes.rows << " rows, " << tokens << " tokens";
  }
}

TEST_P(Packed4Products, OfIntegersHaveTheBitsOfTheScalarOnes) {
  for (const auto& levels : {kNf4, kFp4}) {
    for (const PackedSizes s : {PackedSizes{1, 320},
                                {16, 320, 64, ScaleType::f32},
                                {37, 320},
                                {37, 320, 64, ScaleType::f32},
                                {37, 320, 32},
                                {20, 64}}) {
      PackedWeights w(table(), s, levels);
      for (const Precision& p : {kI8, kI16}) expect_bits_of_scalar(table(), p, w);
    }
  }
}

/// Whole steps only where the largest is 100 of them, the most that a level of 8 bits can be.
constexpr std::array<float, 16> kHundredths = {-1.0f, -0.83f, -0.71f, -0.59f, -0.47f, -0.31f, -0.17f, -0.01f,
                                               0.03f, 0.19f,  0.29f,  0.41f,  0.53f,  0.67f,  0.79f,  1.0f};

// The largest levels by the largest values: sums that come closest to the limits of 16 and of 32 bits.
TEST_P(Packed4Products, OfIntegersAreExactAtTheEndsOfTheRange) {
  PackedWeights w(table(), {16, 64}, kHundredths);
  ASSERT_EQ(w.levels.i8[15], 100);
  for (const int byte : {0x00, 0xff, 0x0f}) {  // the even and the odd code: -1 or 1
    std::fill_n(w.packed.data(), 16 * 32, static_cast<uint8_t>(byte));
    w.pack(table());
    for (const float odd : {1.0f, -1.0f, 36.0f / 127.0f, -36.0f / 127.0f}) {
      std::vector<float> x(64, 1.0f);
      for (size_t i = 1; i < 64; i += 2) x[i] = odd;
      const float exact = 32 * ((byte >> 4 == 0 ? -1.0f : 1.0f) + odd * ((byte & 15) == 0 ? -1.0f : 1.0f));
      for (const Precision& p : {kI8, kI16}) {
        const std::vector<float> y = product(table(), p, w.view(), x.data(), 1);
        ASSERT_EQ(bits(y), bits(product(scalar(), p, w.view(), x.data(), 1)));
        // Levels are whole steps, and values at most half a step from the truth: of 81 where all are alike, so that
        // what cancels does so exactly, else of 126; of 5792.
        const bool alike = std::fabs(odd) == 1.0f;
        const float relative = 0.5f / (p.panels == PanelType::i16 ? 5792.0f : alike ? 81.0f : 126.0f);
        ASSERT_NEAR(y[3], exact * w.absmax[3], relative * std::fabs((alike ? exact : 64.0f) * w.absmax[3]))
            << p.name << " " << byte << " " << odd;
      }
    }
  }
}

// A plain sum's bound with one rounding more: the decoded value is level * scale, rounded.
void expect_within_bound(const Kernels& table, PackedWeights& w, int64_t tokens) {
  const int64_t rows = w.sizes.rows, k = w.sizes.k;
  const std::vector<float> values = w.decoded(), x = gaussian(tokens * k, 7).values();
  const std::vector<float> y = product(table, kF32, w.view(), x.data(), tokens);
  for (int64_t at = 0; at < tokens * rows; ++at) {
    const float *row = &values[static_cast<size_t>(at % rows * k)], *token = &x[static_cast<size_t>(at / rows * k)];
    double exact = 0, magnitude = 0;
    for (int64_t i = 0; i < k; ++i) {
      exact += double{token[i]} * double{row[i]};
      magnitude += std::fabs(double{token[i]} * double{row[i]});
    }
    ASSERT_NEAR(double{y[static_cast<size_t>(at)]}, exact, static_cast<double>(k + 2) * 0x1p-24 * magnitude);
  }
}

TEST_P(Packed4Products, OfFloatsAreWithinTheBoundOfAnyOrderOfSummation) {
  for (const PackedSizes s :
       {PackedSizes{5, 576}, {16, 576, 64, ScaleType::f32}, {33, 576}, {33, 64, 64, ScaleType::f32}}) {
    PackedWeights w(table(), s, kNf4);
    for (const int64_t tokens : {1, 2, 3, 6, 8, 13, 16, 19, 70}) expect_within_bound(table(), w, tokens);
  }
}

TEST_P(Packed4Products, HaveTheSameBitsHoweverRowsAreSplitAndPanelsCut) {
  constexpr int64_t kRows = 53, kTokens = 37, kLength = 192;
  PackedWeights w(table(), {kRows, kLength}, kNf4);
  const std::vector<float> x = gaussian(kTokens * kLength, 8).values();
  for (const Precision& p : {kI8, kI16, kF32}) {
    const std::vector<float> whole = product(table(), p, w.view(), x.data(), kTokens);
    Guarded<float> y(kTokens * (kRows + 3));
    for (int64_t row = 0; row < kRows; row += 32) {
      const Packed4 part = packed4_rows(w.view(), row, std::min<int64_t>(row + 32, kRows));
      for (int64_t t = 0; t < kTokens; t += 5) {
        const int64_t tokens = std::min<int64_t>(5, kTokens - t);
        Guarded<uint32_t> panels = panels_of(
            table(), p, {x.data() + t * kLength, nullptr, tokens, kLength, kLength, table().panel_layout({})});
        (table().*p.multiply)({part, panels.data(), y.data() + t * (kRows + 3) + row, tokens, kRows + 3});
      }
    }
    ASSERT_TRUE(y.guards_intact());
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t r = 0; r < kRows + 3; ++r) {
        const float expected = r < kRows ? whole[static_cast<size_t>(t * kRows + r)] : 77.0f;
        ASSERT_EQ(std::bit_cast<uint32_t>(y[t * (kRows + 3) + r]), std::bit_cast<uint32_t>(expected)) << p.name;
      }
    }
  }
}

TEST_P(Packed4Products, CarryWhatIsNotFiniteToItsRowOrTokenOnly) {
  for (const float special : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    PackedWeights w(table(), {20, 192, 64, ScaleType::f32}, kFp4);
    w.absmax[18 * 3 + 1] = special;
    w.pack(table());
    std::vector<float> x = gaussian(5 * 192, 9).values();
    x[2 * 192 + 100] = special;
    for (const Precision& p : {kI8, kI16, kF32}) {
      const std::vector<float> y = product(table(), p, w.view(), x.data(), 5);
      for (size_t t = 0; t < 5; ++t) {
        for (size_t r = 0; r < 20; ++r) ASSERT_EQ(std::isfinite(y[t * 20 + r]), t != 2 && r != 18) << p.name;
      }
    }
  }
}

TEST_P(Packed4Products, OfZerosAreZero) {
  PackedWeights w(table(), {20, 128}, kNf4);
  const std::vector<float> zeros(3 * 128, 0.0f), x = gaussian(3 * 128, 10).values();
  for (const Precision& p : {kI8, kI16, kF32}) {
    for (const float y : product(table(), p, w.view(), zeros.data(), 3)) ASSERT_EQ(y, 0.0f) << p.name;
  }
  std::fill_n(w.absmax.data(), 40, 0.0f);
  w.pack(table());
  for (const Precision& p : {kI8, kI16, kF32}) {
    for (const float y : product(table(), p, w.view(), x.data(), 3)) ASSERT_EQ(y, 0.0f) << p.name;
  }
}

struct Errors {
  double measured, predicted;  // ||y - exact|| / ||exact||
};

// Predicted from the roundings themselves: of x, uniform within a step; of the levels, as they are; independent.
Errors errors_of(const Kernels& table, const Precision& p, PackedWeights& w, const std::vector<float>& x) {
  const std::vector<float> values = w.decoded(), y = product(table, p, w.view(), x.data(), 1);
  Guarded<uint32_t> panels = panels_of(table, p, {x.data(), nullptr, 1, w.sizes.k, w.sizes.k});
  const bool i8 = p.panels == PanelType::i8;
  double error = 0, predicted = 0, norm = 0;
  for (int64_t r = 0; r < w.sizes.rows; ++r) {
    double exact = 0;
    for (int64_t k = 0; k < w.sizes.k; ++k) {
      const auto at = static_cast<size_t>(r * w.sizes.k + k);
      const double value = double{values[at]}, input = double{x[static_cast<size_t>(k)]};
      const int64_t block = k / 64;
      const double step = double{std::bit_cast<float>(panels[(block + 1) * block_words(p.panels, {}) - (i8 ? 2 : 1)])};
      const int code = k % 2 == 0 ? w.packed[r * w.sizes.k / 2 + k / 2] >> 4 : w.packed[r * w.sizes.k / 2 + k / 2] & 15;
      const double level =
          i8 ? w.levels.i8[code] * double{w.levels.i8_unit} : w.levels.i16[code] * double{w.levels.i16_unit};
      const double off = (level - double{w.levels.exact[code]}) * double{w.absmax[(r * w.sizes.k + k) / 64]};
      exact += value * input;
      predicted += value * value * step * step / 12 + off * off * input * input;
    }
    norm += exact * exact;
    error += (double{y[static_cast<size_t>(r)]} - exact) * (double{y[static_cast<size_t>(r)]} - exact);
  }
  return {std::sqrt(error / norm), std::sqrt(predicted / norm)};
}

// 256 outputs estimate the error's size to 1 / sqrt(2 * 256) = 4.4 %; four times that is allowed. The gates on top are
// what the precisions promise: 1e-2 and 5e-4 on Gaussian activations.
TEST_P(Packed4Products, ErrIsWhatTheRoundingsPredict) {
  PackedWeights w(table(), {256, 4096}, kNf4);
  std::vector<float> gaussians = gaussian(4096, 12).values(), outliers = gaussians;
  for (size_t i = 0; i < outliers.size(); i += 512) outliers[i] *= 30;
  for (const Precision& p : {kI8, kI16}) {
    for (const auto& [x, name, gate] : {std::tuple(gaussians, "gaussian", p.panels == PanelType::i8 ? 1e-2 : 5e-4),
                                        std::tuple(outliers, "outliers", p.panels == PanelType::i8 ? 3e-2 : 1e-3)}) {
      const Errors e = errors_of(table(), p, w, x);
      EXPECT_NEAR(e.measured, e.predicted, 0.18 * e.predicted) << p.name << " " << name;
      EXPECT_LT(e.measured, gate) << p.name << " " << name;
      RecordProperty(std::string(p.name) + "_" + name, std::to_string(e.measured));
    }
  }
}

}  // namespace
}  // namespace nibble
