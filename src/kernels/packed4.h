#pragma once
// Quantized weights in the layout that products are fastest on, and the activations that go with it: 4-bit codes of any
// table of 16 levels, and 8-bit codes. Part of kernels.h.
//
// Weights: a record is 16 rows by 64 inputs, in lines of 64 bytes, each 16 words of 32 bits, one per row.
//   4 bits: 8 lines; in line j byte i of a word = code(8j + i) | code(8j + 4 + i) << 4
//   8 bits: 16 lines; in line j byte i of a word = code(4j + i), signed: the levels are the whole numbers
// Then what belongs to a group of 64, 32 or 16 inputs, for 16 rows each: the scales of the 1, 2 or 4 groups, and then
// the minimums of as many groups where a format has them. They are bf16, f16 or f32; or, as 256-value blocks of ggml
// have them, a number of f16 per row times a signed byte per group: in this case the f16 of the scales, those of the
// minimums, the bytes of the scales, those of the minimums. A weight is level * scale, or level * scale + minimum.
// Records lie one behind the other along the inputs, then along the rows. Rows added to fill 16 are 0.
//
// Activations: panels of 16 tokens; the last is of 1, 2, 4, 8 or 16, with tokens added that are 0. A panel of n tokens
// has a block per 64 inputs: words of 32 bits, each for n tokens, then what belongs to the block, for n tokens.
//   i8:  16 words (inputs 4d to 4d + 3), the scale (f32), the corrections for levels that were made unsigned: per group
//        -bias * (sum of its values) (i32), or, for instruction sets that add up a line of 8 inputs in 16 bits, per
//        line -bias * (sums of its values 0, 1, 4, 5 and 2, 3, 6, 7) (two i16), or none
//   i16: 32 words (of inputs 8j + e: e = 0 and 2, 1 and 3, 4 and 6, 5 and 7, for j = 0 to 7), the scale (f32)
//   f32: 64 words
//   where weights have minimums, behind it: per group the sum of its values, times the scale (f32)
// Values are x / scale rounded to nearest even. i16: the largest of a block becomes 5792, so that 64 products of 5792
// and 5792 fit 32 bits. i8: the largest becomes 127, or less when it takes that to keep neighbours (2i, 2i + 1) from
// exceeding 163 together, so that two products by a level of up to 200 fit 16 bits. A block with a NaN or an infinity
// has a scale of NaN and makes every output of its token NaN.
//
// Products: T = sum over a group of level * value, in integers for i8 and i16, the same on every instruction set. From
// there, output = unit * (... fma(T * scale of x, scale of w, sum so far) ...), group by group, each followed by
// fma(sum of x, minimum * (1 / unit), sum so far) where there are minimums; so i8 and i16 give the same bits on every
// instruction set. f32 adds up a group's products of exact levels in an order of its own.
#include <bit>
#include <cstdint>

namespace nibble {

constexpr int64_t kPackRows = 16;
constexpr int64_t kPackInputs = 64;
constexpr int64_t kPanelTokens = 16;
constexpr int kLevelBias = 100;  // i8 levels of 4-bit codes are -100 to 100; this makes them unsigned
constexpr int kCodeBias8 = 128;  // and this, 8-bit codes

/// The 16 levels in the precisions that products are computed in: level = exact = about i16 * i16_unit, i8 * i8_unit.
struct Levels4 {
  float exact[16];
  int16_t i16[16];
  int8_t i8[16];
  float i16_unit, i8_unit;
};

/// Rounds the levels: i16 to the number of steps of the largest one, 5664 to 5792, that has the least error, i8 to 80
/// to 100 steps. Whole numbers up to 15, for one, become exact.
Levels4 make_levels4(const float* levels) noexcept;

/// What the scales and minimums of a record are stored as; f16_i8: an f16 per row times a signed byte per group.
enum class ScaleType : int32_t { bf16, f16, f32, f16_i8 };

struct RecordLayout {
  int32_t code_bits = 4;  // or 8
  int32_t groups = 1;     // of a record: 1 (of 64 inputs), 2 (of 32) or 4 (of 16)
  ScaleType scale_type = ScaleType::bf16;
  int32_t minimums = 0;  // 1: every group has a minimum beside its scale
};

/// rows: how many are real; the records are for the next multiple of 16.
struct Packed4 {
  const uint8_t* records;
  const Levels4* levels;  // not used with 8 bits
  int64_t rows, k;        // k is a multiple of 64
  RecordLayout layout;
};

/// Rows of stored 4-bit weights (see decode_4bit) into records. The first row begins at element `first`, a multiple
/// of 64 like k. block: 32, for a layout of 2 groups, or a power of two >= 64, for 1. scale_type: f32, or bf16 where
/// the absmax fit (see fits_bf16).
struct Pack4 {
  const uint8_t* packed;
  const float* absmax;
  uint8_t* records;
  int64_t first, block;
  int64_t rows, k;
  RecordLayout layout;
};

/// What of a block of activations depends on the weights.
struct PanelLayout {
  int32_t groups = 1;
  int32_t bias = kLevelBias;  // what makes the levels unsigned
  int32_t corrections = 1;    // of i8: words of them, as many as groups, kBlockLines or 0
  int32_t sums = 0;           // 1: the groups' sums follow
};
constexpr int kBlockLines = 8;

/// Tokens into panels. x: [tokens, k], row stride ldx.
struct Activations4 {
  const float* x;
  uint32_t* panels;
  int64_t tokens, k, ldx;
  PanelLayout layout = {};
};

/// y[t * ldy + r] for t < tokens, r < w.rows. panels: as the function of the same name made them.
struct MatmulPacked4 {
  Packed4 w;
  const uint32_t* panels;
  float* y;
  int64_t tokens, ldy;
};

inline int64_t record_code_bytes(const RecordLayout& layout) { return kPackRows * kPackInputs * layout.code_bits / 8; }

/// Where the 16 values of scale or minimum n lie behind the codes: the scales are 0 to groups - 1, the minimums follow.
/// With f16_i8, the bytes; the f16 of the scales are at 0, those of the minimums behind them.
inline int64_t scale_offset(const RecordLayout& layout, int64_t n) {
  if (layout.scale_type == ScaleType::f16_i8) return kPackRows * (2 * (1 + layout.minimums) + n);
  return kPackRows * n * (layout.scale_type == ScaleType::f32 ? 4 : 2);
}

inline int64_t record_bytes(const RecordLayout& layout) {
  return record_code_bytes(layout) + scale_offset(layout, layout.groups * (1 + layout.minimums));
}
inline int64_t packed4_bytes(int64_t rows, int64_t k, const RecordLayout& layout) {
  return (rows + kPackRows - 1) / kPackRows * (k / kPackInputs) * record_bytes(layout);
}

/// Rows [begin, end); begin is a multiple of 16. How threads share a product.
inline Packed4 packed4_rows(Packed4 w, int64_t begin, int64_t end) {
  w.records += packed4_bytes(begin, w.k, w.layout);
  w.rows = end - begin;
  return w;
}

/// The panels that weights of a layout are multiplied with, where their products are corrected by groups, and by lines
/// (with 4 bits; codes of 8 bits then need no correction).
inline PanelLayout panels_by_groups(const RecordLayout& layout) noexcept {
  const int32_t bias = layout.code_bits == 8 ? kCodeBias8 : kLevelBias;
  return {.groups = layout.groups, .bias = bias, .corrections = layout.groups, .sums = layout.minimums};
}
inline PanelLayout panels_by_lines(const RecordLayout& layout) noexcept {
  const int32_t corrections = layout.code_bits == 8 ? 0 : kBlockLines;
  return {.groups = layout.groups, .bias = kLevelBias, .corrections = corrections, .sums = layout.minimums};
}

/// Whether every value can be kept as bf16: true of the absmax of bf16 weights.
inline bool fits_bf16(const float* values, int64_t count) {
  uint32_t lost = 0;
  for (int64_t i = 0; i < count; ++i) lost |= std::bit_cast<uint32_t>(values[i]) & 0xffffu;
  return lost == 0;
}

/// Words per token of a block of activations: the values, and the whole block.
enum class PanelType { i8, i16, f32 };
constexpr int64_t value_words(PanelType type) { return type == PanelType::i8 ? 16 : type == PanelType::i16 ? 32 : 64; }
constexpr int64_t block_words(PanelType type, const PanelLayout& layout) {
  return value_words(type) + (type == PanelType::f32 ? 0 : 1) + (type == PanelType::i8 ? layout.corrections : 0) +
         layout.groups * layout.sums;
}

/// Tokens of the panel that begins where this many are left.
inline int64_t panel_width(int64_t tokens_left) {
  return tokens_left >= kPanelTokens ? kPanelTokens
                                     : static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(tokens_left)));
}

/// Size of the panels of some tokens, in words of 32 bits.
inline int64_t panel_words(int64_t tokens, int64_t k, int64_t block_words) {
  const int64_t rest = tokens % kPanelTokens;
  return (tokens - rest + (rest == 0 ? 0 : panel_width(rest))) * (k / kPackInputs) * block_words;
}

}  // namespace nibble
