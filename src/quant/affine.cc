#include "quant/affine.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nibble {
namespace {

constexpr double kSmallestScale = 6.1e-5;   // ATen's SMALL_SCALE_THRESHOLD
constexpr float kRoundMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to nearest even

}  // namespace

Extent extent_of(const float* x, int64_t count) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr int64_t kLanes = 16;  // apart from each other, so that the compiler can use vectors
  float low[kLanes], high[kLanes];
  std::fill_n(low, kLanes, kInfinity);
  std::fill_n(high, kLanes, -kInfinity);
  for (int64_t i = 0; i + kLanes <= count; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {  // NaN compares false and so counts for nothing
      low[j] = x[i + j] < low[j] ? x[i + j] : low[j];
      high[j] = x[i + j] > high[j] ? x[i + j] : high[j];
    }
  }
  Extent extent = {.low = *std::min_element(low, low + kLanes), .high = *std::max_element(high, high + kLanes)};
  for (int64_t i = count / kLanes * kLanes; i < count; ++i) {
    extent.low = std::min(extent.low, x[i]);
    extent.high = std::max(extent.high, x[i]);
  }
  return extent;
}

AffineRange choose_range(Extent extent, int levels) {
  const float low = std::min(extent.low, 0.0f), high = std::max(extent.high, 0.0f);
  double scale = (static_cast<double>(high) - low) / levels;
  if (static_cast<float>(scale) == 0.0f || std::isinf(1.0f / static_cast<float>(scale))) scale = 0.1;
  const double zero_point = std::nearbyint(-static_cast<double>(low) / scale);
  return {.scale = static_cast<float>(std::max(scale, kSmallestScale)),
          .zero_point = static_cast<int32_t>(std::clamp(zero_point, 0.0, static_cast<double>(levels)))};
}

void quantize_affine(const float* x, int64_t count, const AffineRange& range, int levels, int8_t* codes) {
  const float inverse = 1.0f / range.scale;
  const auto low = static_cast<float>(-range.zero_point), high = static_cast<float>(levels - range.zero_point);
  const int32_t offset = range.zero_point - 128;
  for (int64_t i = 0; i < count; ++i) {
    const float clamped = std::min(std::max(low - 1.0f, x[i] * inverse), high + 1.0f);  // NaN becomes the lowest
    const float rounded = std::min(std::max((clamped + kRoundMagic) - kRoundMagic, low), high);
    codes[i] = static_cast<int8_t>(static_cast<int32_t>(rounded) + offset);
  }
}

}  // namespace nibble
