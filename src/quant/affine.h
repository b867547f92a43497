#pragma once
// Unsigned codes for activations: code = rne(x / scale) + zero_point, cut to 0..levels; zero is a code of its own.
// Source: ATen's ChooseQuantizationParams and fake_quantize.
#include <cstdint>

#include "kernels/codes.h"

namespace nibble {

struct AffineRange {
  float scale = 1.0f;
  int32_t zero_point = 0;
  bool operator==(const AffineRange&) const = default;
};

/// The smallest and the largest of some values.
Extent extent_of(const float* x, int64_t count);

/// Codes 0..levels over an extent, widened to hold zero; zero_point is 0 where the extent is not finite.
AffineRange choose_range(Extent extent, int levels);

/// Codes less 128, so that 8 unsigned bits fit signed kernels.
void quantize_affine(const float* x, int64_t count, const AffineRange& range, int levels, int8_t* codes);

}  // namespace nibble
