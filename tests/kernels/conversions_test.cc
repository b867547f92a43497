#include <cmath>
#include <limits>
#include <numeric>

#include "core/dtype.h"
#include "kernels/every_isa.h"

namespace nibble {
namespace {

class Conversions : public EveryIsa {};
NIBBLE_EVERY_ISA(Conversions);

// Floats where rounding is decided: the neighbourhood of every half, of every midpoint between halves, and noise.
std::vector<float> edge_floats() {
  std::vector<float> values;
  for (uint32_t h = 0; h < 0x10000; ++h) {
    for (const float x : {f16_to_f32(static_cast<uint16_t>(h)), bf16_to_f32(static_cast<uint16_t>(h))}) {
      const auto u = std::bit_cast<uint32_t>(x);
      for (const uint32_t offset : {0u, 1u, 0xfffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffffffu}) {
        values.push_back(std::bit_cast<float>(u + offset));
      }
    }
  }
  std::mt19937 random(1);
  for (int i = 0; i < 200'000; ++i) values.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
  return values;
}

template <class Narrow>
void expect_narrowed_as(const char* what, void (*convert)(const float*, uint16_t*, int64_t) noexcept, Narrow narrow) {
  const std::vector<float> x = edge_floats();
  std::vector<uint16_t> y(x.size());
  convert(x.data(), y.data(), static_cast<int64_t>(x.size()));
  int64_t wrong = 0;
  for (size_t i = 0; i < x.size(); ++i) wrong += y[i] != narrow(x[i]);
  EXPECT_EQ(wrong, 0) << what << ": of " << x.size();
}

TEST_P(Conversions, WidenAllHalvesAsTheScalarOnes) {
  std::vector<uint16_t> halves(0x10000);
  std::iota(halves.begin(), halves.end(), uint16_t{0});
  std::vector<float> from_f16(halves.size()), from_bf16(halves.size());
  table().f16_to_f32(halves.data(), from_f16.data(), 0x10000);
  table().bf16_to_f32(halves.data(), from_bf16.data(), 0x10000);
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const auto half = static_cast<uint16_t>(h);
    ASSERT_EQ(std::bit_cast<uint32_t>(from_f16[h]), std::bit_cast<uint32_t>(f16_to_f32(half))) << h;
    ASSERT_EQ(std::bit_cast<uint32_t>(from_bf16[h]), std::bit_cast<uint32_t>(bf16_to_f32(half))) << h;
  }
}

TEST_P(Conversions, NarrowAsTheScalarOnes) {
  expect_narrowed_as("f16", table().f32_to_f16, f32_to_f16);
  expect_narrowed_as("bf16", table().f32_to_bf16, f32_to_bf16);
}

TEST_P(Conversions, HandleEverySizeAndUnalignedStarts) {
  for (const int64_t count : test_sizes()) {
    Guarded<float> x = gaussian(count, static_cast<uint32_t>(count));
    Guarded<uint16_t> f16(count), bf16(count);
    Guarded<float> f16_back(count), bf16_back(count);
    table().f32_to_f16(x.data(), f16.data(), count);
    table().f32_to_bf16(x.data(), bf16.data(), count);
    table().f16_to_f32(f16.data(), f16_back.data(), count);
    table().bf16_to_f32(bf16.data(), bf16_back.data(), count);
    for (int64_t i = 0; i < count; ++i) {
      ASSERT_EQ(f16_back[i], round_to_f16(x[i])) << count << " " << i;
      ASSERT_EQ(bf16_back[i], round_to_bf16(x[i])) << count << " " << i;
    }
    ASSERT_TRUE(f16.guards_intact() && bf16.guards_intact() && f16_back.guards_intact() && bf16_back.guards_intact());
  }
}

TEST_P(Conversions, QuantizeI8RoundsClampsAndZeroesWhatIsNotFinite) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 126.5f, 127.4f, 200, -127.6f, -1e30f, inf, -inf, nan};
  const std::vector<int8_t> expected = {0, 2, 2, 0, -2, 126, 127, 127, -127, -127, 0, 0, 0};
  std::vector<int8_t> q(x.size());
  table().quantize_i8(x.data(), 1.0f, q.data(), static_cast<int64_t>(x.size()));
  EXPECT_EQ(q, expected);
  const std::vector<float> overflow = {0.0f, 3e38f, -3e38f};
  q.resize(3);
  table().quantize_i8(overflow.data(), 1e10f, q.data(), 3);
  EXPECT_EQ(q, (std::vector<int8_t>{0, 127, -127}));
  table().quantize_i8(overflow.data(), inf, q.data(), 3);
  EXPECT_EQ(q, (std::vector<int8_t>{0, 127, -127}));
}

TEST_P(Conversions, QuantizeI8AndAbsmaxMatchScalarOnEverySize) {
  for (const int64_t count : test_sizes()) {
    Guarded<float> x = gaussian(count, static_cast<uint32_t>(count), 50.0f);
    Guarded<int8_t> q(count), expected(count);
    table().quantize_i8(x.data(), 1.3f, q.data(), count);
    scalar().quantize_i8(x.data(), 1.3f, expected.data(), count);
    ASSERT_EQ(q.values(), expected.values());
    ASSERT_TRUE(q.guards_intact());
    float largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(x[i]));
    ASSERT_EQ(table().absmax(x.data(), count), largest);
  }
}

TEST_P(Conversions, QuantizeI16RoundsClampsAndMatchesScalarOnEverySize) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x = {0.5f, 1.5f, -2.5f, 4094.5f, 4095.4f, 5000, -1e30f, inf, -inf, nan};
  const std::vector<int16_t> expected = {0, 2, -2, 4094, 4095, 4095, -4095, 0, 0, 0};
  std::vector<int16_t> q(x.size());
  table().quantize_i16(x.data(), 1.0f, q.data(), static_cast<int64_t>(x.size()));
  EXPECT_EQ(q, expected);
  for (const int64_t count : test_sizes()) {
    Guarded<float> values = gaussian(count, static_cast<uint32_t>(count), 1500.0f);
    Guarded<int16_t> found(count), as_scalar(count);
    table().quantize_i16(values.data(), 1.3f, found.data(), count);
    scalar().quantize_i16(values.data(), 1.3f, as_scalar.data(), count);
    ASSERT_EQ(found.values(), as_scalar.values());
    ASSERT_TRUE(found.guards_intact());
  }
}

TEST_P(Conversions, AbsmaxIsNanWhenAnyValueIs) {
  for (int64_t position = 0; position < 67; ++position) {
    Guarded<float> x = gaussian(67, 3);
    x[position] = -std::numeric_limits<float>::infinity();
    EXPECT_EQ(table().absmax(x.data(), 67), std::numeric_limits<float>::infinity());
    x[position] = -std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(std::isnan(table().absmax(x.data(), 67))) << position;
  }
  EXPECT_EQ(table().absmax(nullptr, 0), 0.0f);
}

}  // namespace
}  // namespace nibble
