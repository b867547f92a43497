#pragma once
// 4-bit weights in the layout that products are fastest on, for every table of 16 levels, and the activations that go
// with it. Part of kernels.h.
//
// Weights: a record is 16 rows by 64 inputs.
//   8 lines of 64 bytes; line j holds 16 dwords, one per row; byte i of a dword = code(8j + i) | code(8j + 4 + i) << 4
//   then the 16 rows' scales, as bf16 when that loses nothing (544 bytes: 4.25 bits per weight), else f32 (576)
// Records lie one behind the other along the inputs, then along the rows. Rows added to fill 16 have scale 0.
//
// Activations: panels of 16 tokens; the last is of 1, 2, 4, 8 or 16, with tokens added that are 0. A panel of n tokens
// has a block per 64 inputs: words of 32 bits, each for n tokens, then what belongs to the block, for n tokens.
//   i8:  16 words (inputs 4d to 4d + 3), the scale (f32), -kLevelBias * (sum of the 64 values) (i32)
//   i16: 32 words (of inputs 8j + e: e = 0 and 2, 1 and 3, 4 and 6, 5 and 7, for j = 0 to 7), the scale (f32)
//   f32: 64 words
// Values are x / scale rounded to nearest even. i16: the largest of a block becomes 5792, so that 64 products of 5792
// and 5792 fit 32 bits. i8: the largest becomes 127, or less when it takes that to keep neighbours (2i, 2i + 1) from
// exceeding 163 together, so that two products by a level of up to 200 fit 16 bits. A block with a NaN or an infinity
// has a scale of NaN and makes every output of its token NaN.
//
// Products: T = sum over a block of level * value, in integers for i8 and i16, the same on every instruction set. From
// there, output = unit * (... fma(T * scale of x, scale of w, sum so far) ...), block by block, so i8 and i16 give the
// same bits on every instruction set. f32 adds up a block's products of exact levels in an order of its own.
#include <bit>
#include <cstdint>

namespace nibble {

constexpr int64_t kPackRows = 16;
constexpr int64_t kPackInputs = 64;
constexpr int64_t kPanelTokens = 16;
constexpr int kLevelBias = 100;  // i8 levels are -100 to 100; this makes them unsigned

/// The 16 levels in the precisions that products are computed in: level = exact = about i16 * i16_unit, i8 * i8_unit.
struct Levels4 {
  float exact[16];
  int16_t i16[16];
  int8_t i8[16];
  float i16_unit, i8_unit;
};

/// Rounds the levels: i16 to 5792 steps of the largest one, i8 to the number of steps, 80 to 100, with the least error.
Levels4 make_levels4(const float* levels) noexcept;

/// scale_bytes: 2 (bf16) or 4 (f32). rows: how many are real; the records are for the next multiple of 16.
struct Packed4 {
  const uint8_t* records;
  const Levels4* levels;
  int64_t rows, k;  // k is a multiple of 64
  int64_t scale_bytes;
};

/// Rows of stored 4-bit weights (see decode_4bit) into records. The first row begins at element `first`, a multiple
/// of 64 like k; block is a power of two >= 64. With scale_bytes 2, absmax must fit (see fits_bf16).
struct Pack4 {
  const uint8_t* packed;
  const float* absmax;
  uint8_t* records;
  int64_t first, block;
  int64_t rows, k;
  int64_t scale_bytes;
};

/// Tokens into panels. x: [tokens, k], row stride ldx.
struct Activations4 {
  const float* x;
  uint32_t* panels;
  int64_t tokens, k, ldx;
};

/// y[t * ldy + r] for t < tokens, r < w.rows. panels: as the function of the same name made them.
struct MatmulPacked4 {
  Packed4 w;
  const uint32_t* panels;
  float* y;
  int64_t tokens, ldy;
};

inline int64_t packed4_record_bytes(int64_t scale_bytes) {
  return kPackRows * kPackInputs / 2 + kPackRows * scale_bytes;
}
inline int64_t packed4_bytes(int64_t rows, int64_t k, int64_t scale_bytes) {
  return (rows + kPackRows - 1) / kPackRows * (k / kPackInputs) * packed4_record_bytes(scale_bytes);
}

/// Rows [begin, end); begin is a multiple of 16. How threads share a product.
inline Packed4 packed4_rows(Packed4 w, int64_t begin, int64_t end) {
  w.records += packed4_bytes(begin, w.k, w.scale_bytes);
  w.rows = end - begin;
  return w;
}

/// Whether every value can be kept as bf16: true of the absmax of bf16 weights.
inline bool fits_bf16(const float* values, int64_t count) {
  uint32_t lost = 0;
  for (int64_t i = 0; i < count; ++i) lost |= std::bit_cast<uint32_t>(values[i]) & 0xffffu;
  return lost == 0;
}

/// Words per token of a block of activations.
constexpr int64_t kWordsI8 = 18, kWordsI16 = 33, kWordsF32 = 64;

/// Tokens of the panel that begins where this many are left.
inline int64_t panel_width(int64_t tokens_left) {
  return tokens_left >= kPanelTokens ? kPanelTokens
                                     : static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(tokens_left)));
}

/// Size of the panels of some tokens, in words of 32 bits; block_words is one of the constants above.
inline int64_t panel_words(int64_t tokens, int64_t k, int64_t block_words) {
  const int64_t rest = tokens % kPanelTokens;
  return (tokens - rest + (rest == 0 ? 0 : panel_width(rest))) * (k / kPackInputs) * block_words;
}

}  // namespace nibble
