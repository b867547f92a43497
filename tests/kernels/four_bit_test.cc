#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "core/dtype.h"
#include "kernels/every_isa.h"
#include "kernels/levels.h"

namespace nibble {
namespace {

Codebook4 codebook_of(const std::array<float, 16>& levels) {
  Codebook4 book{};
  std::iota(std::begin(book.codes), std::end(book.codes), uint8_t{0});
  std::stable_sort(std::begin(book.codes), std::end(book.codes),
                   [&](uint8_t a, uint8_t b) { return levels[a] < levels[b]; });
  std::copy(levels.begin(), levels.end(), book.levels);
  for (int i = 0; i < 15; ++i) book.thresholds[i] = (levels[book.codes[i]] + levels[book.codes[i + 1]]) / 2.0f;
  return book;
}

int code_at(Guarded<uint8_t>& packed, int64_t i) { return i % 2 == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15; }

// The rule as the format states it, clamp included, independent of every table.
int expected_code(float x, float absmax, const Codebook4& book) {
  const float reciprocal = 1.0f / (absmax < 1e-38f ? 1e-38f : absmax);
  float value = x * reciprocal;
  if (value > 1.0f) value = 1.0f;
  if (value < -1.0f) value = -1.0f;
  if (std::isnan(value)) return book.codes[15];
  int interval = 0;
  for (const float threshold : book.thresholds) interval += value > threshold;
  return book.codes[interval];
}

// Values within 40 units in the last place of every threshold, of every level, and of where AVX-512 cuts the range.
std::vector<float> decisive_values(const Codebook4& book) {
  std::vector<float> values;
  const auto add_around = [&](float x) {
    float up = x, down = x;
    for (int i = 0; i <= 40; ++i) {
      values.insert(values.end(), {up, down});
      up = std::nextafter(up, 2.0f);
      down = std::nextafter(down, -2.0f);
    }
  };
  for (const float x : book.thresholds) add_around(x);
  for (const float x : book.levels) add_around(x);
  for (int cell = -15; cell <= 15; ++cell) add_around(static_cast<float>(cell) / 15.99f);
  for (float& x : values) x = std::clamp(x, -1.0f, 1.0f);
  return values;
}

class FourBit : public EveryIsa {};
NIBBLE_EVERY_ISA(FourBit);

void expect_encodes_by_the_rule(const Kernels& table, const std::vector<float>& values, int64_t block,
                                const Codebook4& book) {
  const auto blocks = static_cast<int64_t>(values.size()) / block;
  Guarded<float> x(blocks * block), absmax(blocks);
  std::copy_n(values.begin(), blocks * block, x.data());
  Guarded<uint8_t> packed(blocks * block / 2);
  table.encode_4bit(x.data(), blocks, block, book, packed.data(), absmax.data());
  ASSERT_TRUE(packed.guards_intact() && absmax.guards_intact());
  for (int64_t b = 0; b < blocks; ++b) {
    float largest = 0;
    bool nan = false;
    for (int64_t i = b * block; i < (b + 1) * block; ++i) {
      nan = nan || std::isnan(x[i]);
      largest = std::max(largest, std::fabs(x[i]));
    }
    if (nan) largest = std::numeric_limits<float>::quiet_NaN();
    ASSERT_TRUE(nan ? std::isnan(absmax[b]) : absmax[b] == largest) << "block " << b;
    for (int64_t i = b * block; i < (b + 1) * block; ++i) {
      ASSERT_EQ(code_at(packed, i), expected_code(x[i], largest, book)) << "value " << x[i] << " at " << i;
    }
  }
}

TEST_P(FourBit, EncodesValuesAroundEveryThreshold) {
  for (const auto& levels : {kNf4, kFp4}) {
    const Codebook4 book = codebook_of(levels);
    for (const size_t block : {32u, 64u}) {
      std::vector<float> values;
      for (const float x :
           decisive_values(book)) {  // an absmax of exactly 1 in every block: values are compared as such
        if (values.size() % block == 0) values.push_back(1.0f);
        values.push_back(x);
      }
      ASSERT_GT(values.size(), 2000u);
      expect_encodes_by_the_rule(table(), values, static_cast<int64_t>(block), book);
    }
  }
}

TEST_P(FourBit, EncodesRandomValuesInEveryBlockSize) {
  for (const auto& levels : {kNf4, kFp4}) {
    for (const int64_t block : {32, 64, 128, 256, 512, 1024, 2048, 4096}) {
      std::vector<float> values = gaussian(8192, static_cast<uint32_t>(block), 0.02f).values();
      for (size_t i = 0; i < values.size(); i += 97) values[i] *= 1e-30f;
      expect_encodes_by_the_rule(table(), values, block, codebook_of(levels));
    }
  }
}

TEST_P(FourBit, EncodesZerosSubnormalsAndValuesThatAreNotFinite) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> values(4 * 32, 0.0f);
  values[1] = -0.0f;
  std::fill(values.begin() + 32, values.begin() + 64, 0.25f);
  values[40] = nan;
  std::fill(values.begin() + 64, values.begin() + 96, -0.25f);
  values[70] = inf;
  values[71] = -inf;
  for (size_t i = 96; i < 128; ++i) values[i] = std::bit_cast<float>(static_cast<uint32_t>(i));
  for (const auto& levels : {kNf4, kFp4}) expect_encodes_by_the_rule(table(), values, 32, codebook_of(levels));
  // What the rule says for NF4: a block with a NaN is all top codes; beside an infinity, finite values are 0.
  const Codebook4 book = codebook_of(kNf4);
  Guarded<uint8_t> packed(64);
  Guarded<float> absmax(4);
  table().encode_4bit(values.data(), 4, 32, book, packed.data(), absmax.data());
  EXPECT_EQ(packed[0], 0x77);
  EXPECT_EQ(packed[16], 0xff);
  EXPECT_EQ(packed[32], 0x77);
  EXPECT_EQ(packed[35], 0xff);
}

// Against the rule for f32, which the tests above check: what matters is the value, not how it is stored.
void expect_bf16_encodes_as_f32(const Kernels& table, const std::vector<uint16_t>& values, int64_t block,
                                const Codebook4& book) {
  const auto count = static_cast<int64_t>(values.size()), blocks = count / block;
  ASSERT_EQ(blocks * block, count);
  Guarded<uint16_t> x(count);
  std::copy(values.begin(), values.end(), x.data());
  Guarded<uint8_t> packed(count / 2), expected(count / 2);
  Guarded<float> wide(count), absmax(blocks), expected_absmax(blocks);
  for (int64_t i = 0; i < count; ++i) wide[i] = bf16_to_f32(x[i]);
  table.encode_4bit_bf16(x.data(), blocks, block, book, packed.data(), absmax.data());
  supported_kernels().back().encode_4bit(wide.data(), blocks, block, book, expected.data(), expected_absmax.data());
  ASSERT_TRUE(packed.guards_intact() && absmax.guards_intact());
  for (int64_t b = 0; b < blocks; ++b) {
    ASSERT_EQ(std::bit_cast<uint32_t>(absmax[b]), std::bit_cast<uint32_t>(expected_absmax[b])) << "block " << b;
  }
  for (int64_t i = 0; i < count; ++i) {
    ASSERT_EQ(code_at(packed, i), code_at(expected, i)) << wide[i] << " beside " << absmax[i / block];
  }
}

// Every absmax that bf16 has, and around each threshold the two numbers on either side of it.
TEST_P(FourBit, EncodesBf16AroundEveryThresholdOfEveryScale) {
  constexpr uint16_t kInfinity = 0x7f80;
  for (const auto& levels : {kNf4, kFp4}) {
    const Codebook4 book = codebook_of(levels);
    std::vector<uint16_t> values;
    for (uint16_t absmax = 0; absmax < kInfinity; ++absmax) {
      values.push_back(absmax);
      for (int i = 1; i < 64; ++i) {
        const float near = book.thresholds[i % 15] * bf16_to_f32(absmax);
        const auto bits = static_cast<uint16_t>(std::bit_cast<uint32_t>(near) >> 16);
        const int magnitude = std::clamp((bits & 0x7fff) + i / 15 - 1, 0, int{absmax});
        values.push_back(static_cast<uint16_t>((bits & 0x8000) | magnitude));
      }
    }
    expect_bf16_encodes_as_f32(table(), values, 64, book);
  }
}

TEST_P(FourBit, EncodesAnyBitsOfBf16InEveryBlockSize) {
  std::mt19937 random(9);
  for (const auto& levels : {kNf4, kFp4}) {
    for (const int64_t block : {32, 64, 128, 256, 512, 1024, 2048, 4096}) {
      std::vector<uint16_t> values(8192);
      for (uint16_t& x : values) x = static_cast<uint16_t>(random());  // most blocks have a NaN
      expect_bf16_encodes_as_f32(table(), values, block, codebook_of(levels));
      for (uint16_t& x : values) x = static_cast<uint16_t>(x % 0x7f80 | (x & 0x8000));
      expect_bf16_encodes_as_f32(table(), values, block, codebook_of(levels));
      for (size_t i = 0; i < values.size(); i += 301) values[i] = 0xff80;  // -infinity
      expect_bf16_encodes_as_f32(table(), values, block, codebook_of(levels));
    }
  }
}

TEST_P(FourBit, DecodesEveryRangeAsTheFormula) {
  constexpr int64_t kCount = 8192;
  std::mt19937 random(5);
  Guarded<uint8_t> packed(kCount / 2);
  for (int64_t i = 0; i < kCount / 2; ++i) packed[i] = static_cast<uint8_t>(random());
  Guarded<float> absmax = gaussian(kCount / 32, 6);
  for (const auto& levels : {kNf4, kFp4}) {
    for (const int64_t block : {32, 64, 4096}) {
      for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{
               {0, kCount}, {1, kCount - 1}, {31, 1}, {31, 2}, {33, 30}, {17, 64}, {64, 4095}, {4095, 66}, {5, 0}}) {
        Guarded<float> out(count);
        table().decode_4bit(packed.data(), absmax.data(), levels.data(), first, count, block, out.data());
        ASSERT_TRUE(out.guards_intact());
        for (int64_t i = 0; i < count; ++i) {
          const float expected = levels[static_cast<size_t>(code_at(packed, first + i))] * absmax[(first + i) / block];
          ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(expected)) << first << " + " << i;
        }
      }
    }
  }
}

TEST_P(FourBit, DecodesEverySize) {
  Guarded<uint8_t> packed(64);
  for (int64_t i = 0; i < 64; ++i) packed[i] = static_cast<uint8_t>(i * 37);
  const std::array<float, 4> absmax = {1.0f, -2.0f, 0.3f, 1e-40f};
  for (int64_t first = 0; first < 40; ++first) {
    for (int64_t count = 1; count <= 67; ++count) {
      Guarded<float> out(count), expected(count);
      table().decode_4bit(packed.data(), absmax.data(), kNf4.data(), first, count, 32, out.data());
      scalar().decode_4bit(packed.data(), absmax.data(), kNf4.data(), first, count, 32, expected.data());
      ASSERT_EQ(bits(out.values()), bits(expected.values())) << first << " " << count;
      ASSERT_TRUE(out.guards_intact());
    }
  }
}

}  // namespace
}  // namespace nibble
