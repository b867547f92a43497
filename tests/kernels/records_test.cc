// Records of every layout: bits of codes, number of groups, type of scales, with and without minimums.
#include <cmath>
#include <cstring>
#include <limits>

#include "core/dtype.h"
#include "kernels/packed_weights.h"

namespace nibble {
namespace {

class Records : public EveryIsa {};
NIBBLE_EVERY_ISA(Records);

constexpr ScaleType kScaleTypes[] = {ScaleType::bf16, ScaleType::f16, ScaleType::f32, ScaleType::f16_i8};

std::vector<RecordLayout> layouts() {
  std::vector<RecordLayout> all;
  for (const int bits : {4, 8}) {
    for (const int groups : {1, 2, 4}) {
      for (const ScaleType type : kScaleTypes) {
        for (const int minimums : {0, 1}) all.push_back({bits, groups, type, minimums});
      }
    }
  }
  return all;
}

std::string describe(const RecordLayout& l) {
  return std::to_string(l.code_bits) + " bits, " + std::to_string(l.groups) + " groups, scale type " +
         std::to_string(static_cast<int>(l.scale_type)) + (l.minimums ? ", minimums" : "");
}

/// Random codes; scales and minimums as they read from their type.
struct RandomRecords {
  RecordLayout layout;
  int64_t rows, k;
  Guarded<uint8_t> bytes;
  Levels4 levels = make_levels4(kNf4.data());
  std::mt19937 random{21};

  RandomRecords(const RecordLayout& l, int64_t r, int64_t cols)
      : layout(l), rows(r), k(cols), bytes(packed4_bytes(r, cols, l)) {
    for (int64_t i = 0; i < packed4_bytes(rows, k, layout); ++i) bytes[i] = static_cast<uint8_t>(random());
    std::normal_distribution<float> normal(0.0f, 0.05f);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t block = 0; block < k / kPackInputs; ++block) {
        for (int64_t n = 0; n < layout.groups * (1 + layout.minimums); ++n) set_scale(row, block, n, normal(random));
      }
    }
  }

  Packed4 view() { return {bytes.data(), &levels, rows, k, layout}; }
  uint8_t* record(int64_t row, int64_t block) {
    return bytes.data() + (row / kPackRows * (k / kPackInputs) + block) * record_bytes(layout);
  }
  uint8_t* values(int64_t row, int64_t block, int64_t n) {
    return record(row, block) + record_code_bytes(layout) + scale_offset(layout, n);
  }
  uint8_t* common(int64_t row, int64_t block, int64_t n) {
    return record(row, block) + record_code_bytes(layout) + (n < layout.groups ? 0 : 32) + row % 16 * 2;
  }

  void set_scale(int64_t row, int64_t block, int64_t n, float value) {
    const uint16_t f16 = f32_to_f16(value), bf16 = f32_to_bf16(value);
    uint8_t* at = values(row, block, n);
    switch (layout.scale_type) {
      case ScaleType::bf16: std::memcpy(at + row % 16 * 2, &bf16, 2); break;
      case ScaleType::f16: std::memcpy(at + row % 16 * 2, &f16, 2); break;
      case ScaleType::f32: std::memcpy(at + row % 16 * 4, &value, 4); break;
      case ScaleType::f16_i8:  // the byte stays what it is, -128 to 127
        const uint16_t small = f32_to_f16(value / 64);
        std::memcpy(common(row, block, n), &small, 2);
        break;
    }
  }

  float scale(int64_t row, int64_t block, int64_t n) {
    const uint8_t* at = values(row, block, n);
    uint16_t half = 0;
    float wide = 0;
    std::memcpy(&half, layout.scale_type == ScaleType::f16_i8 ? common(row, block, n) : at + row % 16 * 2, 2);
    if (layout.scale_type == ScaleType::f32) std::memcpy(&wide, at + row % 16 * 4, 4);
    switch (layout.scale_type) {
      case ScaleType::bf16: return bf16_to_f32(half);
      case ScaleType::f16: return f16_to_f32(half);
      case ScaleType::f32: return wide;
      case ScaleType::f16_i8: break;
    }
    return f16_to_f32(half) * static_cast<float>(static_cast<int8_t>(at[row % 16]));
  }

  float level(int64_t row, int64_t input) {
    const int64_t in_record = input % kPackInputs;
    const uint8_t* codes = record(row, input / kPackInputs) + row % 16 * 4;
    if (layout.code_bits == 8) return static_cast<int8_t>(codes[in_record / 4 * 64 + in_record % 4]);
    const int byte = codes[in_record / 8 * 64 + in_record % 4];
    return levels.exact[in_record % 8 >= 4 ? byte >> 4 : byte & 15];
  }

  /// As packed4.h says.
  float value(int64_t row, int64_t input) {
    const int64_t block = input / kPackInputs, group = input % kPackInputs / (kPackInputs / layout.groups);
    const float value = level(row, input) * scale(row, block, group);
    return layout.minimums ? value + scale(row, block, layout.groups + group) : value;
  }
  std::vector<float> decoded() {
    std::vector<float> out;
    for (int64_t at = 0; at < rows * k; ++at) out.push_back(value(at / k, at % k));
    return out;
  }
};

TEST_P(Records, DecodeToWhatTheLayoutSays) {
  for (const RecordLayout& layout : layouts()) {
    RandomRecords w(layout, 21, 192);
    const std::vector<float> expected = w.decoded();
    for (const auto& [first, rows] : {std::pair<int64_t, int64_t>{0, 21}, {15, 3}, {20, 1}}) {
      Guarded<float> out(rows * 192);
      table().decode_packed4(w.view(), first, rows, out.data());
      ASSERT_TRUE(out.guards_intact());
      const auto begin = expected.begin() + first * 192;
      ASSERT_EQ(bits(out.values()), bits({begin, begin + rows * 192})) << describe(layout);
    }
  }
}

TEST_P(Records, ProductsOfIntegersHaveTheBitsOfTheScalarOnes) {
  for (const RecordLayout& layout : layouts()) {
    RandomRecords w(layout, 19, 192);
    for (const int64_t tokens : {1, 2, 3, 5, 8, 9, 17}) {
      const std::vector<float> x = gaussian(tokens * 192, 22).values();
      for (const Precision& p : {kI8, kI16}) {
        ASSERT_EQ(bits(product(table(), p, w.view(), x.data(), tokens)),
                  bits(product(scalar(), p, w.view(), x.data(), tokens)))
            << p.name << " " << describe(layout) << ", " << tokens << " tokens";
      }
    }
  }
}

/// What a step of the activations and of the levels may do to a sum: see packed4.h.
struct Bound {
  double exact = 0, magnitude = 0, x_steps = 0, level_steps = 0;
};

Bound bound_of(RandomRecords& w, int64_t row, const float* x) {
  Bound b;
  double largest = 0;
  for (int64_t i = 0; i < w.k; ++i) largest = std::max(largest, std::fabs(double{x[i]}));
  for (int64_t i = 0; i < w.k; ++i) {
    const int64_t block = i / kPackInputs, group = i % kPackInputs / (kPackInputs / w.layout.groups);
    const double value = w.value(row, i), scale = w.scale(row, block, group);
    const double minimum = w.layout.minimums ? w.scale(row, block, w.layout.groups + group) : 0;
    b.exact += value * x[i];
    b.magnitude += (std::fabs(w.level(row, i) * scale) + std::fabs(minimum)) * std::fabs(x[i]);
    b.x_steps += std::fabs(value) * largest;
    b.level_steps += std::fabs(scale) * (std::fabs(x[i]) + largest / 160);
  }
  return b;
}

// Floats: a sum's bound in any order. Integers: half a step of 5792 or 81 of the largest value for every weight, and,
// with levels of 4 bits, half a step of 5664 or 80 of the largest level for every value.
TEST_P(Records, ProductsAreWithinTheBoundOfTheirRoundings) {
  struct Steps {
    Precision precision;
    double x, levels;
  };
  for (const RecordLayout& layout : layouts()) {
    RandomRecords w(layout, 17, 192);
    const std::vector<float> x = gaussian(3 * 192, 23).values();
    for (const auto& [p, x_steps, level_steps] :
         {Steps{kF32, 0, 0}, Steps{kI16, 0.501 / 5792, 0.501 / 5664}, Steps{kI8, 0.501 / 81, 0.501 / 80}}) {
      const std::vector<float> y = product(table(), p, w.view(), x.data(), 3);
      for (int64_t at = 0; at < 3 * 17; ++at) {
        const Bound b = bound_of(w, at % 17, &x[static_cast<size_t>(at / 17 * 192)]);
        const double levels = layout.code_bits == 8 ? 0 : level_steps * b.level_steps;
        ASSERT_NEAR(double{y[static_cast<size_t>(at)]}, b.exact,
                    200 * 0x1p-23 * b.magnitude + x_steps * b.x_steps + levels)
            << p.name << " " << describe(layout);
      }
    }
  }
}

/// x: ones, and `odd` in the odd places.
void expect_exact(const Kernels& table, RandomRecords& w, int code, float odd) {
  std::vector<float> x(64, 1.0f);
  for (size_t i = 1; i < 64; i += 2) x[i] = odd;
  const double exact = 32.0 * code * (1.0 + odd);
  for (const Precision& p : {kI8, kI16, kF32}) {
    const std::vector<float> y = product(table, p, w.view(), x.data(), 1);
    const double relative = p.panels == PanelType::i8 ? 0.5 / 81 : 0.5 / 5792;
    ASSERT_NEAR(double{y[3]}, exact, relative * std::fabs(exact)) << p.name << " " << code;
    if (p.panels == PanelType::f32) continue;  // in another order
    ASSERT_EQ(bits(y), bits(product(supported_kernels().back(), p, w.view(), x.data(), 1)));
  }
}

// Sums that come closest to the limits of 16 and of 32 bits.
TEST_P(Records, ProductsOfExtremeCodesAreExact) {
  for (const int groups : {1, 2, 4}) {
    for (const int code : {-128, 127, 0}) {
      RandomRecords w({8, groups, ScaleType::f32, 0}, 16, 64);
      std::memset(w.bytes.data(), code, 1024);
      for (int64_t at = 0; at < 16 * groups; ++at) w.set_scale(at % 16, 0, at / 16, 1.0f);
      for (const float odd : {1.0f, -1.0f, 0.0f}) expect_exact(table(), w, code, odd);
    }
  }
}

TEST_P(Records, CarryWhatIsNotFiniteToItsRowOrTokenOnly) {
  for (const RecordLayout& layout : layouts()) {
    for (const float special : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      RandomRecords w(layout, 18, 128);
      w.set_scale(17, 1, layout.groups * (1 + layout.minimums) - 1, special);
      std::vector<float> x = gaussian(5 * 128, 24).values();
      x[2 * 128 + 70] = special;
      for (const Precision& p : {kI8, kI16, kF32}) {
        const std::vector<float> y = product(table(), p, w.view(), x.data(), 5);
        for (size_t at = 0; at < y.size(); ++at) {
          ASSERT_EQ(std::isfinite(y[at]), at / 18 != 2 && at % 18 != 17) << p.name << " " << describe(layout);
        }
      }
    }
  }
}

/// Rows from `row` and tokens from `token` on, out of 40 by 19.
void expect_part(const Kernels& table, const Precision& p, RandomRecords& w, int64_t row, int64_t token) {
  const std::vector<float> x = gaussian(19 * 128, 25).values();
  const std::vector<float> whole = product(table, p, w.view(), x.data(), 19);
  const std::vector<float> part =
      product(table, p, packed4_rows(w.view(), row, 40), x.data() + token * 128, 19 - token);
  for (int64_t at = 0; at < static_cast<int64_t>(part.size()); ++at) {
    const int64_t r = row + at % (40 - row), t = token + at / (40 - row);
    ASSERT_EQ(std::bit_cast<uint32_t>(part[static_cast<size_t>(at)]),
              std::bit_cast<uint32_t>(whole[static_cast<size_t>(t * 40 + r)]))
        << p.name << " " << describe(w.layout);
  }
}

TEST_P(Records, HaveTheSameProductsHoweverRowsAreSplitAndPanelsCut) {
  for (const RecordLayout& layout : layouts()) {
    RandomRecords w(layout, 40, 128);
    for (const Precision& p : {kI8, kI16, kF32}) {
      for (const int64_t token : {0, 11}) {
        for (const int64_t row : {0, 16}) expect_part(table(), p, w, row, token);
      }
    }
  }
}

}  // namespace
}  // namespace nibble
