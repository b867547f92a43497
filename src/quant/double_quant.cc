#include "quant/double_quant.h"

#include <algorithm>
#include <vector>

#include "core/checked.h"
#include "quant/dynamic_map.h"

namespace nibble {

const std::array<float, 256>& signed_dynamic_map() { return dynamic_map_levels(DynamicMap::with_sign); }

float mean_of(std::span<const float> absmax) {
  double sum = 0;
  for (const float a : absmax) sum += a;
  return absmax.empty() ? 0.0f : static_cast<float>(sum / static_cast<double>(absmax.size()));
}

NestedScales quantize_nested(std::span<const float> absmax, float offset) {
  const auto count = static_cast<int64_t>(absmax.size());
  std::vector<float> centred(absmax.begin(), absmax.end());
  for (float& a : centred) a -= offset;
  NestedScales out;
  out.codes = Tensor(DType::u8, {count});
  out.nested_absmax = Tensor(DType::f32, {ceil_div(count, kNestedBlock)});
  for (int64_t begin = 0; begin < count; begin += kNestedBlock) {
    const auto length = static_cast<size_t>(std::min(kNestedBlock, count - begin));
    out.nested_absmax.f32()[begin / kNestedBlock] =
        quantize_dynamic_block(DynamicMap::with_sign, std::span(centred).subspan(static_cast<size_t>(begin), length),
                               out.codes.data<uint8_t>() + begin);
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
