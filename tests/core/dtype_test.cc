#include "core/dtype.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/error.h"
#include "support/files.h"

namespace nibble {
namespace {

// The value of a binary16 pattern by its definition: sign, 5 bits of exponent, 10 of fraction.
double half_value(uint32_t h) {
  const uint32_t exponent = (h >> 10) & 31, fraction = h & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, static_cast<int>(exponent) - 25);
  return (h & 0x8000) != 0 ? -magnitude : magnitude;
}

TEST(DType, WidensEveryFiniteHalfExactly) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    if ((h & 0x7c00) == 0x7c00) continue;
    ASSERT_EQ(double{f16_to_f32(static_cast<uint16_t>(h))}, half_value(h)) << h;
    ASSERT_EQ(std::signbit(f16_to_f32(static_cast<uint16_t>(h))), (h & 0x8000) != 0) << h;
  }
  EXPECT_EQ(f16_to_f32(0x7c00), std::numeric_limits<float>::infinity());
  EXPECT_EQ(f16_to_f32(0xfc00), -std::numeric_limits<float>::infinity());
}

TEST(DType, NarrowedHalvesComeBackAndNanStaysNan) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const auto half = static_cast<uint16_t>(h);
    const uint32_t magnitude = h & 0x7fff;
    const bool f16_same = f32_to_f16(f16_to_f32(half)) == half, bf16_same = f32_to_bf16(bf16_to_f32(half)) == half;
    ASSERT_TRUE(magnitude <= 0x7c00 ? f16_same : std::isnan(round_to_f16(f16_to_f32(half)))) << h;
    ASSERT_TRUE(magnitude <= 0x7f80 ? bf16_same : std::isnan(round_to_bf16(bf16_to_f32(half)))) << h;
  }
}

// Between two neighbours the midpoint goes to the even one, and what is a hair off it to the nearer.
template <class Narrow, class Widen>
void expect_rounds_to_nearest_even(uint32_t largest_finite, Narrow narrow, Widen widen) {
  for (uint32_t h = 0; h < largest_finite; ++h) {
    const float below = widen(static_cast<uint16_t>(h)), above = widen(static_cast<uint16_t>(h + 1));
    const auto middle = static_cast<float>((double{below} + double{above}) / 2);
    ASSERT_EQ(narrow(middle), (h & 1) != 0 ? h + 1 : h);
    ASSERT_EQ(narrow(std::nextafter(middle, below)), h);
    ASSERT_EQ(narrow(std::nextafter(middle, above)), h + 1);
    ASSERT_EQ(narrow(-middle), ((h & 1) != 0 ? h + 1 : h) | 0x8000);
  }
}

TEST(DType, RoundsToNearestEven) {
  expect_rounds_to_nearest_even(0x7bff, f32_to_f16, f16_to_f32);
  expect_rounds_to_nearest_even(0x7f7f, f32_to_bf16, bf16_to_f32);
}

TEST(DType, OverflowsToInfinity) {
  EXPECT_EQ(f32_to_f16(65519.996f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(-1e10f), 0xfc00);
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
}

TEST(DType, ArraysConvertFromUnalignedMemory) {
  const std::vector<float> values = {0.0f, -1.5f, 3.25f, 1000.0f};
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
    std::vector<std::byte> stored(values.size() * dtype_bytes(dtype) + 1);
    from_f32(dtype, values.data(), stored.data() + 1, 4);
    std::vector<float> back(4);
    to_f32(dtype, stored.data() + 1, back.data(), 4);
    EXPECT_EQ(back, values) << dtype_name(dtype);
  }
}

TEST(DType, NamesLeadBackToTheType) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64, DType::i8, DType::u8, DType::i16,
                            DType::i32, DType::i64, DType::boolean}) {
    EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
    EXPECT_EQ(parse_dtype(torch_dtype_name(dtype)), dtype);
    EXPECT_EQ(dtype_from_safetensors(safetensors_name(dtype)), dtype);
    EXPECT_EQ(is_float(dtype), dtype_name(dtype).substr(0, 2) == "fp" || dtype == DType::bf16);
  }
  EXPECT_EQ(dtype_from_safetensors("F8_E4M3"), std::nullopt);
  test::expect_error(ErrorCode::invalid_argument, "'fp8'", [] { parse_dtype("fp8"); });
  test::expect_error(ErrorCode::internal, "int8", [] { to_f32(DType::i8, nullptr, nullptr, 0); });
}

}  // namespace
}  // namespace nibble
