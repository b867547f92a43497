#include "quant/double_quant.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/checked.h"

namespace nibble {
namespace {

constexpr int kGridSteps = 65536;

// bitsandbytes/functional.py create_dynamic_map(signed=True, 7, 8) in the evaluation order that gives its published
// bits: for i = 0..6 the magnitudes 10^(i-6) * (centre of the j-th of 2^i equal intervals of [0.1, 1]), both signs,
// and 0 and 1.
std::array<float, 256> make_signed_dynamic_map() {
  std::array<float, 256> map = {};
  size_t count = 0;
  map[count++] = 0.0f;
  map[count++] = 1.0f;
  for (int i = 0; i < 7; ++i) {
    const int intervals = 1 << i;
    const float step = (1.0f - 0.1f) / static_cast<float>(intervals);
    const auto boundary = [&](int j) {
      return j < (intervals + 1) / 2 ? std::fma(step, static_cast<float>(j), 0.1f)
                                     : std::fma(-step, static_cast<float>(intervals - j), 1.0f);
    };
    const auto power = static_cast<float>(std::pow(10.0, i - 6));
    for (int j = 0; j < intervals; ++j) {
      const float magnitude = power * ((boundary(j) + boundary(j + 1)) / 2.0f);
      map[count++] = magnitude;
      map[count++] = -magnitude;
    }
  }
  std::sort(map.begin(), map.end());
  return map;
}

// Code of every step of the uniform grid on [-1, 1] to which bitsandbytes' CPU quantizer first snaps a value.
std::vector<uint8_t> make_grid_codes() {
  const auto& map = signed_dynamic_map();
  std::vector<uint8_t> codes(kGridSteps);
  size_t code = 0;
  for (int i = 0; i < kGridSteps; ++i) {
    const float value = -1.0f + (2.0f * static_cast<float>(i)) / static_cast<float>(kGridSteps - 1);
    while (code + 1 < map.size() && 0.5f * (map[code] + map[code + 1]) < value) ++code;
    codes[static_cast<size_t>(i)] = static_cast<uint8_t>(code);
  }
  return codes;
}

void quantize_block(std::span<const float> absmax, float offset, const uint8_t* grid_codes, uint8_t* codes,
                    float* scale) {
  float largest = 0.0f;
  for (const float a : absmax) largest = std::max(largest, std::fabs(a - offset));
  *scale = largest;
  if (largest == 0.0f) {
    std::fill_n(codes, absmax.size(), uint8_t{0});
    return;
  }
  const float inverse = 1.0f / largest;
  for (size_t i = 0; i < absmax.size(); ++i) {
    const float scaled = (absmax[i] - offset) * inverse;
    const float value = std::isnan(scaled) ? 0.0f : std::clamp(scaled, -1.0f, 1.0f);
    const float step = (value + 1.0f) * 0.5f * static_cast<float>(kGridSteps - 1) + 0.5f;
    codes[i] = std::isnan(scaled) ? uint8_t{0} : grid_codes[static_cast<size_t>(step)];
  }
}

}  // namespace

const std::array<float, 256>& signed_dynamic_map() {
  static const std::array<float, 256> map = make_signed_dynamic_map();
  return map;
}

float mean_of(std::span<const float> absmax) {
  double sum = 0;
  for (const float a : absmax) sum += a;
  return absmax.empty() ? 0.0f : static_cast<float>(sum / static_cast<double>(absmax.size()));
}

NestedScales quantize_nested(std::span<const float> absmax, float offset) {
  static const std::vector<uint8_t> grid_codes = make_grid_codes();
  const auto count = static_cast<int64_t>(absmax.size());
  NestedScales out;
  out.codes = Tensor(DType::u8, {count});
  out.nested_absmax = Tensor(DType::f32, {ceil_div(count, kNestedBlock)});
  for (int64_t begin = 0; begin < count; begin += kNestedBlock) {
    const auto length = static_cast<size_t>(std::min(kNestedBlock, count - begin));
    quantize_block(absmax.subspan(static_cast<size_t>(begin), length), offset, grid_codes.data(),
                   out.codes.data<uint8_t>() + begin, out.nested_absmax.f32() + begin / kNestedBlock);
  }
  return out;
}

void decode_nested(const NestedView& nested, int64_t first, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = first + i;
    out[i] = nested.map[nested.codes[at]] * nested.nested_absmax[at / kNestedBlock] + nested.offset;
  }
}

}  // namespace nibble
