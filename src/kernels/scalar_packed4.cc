// Packed 4-bit weights in portable C++: the layout as packed4.h draws it, written to be read.
#include "kernels/scalar_packed4.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

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

int code_at(const uint8_t* record, int64_t row, int64_t input) {
  const int64_t within = input % 8;
  const int byte = record[input / 8 * kLineBytes + row * 4 + within % 4];
  return within >= 4 ? byte >> 4 : byte & 15;
}

float scale_at(const uint8_t* record, int64_t row, int64_t scale_bytes) {
  const uint8_t* scales = record + kPackRows * kPackInputs / 2;
  if (scale_bytes == 2) {
    uint16_t half;
    std::memcpy(&half, scales + row * 2, sizeof half);
    return bf16_to_f32(half);
  }
  float scale;
  std::memcpy(&scale, scales + row * 4, sizeof scale);
  return scale;
}

void set_scale(uint8_t* record, int64_t row, int64_t scale_bytes, float scale) {
  uint8_t* scales = record + kPackRows * kPackInputs / 2;
  const auto upper = static_cast<uint16_t>(std::bit_cast<uint32_t>(scale) >> 16);
  if (scale_bytes == 2) {
    std::memcpy(scales + row * 2, &upper, sizeof upper);
  } else {
    std::memcpy(scales + row * 4, &scale, sizeof scale);
  }
}

const uint8_t* record_of(const Packed4& w, int64_t row, int64_t block) {
  return w.records + (row / kPackRows * (w.k / kPackInputs) + block) * packed4_record_bytes(w.scale_bytes);
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
  const int64_t record_bytes = packed4_record_bytes(a.scale_bytes);
  uint8_t* record = a.records + row / kPackRows * (a.k / kPackInputs) * record_bytes;
  for (int64_t k = 0; k < a.k; k += kPackInputs, record += record_bytes) {
    const int64_t element = a.first + row * a.k + k;
    for (int64_t j = 0; j < kPackInputs / 8; ++j) {
      uint32_t word;
      std::memcpy(&word, a.packed + element / 2 + 4 * j, sizeof word);
      word = reordered(word);
      std::memcpy(record + j * kLineBytes + row % kPackRows * 4, &word, sizeof word);
    }
    set_scale(record, row % kPackRows, a.scale_bytes, a.absmax[element / a.block]);
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

void quantize_block_i8(const float* x, Column out) {
  const float largest = largest_of(x);
  const bool finite = std::isfinite(largest);
  const float multiplier = finite ? multiplier_i8(largest, largest_mean_of_neighbours(x)) : 0.0f;
  int32_t sum = 0;
  for (int64_t d = 0; d < 16; ++d) {
    uint32_t word = 0;
    for (int64_t i = 0; i < 4; ++i) {
      const int32_t value = finite ? rounded(x[4 * d + i], multiplier) : 0;
      sum += value;
      word |= static_cast<uint32_t>(value & 255) << (8 * i);
    }
    put(out, d, word);
  }
  const float scale = finite ? 1.0f / multiplier : std::numeric_limits<float>::quiet_NaN();
  put(out, 16, std::bit_cast<uint32_t>(scale));
  put(out, 17, static_cast<uint32_t>(-kLevelBias * sum));
}

void quantize_block_i16(const float* x, Column out) {
  const float largest = largest_of(x);
  const bool finite = std::isfinite(largest);
  const float multiplier = finite ? multiplier_i16(largest) : 0.0f;
  for (int64_t d = 0; d < 32; ++d) {
    const float* pair = x + d / 4 * 8 + d % 4 / 2 * 4 + d % 2;
    const int32_t first = finite ? rounded(pair[0], multiplier) : 0, second = finite ? rounded(pair[2], multiplier) : 0;
    put(out, d, static_cast<uint32_t>(first & 0xffff) | static_cast<uint32_t>(second) << 16);
  }
  const float scale = finite ? 1.0f / multiplier : std::numeric_limits<float>::quiet_NaN();
  put(out, 32, std::bit_cast<uint32_t>(scale));
}

// A block of a token as a product reads it.
struct Block {
  const uint32_t* words;
  int64_t width;

  uint32_t word(int64_t d) const { return words[d * width]; }
  float number(int64_t d) const { return std::bit_cast<float>(word(d)); }
};

// T times the scale of x, for one row of a record.
float product_i8(const uint8_t* record, int64_t row, const Block& x, const Levels4& levels) {
  int32_t total = 0;
  for (int64_t k = 0; k < kPackInputs; ++k) {
    const auto value = static_cast<int8_t>(x.word(k / 4) >> (8 * (k % 4)));
    total += levels.i8[code_at(record, row, k)] * value;
  }
  return static_cast<float>(total) * x.number(16);
}

float product_i16(const uint8_t* record, int64_t row, const Block& x, const Levels4& levels) {
  int32_t total = 0;
  for (int64_t k = 0; k < kPackInputs; ++k) {
    const int64_t within = k % 8;  // see the order of the words in packed4.h
    const uint32_t word = x.word(k / 8 * 4 + within / 4 * 2 + within % 2);
    const auto value = static_cast<int16_t>(within % 4 >= 2 ? word >> 16 : word & 0xffffu);
    total += levels.i16[code_at(record, row, k)] * value;
  }
  return static_cast<float>(total) * x.number(32);
}

float product_f32(const uint8_t* record, int64_t row, const Block& x, const Levels4& levels) {
  float total = 0;
  for (int64_t k = 0; k < kPackInputs; ++k) total += levels.exact[code_at(record, row, k)] * x.number(k);
  return total;
}

template <class Product>
void multiply(const MatmulPacked4& a, int64_t block_words, float unit, Product product) {
  for (int64_t t = 0; t < a.tokens; ++t) {
    const int64_t panel = t / kPanelTokens * kPanelTokens, width = panel_width(a.tokens - panel);
    const uint32_t* column = a.panels + panel_words(panel, a.w.k, block_words) + t % kPanelTokens;
    for (int64_t r = 0; r < a.w.rows; ++r) {
      float sum = 0;
      for (int64_t b = 0; b < a.w.k / kPackInputs; ++b) {
        const uint8_t* record = record_of(a.w, r, b);
        const Block x{column + b * width * block_words, width};
        sum = std::fma(product(record, r % kPackRows, x, *a.w.levels), scale_at(record, r % kPackRows, a.w.scale_bytes),
                       sum);
      }
      a.y[t * a.ldy + r] = sum * unit;
    }
  }
}

}  // namespace

Levels4 make_levels4(const float* levels) noexcept {
  Levels4 result{};
  std::copy_n(levels, 16, result.exact);
  float largest = 0;
  for (int i = 0; i < 16; ++i) largest = std::max(largest, std::fabs(levels[i]));
  if (!(largest > 0)) return result;  // all 0: units of 0 make every product 0
  double steps = 80;
  for (double s = 80; s <= 100; s += 0.0625) {
    if (rounding_error(levels, largest, s) < rounding_error(levels, largest, steps)) steps = s;
  }
  for (int i = 0; i < 16; ++i) {
    const double exact = double{levels[i]} / double{largest};
    result.i8[i] = static_cast<int8_t>(std::nearbyint(exact * steps));
    result.i16[i] = static_cast<int16_t>(std::nearbyint(exact * double{kLargestI16}));
  }
  result.i8_unit = static_cast<float>(double{largest} / steps);
  result.i16_unit = largest / kLargestI16;
  return result;
}

namespace scalar {

void pack_4bit(const Pack4& a) noexcept {
  const int64_t rows = (a.rows + kPackRows - 1) / kPackRows * kPackRows;
  const auto bytes = static_cast<size_t>(packed4_bytes(kPackRows, a.k, a.scale_bytes));
  if (rows > a.rows) std::memset(a.records + packed4_bytes(rows - kPackRows, a.k, a.scale_bytes), 0, bytes);
  for (int64_t r = 0; r < a.rows; ++r) pack_row(a, r);
}

void decode_packed4(const Packed4& w, int64_t first_row, int64_t rows, float* out) noexcept {
  for (int64_t r = first_row; r < first_row + rows; ++r) {
    for (int64_t b = 0; b < w.k / kPackInputs; ++b, out += kPackInputs) {
      const uint8_t* record = record_of(w, r, b);
      const float scale = scale_at(record, r % kPackRows, w.scale_bytes);
      for (int64_t k = 0; k < kPackInputs; ++k) out[k] = w.levels->exact[code_at(record, r % kPackRows, k)] * scale;
    }
  }
}

void activations4_i8(const Activations4& a) noexcept { for_blocks(a, kWordsI8, quantize_block_i8); }
void activations4_i16(const Activations4& a) noexcept { for_blocks(a, kWordsI16, quantize_block_i16); }
void activations4_f32(const Activations4& a) noexcept {
  for_blocks(a, kWordsF32, [](const float* x, Column out) {
    for (int64_t k = 0; k < kPackInputs; ++k) put(out, k, std::bit_cast<uint32_t>(x[k]));
  });
}

void matmul_packed4_i8(const MatmulPacked4& a) noexcept { multiply(a, kWordsI8, a.w.levels->i8_unit, product_i8); }
void matmul_packed4_i16(const MatmulPacked4& a) noexcept { multiply(a, kWordsI16, a.w.levels->i16_unit, product_i16); }
void matmul_packed4_f32(const MatmulPacked4& a) noexcept { multiply(a, kWordsF32, 1.0f, product_f32); }

}  // namespace scalar
}  // namespace nibble
