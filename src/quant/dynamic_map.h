#pragma once
// bitsandbytes' 8-bit floating maps for blocks of values under one scale: the scales of double quantization (signed)
// and the states of 8-bit optimizers (signed and unsigned). Arithmetic as its CPU backend: a value is first snapped to
// a uniform grid of 65536 steps on [-1, 1], so near zero the code is not always the nearest one.
#include <array>
#include <cstdint>
#include <span>

namespace nibble {

enum class DynamicMap { with_sign, without_sign };

/// The 256 levels, ascending; with sign code 127 is zero, without sign code 0.
const std::array<float, 256>& dynamic_map_levels(DynamicMap map);

/// Codes of a block, to be multiplied by the returned scale, its largest |value|. All zero or NaN: codes 0.
float quantize_dynamic_block(DynamicMap map, std::span<const float> values, uint8_t* codes);

}  // namespace nibble
