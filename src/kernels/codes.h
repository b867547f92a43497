#pragma once
// Codes of 8 and 16 bits: their exact products, the codes of activations, what becomes of the sums. Part of kernels.h.
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

// Whole numbers of 16 bits in the place of f32. So many products of the largest stay below 2^31.
inline constexpr int32_t kPairX = 4095, kPairW = 2047;
inline constexpr int64_t kPairTerms = 256;
inline constexpr float kPairSmallest = 1e-30f;  // a scale stands for at least this as its largest value

/// y[t * ldy + c] = fma(sum, x_scale[t] * w_scale[c], with `add` what y held, else 0), sum the exact sum over k of
/// x[t * ldx + k] * w(k, c), rounded to f32. w(k, c) is half k % 2 of the word w[k / 2 * ldw + c], the low one first.
/// |x| <= kPairX, |w| <= kPairW, k <= kPairTerms and even.
struct PairSums {
  const int16_t* x;
  const uint32_t* w;
  const float *x_scale, *w_scale;
  float* y;
  int64_t tokens, k, cols;
  int64_t ldx, ldw, ldy;
  bool add = false;
};

/// The w of PairSums from f32: scale[c] = largest / kPairW, where largest is the greatest of kPairSmallest and all
/// |x[k * ldx + c]|, and w(k, c) = x[k * ldx + c] * (kPairW / largest), rounded to nearest even. A value that is not
/// finite becomes 0 and its column's scale infinite or NaN. Behind an odd k follows a row of zeros.
struct PairColumns {
  const float* x;
  uint32_t* w;
  float* scale;
  int64_t k, cols;
  int64_t ldx, ldw;
};

}  // namespace nibble
