#pragma once
// Double (nested) quantization: the absmax values of a 4-bit matrix, less their mean, in 8 bits with bitsandbytes'
// signed dynamic map and one f32 scale per 256 of them. QLoRA, arXiv 2305.14314, section 3; the arithmetic follows
// bitsandbytes' CPU backend (docs/formats.md says where its backends differ).
#include <array>
#include <cstdint>
#include <span>

#include "core/tensor.h"

namespace nibble {

inline constexpr int64_t kNestedBlock = 256;

/// The 256 levels of the signed dynamic map, ascending; code 127 is zero.
const std::array<float, 256>& signed_dynamic_map();

struct NestedScales {
  Tensor codes;          // u8 [n]
  Tensor nested_absmax;  // f32 [ceil(n / 256)]
};

/// What decoding needs, wherever it lies.
struct NestedView {
  const uint8_t* codes;
  const float* nested_absmax;
  const float* map;  // 256 levels
  float offset;
};

/// The mean, summed in double: bitsandbytes sums in f32 in an order that depends on the machine, so its offset can
/// differ in the last bits (relative to the largest absmax by at most n * 2^-24, in practice by 1e-7).
float mean_of(std::span<const float> absmax);

NestedScales quantize_nested(std::span<const float> absmax, float offset);

/// out[i] = map[codes[first + i]] * nested_absmax[(first + i) / 256] + offset, each operation rounded to f32.
void decode_nested(const NestedView& nested, int64_t first, int64_t count, float* out);

}  // namespace nibble
