#include "quant/dynamic_map.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace nibble {
namespace {

constexpr int kGridSteps = 65536;

using Levels = std::array<float, 256>;

// bitsandbytes/functional.py create_dynamic_map(signed, 7, 8) in the evaluation order that gives its published bits:
// for i = 0..6 the magnitudes 10^(i-6) * (centre of the j-th of n equal intervals of [0.1, 1]) with n = 2^i and both
// signs, or n = 2^(i+1) and one sign; and 0 and 1.
Levels make_levels(DynamicMap map) {
  const bool has_sign = map == DynamicMap::with_sign;
  Levels levels = {};
  size_t count = 0;
  levels[count++] = 0.0f;
  levels[count++] = 1.0f;
  for (int i = 0; i < 7; ++i) {
    const int intervals = 1 << (has_sign ? i : i + 1);
    const float step = (1.0f - 0.1f) / static_cast<float>(intervals);
    const auto boundary = [&](int j) {
      return j < (intervals + 1) / 2 ? std::fma(step, static_cast<float>(j), 0.1f)
                                     : std::fma(-step, static_cast<float>(intervals - j), 1.0f);
    };
    const auto power = static_cast<float>(std::pow(10.0, i - 6));
    for (int j = 0; j < intervals; ++j) {
      const float magnitude = power * ((boundary(j) + boundary(j + 1)) / 2.0f);
      levels[count++] = magnitude;
      if (has_sign) levels[count++] = -magnitude;
    }
  }
  std::sort(levels.begin(), levels.end());
  return levels;
}

// Code of every step of the uniform grid.
std::vector<uint8_t> make_grid_codes(const Levels& levels) {
  std::vector<uint8_t> codes(kGridSteps);
  size_t code = 0;
  for (int i = 0; i < kGridSteps; ++i) {
    const float value = -1.0f + (2.0f * static_cast<float>(i)) / static_cast<float>(kGridSteps - 1);
    while (code + 1 < levels.size() && 0.5f * (levels[code] + levels[code + 1]) < value) ++code;
    codes[static_cast<size_t>(i)] = static_cast<uint8_t>(code);
  }
  return codes;
}

const std::vector<uint8_t>& grid_codes(DynamicMap map) {
  static const std::vector<uint8_t> with_sign = make_grid_codes(dynamic_map_levels(DynamicMap::with_sign));
  static const std::vector<uint8_t> without_sign = make_grid_codes(dynamic_map_levels(DynamicMap::without_sign));
  return map == DynamicMap::with_sign ? with_sign : without_sign;
}

}  // namespace

const Levels& dynamic_map_levels(DynamicMap map) {
  static const Levels with_sign = make_levels(DynamicMap::with_sign);
  static const Levels without_sign = make_levels(DynamicMap::without_sign);
  return map == DynamicMap::with_sign ? with_sign : without_sign;
}

float quantize_dynamic_block(DynamicMap map, std::span<const float> values, uint8_t* codes) {
  const std::vector<uint8_t>& grid = grid_codes(map);
  float largest = 0.0f;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  if (largest == 0.0f) {
    std::fill_n(codes, values.size(), uint8_t{0});
    return largest;
  }
  const float inverse = 1.0f / largest;
  for (size_t i = 0; i < values.size(); ++i) {
    const float scaled = values[i] * inverse;
    const float value = std::isnan(scaled) ? 0.0f : std::clamp(scaled, -1.0f, 1.0f);
    const float step = (value + 1.0f) * 0.5f * static_cast<float>(kGridSteps - 1) + 0.5f;
    codes[i] = std::isnan(scaled) ? uint8_t{0} : grid[static_cast<size_t>(step)];
  }
  return largest;
}

}  // namespace nibble
