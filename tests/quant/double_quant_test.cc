#include "quant/double_quant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "support/sha256.h"

namespace nibble {
namespace {

NestedView view(const NestedScales& nested, float offset) {
  return {nested.codes.data<uint8_t>(), nested.nested_absmax.f32(), signed_dynamic_map().data(), offset};
}

TEST(DynamicMap, HasThePublishedBits) {
  const auto& map = signed_dynamic_map();
  EXPECT_EQ(test::sha256(std::as_bytes(std::span(map))).substr(0, 16), "e732639a65f497b4");
  EXPECT_EQ(map[0], -0.992968738079071f);
  EXPECT_EQ(map[127], 0.0f);
  EXPECT_EQ(map[255], 1.0f);
}

// The map's widest gap is 0.0143 of the scale, and snapping to a 65,536-step grid adds at most one step.
TEST(DoubleQuant, DecodesWithinHalfAGapOfTheMap) {
  std::vector<float> absmax;
  for (int i = 0; i < 1000; ++i) absmax.push_back(0.5f + 0.4f * std::sin(static_cast<float>(i)));
  const float offset = mean_of(absmax);
  const NestedScales nested = quantize_nested(absmax, offset);
  std::vector<float> decoded(absmax.size());
  decode_nested(view(nested, offset), 0, 1000, decoded.data());
  for (size_t i = 0; i < absmax.size(); ++i) {
    const float scale = nested.nested_absmax.f32()[i / 256];
    EXPECT_LE(std::abs(decoded[i] - absmax[i]), scale * (0.0143f / 2 + 2.0f / 65535)) << i;
  }
}

TEST(DoubleQuant, DecodesARangeAsItDecodesTheWhole) {
  std::vector<float> absmax(700, 1.0f);
  for (size_t i = 0; i < absmax.size(); ++i) absmax[i] += static_cast<float>(i % 17);
  const float offset = mean_of(absmax);
  const NestedScales nested = quantize_nested(absmax, offset);
  std::vector<float> all(700), part(100);
  decode_nested(view(nested, offset), 0, 700, all.data());
  decode_nested(view(nested, offset), 250, 100, part.data());
  for (size_t i = 0; i < part.size(); ++i) EXPECT_EQ(part[i], all[250 + i]);
}

TEST(DoubleQuant, EqualScalesDecodeExactly) {
  const std::vector<float> absmax(300, 0.125f);
  const NestedScales nested = quantize_nested(absmax, mean_of(absmax));
  std::vector<float> decoded(300);
  decode_nested(view(nested, mean_of(absmax)), 0, 300, decoded.data());
  for (const float value : decoded) EXPECT_EQ(value, 0.125f);
}

}  // namespace
}  // namespace nibble
