#pragma once
// 8-bit codes: their exact products, the codes of activations, what becomes of the sums. Part of kernels.h.
#include <cstdint>

namespace nibble {

/// The product of matmul_f32 with exact 32-bit sums of int8 products. k < 131,072, so that no sum can overflow even
/// when every value is -128.
struct MatmulI8 {
  const int8_t* x;
  const int8_t* w;
  int32_t* y;
  int64_t tokens, rows, k;
  int64_t ldx, ldw, ldy;
};

/// The product of matmul_i8 for many tokens: y[t * ldy + c] = sum over k of x[t * ldx + k] * code(k, c), exact. Byte i
/// of the word w[j * ldw + c] is code(4j + i, c) + 128. k: a multiple of 4, below 131,072.
struct CodeSums {
  const int8_t* x;
  const uint32_t* w;
  int32_t* y;
  int64_t tokens, k, cols;
  int64_t ldx, ldw, ldy;
};

/// y[i] = float(sums[i] + offset * column_sums[i]) * (scale * scales[i]) + bias[i]; without bias, nothing is added.
struct ScaledSums {
  const int32_t *sums, *column_sums;
  int32_t offset;
  float scale;
  const float *scales, *bias;
  float* y;
};

/// Codes less 128 of values: round(clamp(x * inverse, low - 1, high + 1)), to nearest even, clamped to low..high, plus
/// offset. NaN becomes the lowest.
struct AffineCodes {
  float inverse, low, high, offset;
};

struct Extent {
  float low, high;
};

}  // namespace nibble
