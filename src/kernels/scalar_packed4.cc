// Packed weights in portable C++: the layout as packed4.h draws it, written to be read.
#include "kernels/scalar_packed4.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "core/dtype.h"

namespace nibble {
namespace {

constexpr int64_t kLineBytes = 64;

double rounding_error(const float* levels, double largest, double steps) {
  double error = 0;
  for (int i = 0; i < 16; ++i) {
    const double exact = double{levels[i]} / largest;
    const double difference = std::nearbyint(exact * steps) / steps - exact;
    error += difference * difference;
  }
  return error;
}

int code4_at(const uint8_t* record, int64_t row, int64_t input) {
  const int64_t within = input % 8;
  const int byte = record[input / 8 * kLineBytes + row * 4 + within % 4];
  return within >= 4 ? byte >> 4 : byte & 15;
}

int8_t code8_at(const uint8_t* record, int64_t row, int64_t input) {
  return static_cast<int8_t>(record[input / 4 * kLineBytes + row * 4 + input % 4]);
}

template <class T>
T value_at(const uint8_t* values, int64_t row) {
  T value;
  std::memcpy(&value, values + row * static_cast<int64_t>(sizeof value), sizeof value);
  return value;
}

/// Scale or minimum n of a row, as scale_offset counts them.
float scale_at(const uint8_t* record, int64_t row, const RecordLayout& layout, int64_t n) {
  const uint8_t* scales = record + record_code_bytes(layout);
  const uint8_t* values = scales + scale_offset(layout, n);
  switch (layout.scale_type) {
    case ScaleType::bf16: return bf16_to_f32(value_at<uint16_t>(values, row));
    case ScaleType::f16: return f16_to_f32(value_at<uint16_t>(values, row));
    case ScaleType::f32: return value_at<float>(values, row);
    case ScaleType::f16_i8: break;
  }
  const float common = f16_to_f32(value_at<uint16_t>(scales + n / layout.groups * 2 * kPackRows, row));
  return common * static_cast<float>(value_at<int8_t>(values, row));
}

void set_scale(uint8_t* record, int64_t row, const RecordLayout& layout, int64_t n, float scale) {
  uint8_t* scales = record + record_code_bytes(layout) + scale_offset(layout, n);
  const auto upper = static_cast<uint16_t>(std::bit_cast<uint32_t>(scale) >> 16);
  if (layout.scale_type == ScaleType::bf16) {
    std::memcpy(scales + row * 2, &upper, sizeof upper);
  } else {
    std::memcpy(scales + row * 4, &scale, sizeof scale);
  }
}

const uint8_t* record_of(const Packed4& w, int64_t row, int64_t block) {
  return w.records + (row / kPackRows * (w.k / kPackInputs) + block) * record_bytes(w.layout);
}

// Nibbles of a word, from the lowest: c1 c0 c3 c2 c5 c4 c7 c6, as stored, to c0 c4 c1 c5 c2 c6 c3 c7, as in a record.
uint32_t reordered(uint32_t stored) {
  uint32_t v = (stored & 0x0f0f0f0fu) << 4 | (stored >> 4 & 0x0f0f0f0fu);
  uint32_t swap = (v ^ v >> 8) & 0x0000ff00u;
  v ^= swap ^ swap << 8;
  swap = (v ^ v >> 4) & 0x00f000f0u;
  return v ^ swap ^ swap << 4;
}

void pack_row(const Pack4& a, int64_t row) {
  const int64_t bytes = record_bytes(a.layout), group_inputs = kPackInputs / a.layout.groups;
  uint8_t* record = a.records + row / kPackRows * (a.k / kPackInputs) * bytes;
  for (int64_t k = 0; k < a.k; k += kPackInputs, record += bytes) {
    const int64_t element = a.first + row * a.k + k;
    for (int64_t j = 0; j < kPackInputs / 8; ++j) {
      uint32_t word;
      std::memcpy(&word, a.packed + element / 2 + 4 * j, sizeof word);
      word = reordered(word);
      std::memcpy(record + j * kLineBytes + row % kPackRows * 4, &word, sizeof word);
    }
    for (int64_t g = 0; g < a.layout.groups; ++g) {
      set_scale(record, row % kPackRows, a.layout, g, a.absmax[(element + g * group_inputs) / a.block]);
    }
  }
}

#include "kernels/activations4-inl.h"

float largest_of(const float* x) {  // NaN when there is one
  uint32_t largest = 0;
  for (int64_t i = 0; i < kPackInputs; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  return std::bit_cast<float>(largest);
}

float largest_mean_of_neighbours(const float* x) {
  float largest = 0;
  for (int64_t i = 0; i < kPackInputs; i += 2) {
    largest = std::max(largest, 0.5f * std::fabs(x[i]) + 0.5f * std::fabs(x[i + 1]));
  }
  return largest;
}

int32_t rounded(float x, float multiplier) { return static_cast<int32_t>(std::nearbyint(x * multiplier)); }

/// The values of a block in steps of its scale, and what follows from them.
struct Steps {
  int32_t values[kPackInputs] = {};
  float scale = std::numeric_limits<float>::quiet_NaN();

  /// multiplier: of a block that is finite.
  Steps(const float* x, float largest, float multiplier) {
    if (!std::isfinite(largest)) return;
    for (int64_t i = 0; i < kPackInputs; ++i) values[i] = rounded(x[i], multiplier);
    scale = 1.0f / multiplier;
  }
  int32_t sum(int64_t group, int64_t groups) const {
    const int64_t inputs = kPackInputs / groups;
    return std::accumulate(values + group * inputs, values + (group + 1) * inputs, 0);
  }
};

/// Word g of the corrections: a group's, or a line's.
uint32_t correction(const Steps& steps, const PanelLayout& layout, int64_t g) {
  if (layout.corrections == layout.groups) return static_cast<uint32_t>(-layout.bias * steps.sum(g, layout.groups));
  const int32_t* x = steps.values + 8 * g;
  const auto lower = static_cast<uint32_t>(-layout.bias * (x[0] + x[1] + x[4] + x[5]));
  const auto upper = static_cast<uint32_t>(-layout.bias * (x[2] + x[3] + x[6] + x[7]));
  return (lower & 0xffffu) | upper << 16;
}

/// From word d on: the scale, as many corrections, the sums when there are any.
void put_end(const Steps& steps, Column out, int64_t d, const PanelLayout& layout, int32_t corrections) {
  put(out, d++, std::bit_cast<uint32_t>(steps.scale));
  for (int64_t g = 0; g < corrections; ++g) put(out, d++, correction(steps, layout, g));
  for (int64_t g = 0; layout.sums != 0 && g < layout.groups; ++g) {
    const bool finite = !std::isnan(steps.scale);
    put(out, d++,
        std::bit_cast<uint32_t>(finite ? static_cast<float>(steps.sum(g, layout.groups)) * steps.scale : steps.scale));
  }
}

void quantize_block_i8(const float* x, Column out, const PanelLayout& layout) {
  const float largest = largest_of(x);
  const Steps steps(x, largest, multiplier_i8(largest, largest_mean_of_neighbours(x)));
  for (int64_t d = 0; d < 16; ++d) {
    uint32_t word = 0;
    for (int64_t i = 0; i < 4; ++i) word |= static_cast<uint32_t>(steps.values[4 * d + i] & 255) << (8 * i);
    put(out, d, word);
  }
  put_end(steps, out, 16, layout, layout.corrections);
}

void quantize_block_i16(const float* x, Column out, const PanelLayout& layout) {
  const float largest = largest_of(x);
  const Steps steps(x, largest, multiplier_i16(largest));
  for (int64_t d = 0; d < 32; ++d) {
    const int32_t* pair = steps.values + d / 4 * 8 + d % 4 / 2 * 4 + d % 2;
    put(out, d, static_cast<uint32_t>(pair[0] & 0xffff) | static_cast<uint32_t>(pair[2]) << 16);
  }
  put_end(steps, out, 32, layout, 0);
}

void copy_block(const float* x, Column out, const PanelLayout& layout) {
  for (int64_t k = 0; k < kPackInputs; ++k) put(out, k, std::bit_cast<uint32_t>(x[k]));
  const int64_t inputs = kPackInputs / layout.groups;
  for (int64_t g = 0; layout.sums != 0 && g < layout.groups; ++g) {
    const float sum = std::accumulate(x + g * inputs, x + (g + 1) * inputs, 0.0f);
    put(out, kPackInputs + g, std::bit_cast<uint32_t>(sum));
  }
}

// A block of a token as a product reads it.
struct Block {
  const uint32_t* words;
  int64_t width;

  uint32_t word(int64_t d) const { return words[d * width]; }
  float number(int64_t d) const { return std::bit_cast<float>(word(d)); }
};

// The arithmetics: the value of input k, the scale of a block, the level of a code.
struct ByI8 {
  using Sum = int32_t;
  static constexpr PanelType kPanels = PanelType::i8;
  static Sum value(const Block& x, int64_t k) { return static_cast<int8_t>(x.word(k / 4) >> (8 * (k % 4))); }
  static float scale(const Block& x) { return x.number(16); }
  static Sum level(const Levels4& levels, int code) { return levels.i8[code]; }
  static float unit(const Levels4& levels) { return levels.i8_unit; }
};

struct ByI16 {
  using Sum = int32_t;
  static constexpr PanelType kPanels = PanelType::i16;
  static Sum value(const Block& x, int64_t k) {
    const int64_t within = k % 8;  // see the order of the words in packed4.h
    const uint32_t word = x.word(k / 8 * 4 + within / 4 * 2 + within % 2);
    return static_cast<int16_t>(within % 4 >= 2 ? word >> 16 : word & 0xffffu);
  }
  static float scale(const Block& x) { return x.number(32); }
  static Sum level(const Levels4& levels, int code) { return levels.i16[code]; }
  static float unit(const Levels4& levels) { return levels.i16_unit; }
};

struct ByF32 {
  using Sum = float;
  static constexpr PanelType kPanels = PanelType::f32;
  static Sum value(const Block& x, int64_t k) { return x.number(k); }
  static float scale(const Block&) { return 1.0f; }
  static Sum level(const Levels4& levels, int code) { return levels.exact[code]; }
  static float unit(const Levels4&) { return 1.0f; }
};

/// One output: a row by the column of a token, whose blocks are `stride` words apart.
template <class M>
float multiply_row(const Packed4& w, int64_t r, Block x, int64_t stride) {
  const RecordLayout& layout = w.layout;
  const int64_t row = r % kPackRows, inputs = kPackInputs / layout.groups;
  const int64_t sums_at = block_words(M::kPanels, panels_by_groups(layout)) - layout.groups;
  const float unit = layout.code_bits == 8 ? 1.0f : M::unit(*w.levels), inverse = 1.0f / unit;
  float sum = 0;
  for (int64_t b = 0; b < w.k / kPackInputs; ++b, x.words += stride) {
    const uint8_t* record = record_of(w, r, b);
    for (int64_t g = 0; g < layout.groups; ++g) {
      typename M::Sum total = 0;
      for (int64_t k = g * inputs; k < (g + 1) * inputs; ++k) {
        const auto level = layout.code_bits == 8 ? static_cast<typename M::Sum>(code8_at(record, row, k))
                                                 : M::level(*w.levels, code4_at(record, row, k));
        total += level * M::value(x, k);
      }
      sum = std::fma(static_cast<float>(total) * M::scale(x), scale_at(record, row, layout, g), sum);
      if (layout.minimums == 0) continue;
      sum = std::fma(x.number(sums_at + g), scale_at(record, row, layout, layout.groups + g) * inverse, sum);
    }
  }
  return sum * unit;
}

template <class M>
void multiply(const MatmulPacked4& a) {
  const int64_t words = block_words(M::kPanels, panels_by_groups(a.w.layout));
  for (int64_t t = 0; t < a.tokens; ++t) {
    const int64_t panel = t / kPanelTokens * kPanelTokens, width = panel_width(a.tokens - panel);
    const uint32_t* column = a.panels + panel_words(panel, a.w.k, words) + t % kPanelTokens;
    for (int64_t r = 0; r < a.w.rows; ++r) {
      a.y[t * a.ldy + r] = multiply_row<M>(a.w, r, {column, width}, width * words);
    }
  }
}

/// The number of steps with the least rounding error; of equals, the first from `from` on.
double best_steps(const float* levels, double largest, double from, double to, double by) {
  double best = from, least = rounding_error(levels, largest, from);
  for (double steps = from + by; by > 0 ? steps <= to : steps >= to; steps += by) {
    const double error = rounding_error(levels, largest, steps);
    if (error < least) best = steps, least = error;
  }
  return best;
}

}  // namespace

Levels4 make_levels4(const float* levels) noexcept {
  Levels4 result{};
  std::copy_n(levels, 16, result.exact);
  float largest = 0;
  for (int i = 0; i < 16; ++i) largest = std::max(largest, std::fabs(levels[i]));
  if (!(largest > 0)) return result;  // all 0: units of 0 make every product 0
  const double steps = best_steps(levels, largest, 80, 100, 0.0625);
  const double steps_i16 = best_steps(levels, largest, double{kLargestI16}, 5664, -1);
  for (int i = 0; i < 16; ++i) {
    const double exact = double{levels[i]} / double{largest};
    result.i8[i] = static_cast<int8_t>(std::nearbyint(exact * steps));
    result.i16[i] = static_cast<int16_t>(std::nearbyint(exact * steps_i16));
  }
  result.i8_unit = static_cast<float>(double{largest} / steps);
  result.i16_unit = static_cast<float>(double{largest} / steps_i16);
  return result;
}

namespace scalar {

void pack_4bit(const Pack4& a) noexcept {
  const int64_t rows = (a.rows + kPackRows - 1) / kPackRows * kPackRows;
  const auto bytes = static_cast<size_t>(packed4_bytes(kPackRows, a.k, a.layout));
  if (rows > a.rows) std::memset(a.records + packed4_bytes(rows - kPackRows, a.k, a.layout), 0, bytes);
  for (int64_t r = 0; r < a.rows; ++r) pack_row(a, r);
}

void decode_packed4(const Packed4& w, int64_t first_row, int64_t rows, float* out) noexcept {
  const RecordLayout& layout = w.layout;
  const int64_t inputs = kPackInputs / layout.groups;
  for (int64_t r = first_row; r < first_row + rows; ++r) {
    const int64_t row = r % kPackRows;
    for (int64_t b = 0; b < w.k / kPackInputs; ++b) {
      const uint8_t* record = record_of(w, r, b);
      for (int64_t k = 0; k < kPackInputs; ++k) {
        const float level = layout.code_bits == 8 ? static_cast<float>(code8_at(record, row, k))
                                                  : w.levels->exact[code4_at(record, row, k)];
        const float value = level * scale_at(record, row, layout, k / inputs);
        *out++ = layout.minimums == 0 ? value : value + scale_at(record, row, layout, layout.groups + k / inputs);
      }
    }
  }
}

void activations4_i8(const Activations4& a) noexcept { for_blocks(a, PanelType::i8, quantize_block_i8); }
void activations4_i16(const Activations4& a) noexcept { for_blocks(a, PanelType::i16, quantize_block_i16); }
void activations4_f32(const Activations4& a) noexcept { for_blocks(a, PanelType::f32, copy_block); }

void matmul_packed4_i8(const MatmulPacked4& a) noexcept { multiply<ByI8>(a); }
void matmul_packed4_i16(const MatmulPacked4& a) noexcept { multiply<ByI16>(a); }
void matmul_packed4_f32(const MatmulPacked4& a) noexcept { multiply<ByF32>(a); }

}  // namespace scalar
}  // namespace nibble
