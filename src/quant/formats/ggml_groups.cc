// Nibbles are moved four at a time, as the bytes of a word of 32 bits.
#include "quant/formats/ggml_groups.h"

#include <bit>
#include <cmath>

#include "quant/formats/ggml_blocks.h"

namespace nibble {
namespace {

constexpr uint32_t kLowHalves = 0x0f0f0f0f;

template <class T>
T load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

/// 8 codes of a line, from the low halves of two words.
uint32_t line_of(uint32_t first, uint32_t second) { return (first & kLowHalves) | (second & kLowHalves) << 4; }

/// 16 bytes with value j in the low half of byte j and value j + 16 in its high half.
void read_halves(const uint8_t* bytes, StoredGroup& out) {
  for (int64_t j = 0; j < 2; ++j) {
    const auto first = load<uint32_t>(bytes + 8 * j), second = load<uint32_t>(bytes + 8 * j + 4);
    out.words[j] = line_of(first, second);
    out.words[j + 2] = line_of(first >> 4, second >> 4);
  }
}

/// Four codes of 8 bits: bit i of `bits` above the low half of byte i.
uint32_t with_fifth_bits(uint32_t low_halves, uint32_t bits) {
  return (low_halves & kLowHalves) | ((bits & 15) * 0x00204081u & 0x01010101u) << 4;
}

/// As read_halves, in codes of 8 bits with a fifth bit each.
void read_fives(const uint8_t* fifth_bits, const uint8_t* bytes, StoredGroup& out) {
  const auto bits = load<uint32_t>(fifth_bits);
  for (int64_t j = 0; j < 4; ++j) {
    const auto halves = load<uint32_t>(bytes + 4 * j);
    out.words[j] = with_fifth_bits(halves, bits >> 4 * j);
    out.words[j + 4] = with_fifth_bits(halves >> 4, bits >> (4 * j + 16));
  }
}

/// The scale and minimum of a sub-block of q4_k and q5_k. Minimums are subtracted: their factors become negative.
void read_scale_and_min(const uint8_t* block, int64_t group, StoredGroup& out) {
  const ScaleAndMin s = scale_and_min(block + 4, static_cast<int>(group));
  out.scale = load<uint16_t>(block);
  out.minimum = load<uint16_t>(block + 2);
  out.scale_factor = static_cast<int8_t>(s.scale);
  out.minimum_factor = static_cast<int8_t>(-s.min);
}

/// Where 16 values of q2_k, q3_k and q6_k have two bits of theirs: the plane of the byte for value i is i % 128 / 32.
struct TwoBits {
  const uint8_t* bytes;
  int shift;

  TwoBits(const uint8_t* planes, int64_t group)
      : bytes(planes + 32 * (group / 8) + group % 2 * 16), shift(static_cast<int>(group % 8 / 2 * 2)) {}
  uint32_t four(int64_t j) const { return load<uint32_t>(bytes + 4 * j) >> shift & 0x03030303u; }
};

}  // namespace

void read_q4_0(const uint8_t* block, int64_t, StoredGroup& out) {
  out.scale = load<uint16_t>(block);
  read_halves(block + 2, out);
}

void read_q4_1(const uint8_t* block, int64_t, StoredGroup& out) {
  out.scale = load<uint16_t>(block);
  out.minimum = load<uint16_t>(block + 2);
  read_halves(block + 4, out);
}

void read_q4_k(const uint8_t* block, int64_t group, StoredGroup& out) {
  read_scale_and_min(block, group, out);
  const uint8_t* bytes = block + 16 + group / 2 * 32;
  const auto shift = static_cast<int>(group % 2 * 4);
  for (int64_t j = 0; j < 4; ++j) {
    out.words[j] = line_of(load<uint32_t>(bytes + 8 * j) >> shift, load<uint32_t>(bytes + 8 * j + 4) >> shift);
  }
}

void read_iq4_xs(const uint8_t* block, int64_t group, StoredGroup& out) {
  out.scale = load<uint16_t>(block);
  out.scale_factor = static_cast<int8_t>(iq4_xs_scale(block, static_cast<int>(group)));
  read_halves(block + 8 + 16 * group, out);
}

// 2^(e - 128): of bf16 too, down to the subnormal 2^-128.
void read_mxfp4(const uint8_t* block, int64_t, StoredGroup& out) {
  out.scale = static_cast<uint16_t>(std::bit_cast<uint32_t>(std::ldexp(1.0f, block[0] - 128)) >> 16);
  read_halves(block + 1, out);
}

void read_q8_0(const uint8_t* block, int64_t, StoredGroup& out) {
  out.scale = load<uint16_t>(block);
  std::memcpy(out.words, block + 2, 32);
}

void read_q5_0(const uint8_t* block, int64_t, StoredGroup& out) {
  out.scale = load<uint16_t>(block);
  read_fives(block + 2, block + 6, out);
  for (uint32_t& word : out.words) word = (word + 0x70707070u) ^ 0x80808080u;  // code - 16 in each byte
}

void read_q5_1(const uint8_t* block, int64_t, StoredGroup& out) {
  out.scale = load<uint16_t>(block);
  out.minimum = load<uint16_t>(block + 2);
  read_fives(block + 4, block + 8, out);
}

void read_q5_k(const uint8_t* block, int64_t group, StoredGroup& out) {
  read_scale_and_min(block, group, out);
  const uint8_t* bytes = block + 48 + group / 2 * 32;
  const auto shift = static_cast<int>(group % 2 * 4);
  for (int64_t j = 0; j < 8; ++j) {
    out.words[j] = (load<uint32_t>(bytes + 4 * j) >> shift & kLowHalves) |
                   (load<uint32_t>(block + 16 + 4 * j) >> group & 0x01010101u) << 4;
  }
}

void read_q2_k(const uint8_t* block, int64_t group, StoredGroup& out) {
  out.scale = load<uint16_t>(block + 80);
  out.minimum = load<uint16_t>(block + 82);
  out.scale_factor = static_cast<int8_t>(block[group] & 15);
  out.minimum_factor = static_cast<int8_t>(-(block[group] >> 4));
  const TwoBits codes(block + 16, group);
  for (int64_t j = 0; j < 2; ++j) out.words[j] = line_of(codes.four(2 * j), codes.four(2 * j + 1));
}

// The third bits count 4 up, from levels that begin at -4.
void read_q3_k(const uint8_t* block, int64_t group, StoredGroup& out) {
  out.scale = load<uint16_t>(block + 108);
  out.scale_factor = static_cast<int8_t>(q3_k_scale(block, static_cast<int>(group)));
  const TwoBits codes(block + 32, group);
  const auto four = [&](int64_t j) {
    return codes.four(j) | (load<uint32_t>(block + group % 2 * 16 + 4 * j) >> group / 2 & 0x01010101u) << 2;
  };
  for (int64_t j = 0; j < 2; ++j) out.words[j] = line_of(four(2 * j), four(2 * j + 1));
}

// 4 bits and 2 bits of each, less 32.
void read_q6_k(const uint8_t* block, int64_t group, StoredGroup& out) {
  const uint8_t* low = block + 64 * (group / 8) + group % 4 * 16;
  const auto shift = static_cast<int>(group % 8 / 4 * 4);
  const TwoBits high(block + 128, group);
  out.scale = load<uint16_t>(block + 208);
  out.scale_factor = static_cast<int8_t>(block[192 + group]);
  for (int64_t j = 0; j < 4; ++j) {
    const uint32_t code = (load<uint32_t>(low + 4 * j) >> shift & kLowHalves) | high.four(j) << 4;
    out.words[j] = (code + 0x60606060u) ^ 0x80808080u;  // code - 32 in each byte
  }
}

void put_group(const StoredGroup& stored, const RecordLayout& layout, int64_t row, int64_t group, uint8_t* record) {
  const int64_t lines = record_code_bytes(layout) / 64 / layout.groups;
  for (int64_t j = 0; j < lines; ++j) {
    std::memcpy(record + (group * lines + j) * 64 + row * 4, stored.words + j, sizeof stored.words[j]);
  }
  uint8_t* scales = record + record_code_bytes(layout);
  const bool common = layout.scale_type == ScaleType::f16_i8;
  for (int64_t n = 0; n <= layout.minimums; ++n) {
    const uint16_t half = n == 0 ? stored.scale : stored.minimum;
    uint8_t* values = scales + scale_offset(layout, n * layout.groups + group);
    std::memcpy((common ? scales + n * 2 * kPackRows : values) + row * 2, &half, sizeof half);
    if (common) values[row] = static_cast<uint8_t>(n == 0 ? stored.scale_factor : stored.minimum_factor);
  }
}

}  // namespace nibble
