// The layout of packed 4-bit weights and the activations; the products are in packed4_products_test.cc.
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/packed_weights.h"

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class Packed4Layout : public EveryIsa {};
class Activations4Test : public EveryIsa {};
NIBBLE_EVERY_ISA(Packed4Layout);
NIBBLE_EVERY_ISA(Activations4Test);

std::vector<PackedSizes> layouts() {
  std::vector<PackedSizes> result;
  for (const int64_t rows : {1, 7, 15, 16, 17, 40}) {
    for (const int64_t k : {64, 192, 576}) {
      for (const ScaleType type : {ScaleType::bf16, ScaleType::f32}) {
        for (const int64_t block : {32, 64, 128, 4096}) result.push_back({rows, k, block, type});
      }
    }
  }
  return result;
}

TEST_P(Packed4Layout, DecodesToTheFloatsOfTheStoredLayout) {
  for (const auto& levels : {kNf4, kFp4}) {
    for (const PackedSizes s : layouts()) {
      PackedWeights w(table(), s, levels);
      ASSERT_TRUE(w.records.guards_intact());
      std::vector<float> out(static_cast<size_t>(s.rows * s.k));
      table().decode_packed4(w.view(), 0, s.rows, out.data());
      ASSERT_EQ(bits(out), bits(w.decoded())) << s.rows << " x " << s.k << ", blocks of " << s.block;
    }
  }
}

TEST_P(Packed4Layout, DecodesAnyRows) {
  PackedWeights w(table(), {40, 128}, kNf4);
  const std::vector<float> all = w.decoded();
  for (int64_t first = 0; first < 40; ++first) {
    for (const int64_t rows : {int64_t{1}, int64_t{3}, 40 - first}) {
      if (first + rows > 40) continue;
      Guarded<float> out(rows * 128);
      table().decode_packed4(w.view(), first, rows, out.data());
      ASSERT_TRUE(out.guards_intact());
      ASSERT_EQ(0, std::memcmp(out.data(), &all[static_cast<size_t>(first * 128)], static_cast<size_t>(rows * 512)));
    }
  }
}

TEST_P(Packed4Layout, IsTheScalarOneHoweverRowsAreSplit) {
  for (const PackedSizes s : layouts()) {
    PackedWeights whole(scalar(), s, kNf4), parts(table(), s, kNf4);
    ASSERT_EQ(whole.records.values(), parts.records.values());
    for (int64_t row = 0; row < s.rows; row += kPackRows) {
      const int64_t rows = std::min(kPackRows, s.rows - row);
      table().pack_4bit({parts.packed.data(), parts.absmax.data(),
                         parts.records.data() + packed4_bytes(row, s.k, s.layout()), row * s.k, s.block, rows, s.k,
                         s.layout()});
    }
    ASSERT_EQ(whole.records.values(), parts.records.values());
  }
}

TEST_P(Packed4Layout, PlacesCodesAndScalesAsDocumented) {
  PackedWeights w(table(), {16, 64}, kNf4);
  const auto stored = [&](int64_t row, int64_t input) {
    const int byte = w.packed[(row * 64 + input) / 2];
    return input % 2 == 0 ? byte >> 4 : byte & 15;
  };
  for (int64_t j = 0; j < 8; ++j) {
    for (int64_t row = 0; row < 16; ++row) {
      for (int64_t i = 0; i < 4; ++i) {
        const int expected = stored(row, 8 * j + i) | stored(row, 8 * j + 4 + i) << 4;
        ASSERT_EQ(w.records[64 * j + 4 * row + i], expected);
      }
    }
  }
  for (int64_t row = 0; row < 16; ++row) {
    const int scale = w.records[512 + 2 * row] | w.records[513 + 2 * row] << 8;
    ASSERT_EQ(static_cast<uint32_t>(scale) << 16, std::bit_cast<uint32_t>(w.absmax[row]));
  }
}

TEST(Packed4, FitsBf16OnlyWhenNoBitIsLost) {
  const std::vector<float> fits = {1.0f, -0.0f, kInf, 0x1.02p-120f}, does_not = {1.0f, 0x1.000002p0f};
  EXPECT_TRUE(fits_bf16(fits.data(), 4));
  EXPECT_FALSE(fits_bf16(does_not.data(), 2));
}

TEST(Packed4, LevelsAreRoundedToTheirUnits) {
  for (const auto& levels : {kNf4, kFp4}) {
    const Levels4 l = make_levels4(levels.data());
    for (int i = 0; i < 16; ++i) {
      EXPECT_EQ(l.exact[i], levels[static_cast<size_t>(i)]);
      EXPECT_NEAR(float(l.i16[i]) * l.i16_unit, l.exact[i], 0.501f * l.i16_unit);
      EXPECT_NEAR(float(l.i8[i]) * l.i8_unit, l.exact[i], 0.501f * l.i8_unit);
      EXPECT_LE(std::abs(l.i8[i]), kLevelBias);
      EXPECT_LE(std::abs(l.i16[i]), 5792);
    }
  }
  for (const float first : {0.0f, -8.0f}) {
    std::array<float, 16> levels;
    for (size_t i = 0; i < 16; ++i) levels[i] = first + static_cast<float>(i);
    const Levels4 l = make_levels4(levels.data());
    for (int i = 0; i < 16; ++i) {  // whole numbers of units
      EXPECT_NEAR(float(l.i16[i]) * l.i16_unit, l.exact[i], 1e-6f);
      EXPECT_NEAR(float(l.i8[i]) * l.i8_unit, l.exact[i], 1e-6f);
    }
  }
  const float zeros[16] = {};
  EXPECT_EQ(make_levels4(zeros).i8_unit, 0.0f);
}

// Blocks where a rule decides: zeros, subnormals, the largest and smallest numbers, equal neighbours, what is not
// finite.
std::vector<float> decisive_blocks() {
  std::vector<float> x = gaussian(40 * 64, 11).values();
  const auto fill = [&](int64_t block, auto value) {
    for (int64_t i = 0; i < 64; ++i) x[static_cast<size_t>(block * 64 + i)] = value(i);
  };
  fill(0, [](int64_t) { return 0.0f; });
  fill(1, [](int64_t i) { return float(i) * 1e-44f; });
  fill(2, [](int64_t i) { return i % 2 ? 3.4e38f : -3.4e38f; });
  fill(3, [](int64_t) { return 1.0f; });
  fill(4, [](int64_t i) { return float(i) + 0.5f; });
  fill(5, [](int64_t i) { return i == 63 ? 1e-30f : -0.0f; });
  fill(6, [](int64_t i) { return i % 2 ? 0.0f : 127.0f; });
  x[7 * 64 + 5] = kNan;
  x[8 * 64 + 63] = kInf;
  x[9 * 64] = -kInf;
  for (int64_t i = 10; i < 20; ++i) x[static_cast<size_t>(i * 64 + i)] *= 100.0f;
  return x;
}

TEST_P(Activations4Test, AreTheScalarOnesForEveryNumberOfTokens) {
  const std::vector<float> x = decisive_blocks();
  for (const Precision& p : {kI8, kI16, kF32}) {
    for (int64_t tokens = 1; tokens <= 35; ++tokens) {
      const int64_t k = tokens < 12 ? 192 : 64, ldx = k + (tokens % 3);
      for (const PanelLayout layout : {PanelLayout{},
                                       {1, 100, 1, 1},
                                       {2, 100, 2, 0},
                                       {2, 128, 2, 1},
                                       {4, 128, 4, 0},
                                       {4, 100, 4, 1},
                                       {1, 100, kBlockLines, 0},
                                       {2, 100, kBlockLines, 1},
                                       {1, 100, 0, 0},
                                       {4, 100, 0, 1}}) {
        Guarded<uint32_t> mine = panels_of(table(), p, {x.data(), nullptr, tokens, k, ldx, layout});
        ASSERT_TRUE(mine.guards_intact());
        ASSERT_EQ(mine.values(), panels_of(scalar(), p, {x.data(), nullptr, tokens, k, ldx, layout}).values())
            << p.name << " " << tokens << " tokens, " << layout.groups << " groups, " << layout.corrections
            << " corrections";
      }
    }
  }
}

TEST_P(Activations4Test, OfI8NeverLetTwoProductsExceed16Bits) {
  std::mt19937 random(3);
  std::vector<float> x(64);
  for (int trial = 0; trial < 20'000; ++trial) {
    const float ratio = static_cast<float>(trial % 100) / 99.0f;
    for (float& value : x) value = static_cast<float>(random() % 2001) - 1000.0f;
    x[static_cast<size_t>(trial % 32 * 2)] = 1000.5f;
    x[static_cast<size_t>(trial % 32 * 2 + 1)] = 1000.5f * ratio;
    Guarded<uint32_t> panels = panels_of(table(), kI8, {x.data(), nullptr, 1, 64, 64});
    for (int64_t i = 0; i < 64; i += 2) {
      const auto value = [&](int64_t j) { return int{static_cast<int8_t>(panels[j / 4] >> (8 * (j % 4)))}; };
      ASSERT_LE((std::abs(value(i)) + std::abs(value(i + 1))) * 2 * kLevelBias, 32767);
      const float scale = std::bit_cast<float>(panels[16]);
      ASSERT_NEAR(float(value(i)) * scale, x[static_cast<size_t>(i)], 0.501f * scale);
    }
  }
}

}  // namespace
}  // namespace nibble
