// Blocks of 256 values in sub-blocks of 16 or 32, whose scales are themselves quantized. Within a sub-block codes lie
// in consecutive bytes at one shift, so that its loop is one for vectors.
#include "quant/formats/ggml_blocks.h"

namespace nibble {
namespace {

/// The codes of a sub-block: `bits` bits of consecutive bytes.
struct Codes {
  const uint8_t* bytes;
  int shift, mask;

  int operator[](int i) const { return (bytes[i] >> shift) & mask; }
};

/// Two bits of 64 bytes, sub-block j of 16 values. Per half of 128 values: 32 bytes, four planes of two bits.
Codes two_bits(const uint8_t* bytes, int j) { return {bytes + 32 * (j / 8) + 16 * (j % 2), 2 * (j % 8 / 2), 3}; }

/// Four bits of 128 bytes, sub-block j of 32 values. Per 64 values: 32 bytes, low halves first.
Codes four_bits(const uint8_t* bytes, int j) { return {bytes + 32 * (j / 2), 4 * (j % 2), 15}; }

/// One bit of 32 bytes, sub-block j of 32 values: plane j.
Codes one_bit(const uint8_t* bytes, int j) { return {bytes, j, 1}; }

/// value(i) of a sub-block of kCount.
template <int kCount, class Value>
void decode_sub_block(float* out, Value value) {
  for (int i = 0; i < kCount; ++i) out[i] = value(i);
}

/// d f16, dmin f16, 12 bytes of scales and minimums: d * scale * q - dmin * min, for sub-blocks of 32. code(j, i)
template <class Code>
void decode_with_minimums(const uint8_t* block, float* out, Code code) {
  const float d = ggml_half(block), dmin = ggml_half(block + 2);
  for (int j = 0; j < 8; ++j) {
    const ScaleAndMin s = scale_and_min(block + 4, j);
    const float scale = d * static_cast<float>(s.scale), min = dmin * static_cast<float>(s.min);
    decode_sub_block<32>(out + 32 * j, [&](int i) { return scale * static_cast<float>(code(j, i)) - min; });
  }
}

}  // namespace

// 16 bytes of scale (low half) and minimum (high half), 64 bytes of 2-bit codes, d f16, dmin f16; sub-blocks of 16
void decode_q2_k(const uint8_t* block, float* out) {
  const float d = ggml_half(block + 80), dmin = ggml_half(block + 82);
  for (int j = 0; j < 16; ++j) {
    const float scale = d * static_cast<float>(block[j] & 15), min = dmin * static_cast<float>(block[j] >> 4);
    const Codes q = two_bits(block + 16, j);
    decode_sub_block<16>(out + 16 * j, [&](int i) { return scale * static_cast<float>(q[i]) - min; });
  }
}

// 32 bytes of third bits (plane i / 32), 64 bytes of 2-bit codes, 12 bytes of sixteen 6-bit scales, d f16
void decode_q3_k(const uint8_t* block, float* out) {
  const float d = ggml_half(block + 108);
  for (int j = 0; j < 16; ++j) {
    const float scale = d * static_cast<float>(q3_k_scale(block, j));
    const Codes q = two_bits(block + 32, j), third = one_bit(block + 16 * (j % 2), j / 2);
    decode_sub_block<16>(out + 16 * j, [&](int i) { return scale * static_cast<float>(q[i] + 4 * third[i] - 4); });
  }
}

// d, dmin, scales, then 128 bytes of nibbles
void decode_q4_k(const uint8_t* block, float* out) {
  decode_with_minimums(block, out, [&](int j, int i) { return four_bits(block + 16, j)[i]; });
}

// d, dmin, scales, 32 bytes of fifth bits (plane i / 32), 128 bytes of nibbles
void decode_q5_k(const uint8_t* block, float* out) {
  decode_with_minimums(block, out,
                       [&](int j, int i) { return four_bits(block + 48, j)[i] + 16 * one_bit(block + 16, j)[i]; });
}

// 128 bytes of low nibbles, 64 bytes of 2-bit tops, 16 signed scales, d f16: d * scale * (q - 32), sub-blocks of 16.
// Per half of 128 values: 64 bytes, the low halves of all 64 first.
void decode_q6_k(const uint8_t* block, float* out) {
  const float d = ggml_half(block + 208);
  for (int j = 0; j < 16; ++j) {
    const float scale = d * static_cast<float>(static_cast<int8_t>(block[192 + j]));
    const Codes low = {block + 64 * (j / 8) + 16 * (j % 4), 4 * (j % 8 / 4), 15}, top = two_bits(block + 128, j);
    decode_sub_block<16>(out + 16 * j, [&](int i) { return scale * static_cast<float>(low[i] + 16 * top[i] - 32); });
  }
}

// d f16, 16 high bit pairs and 4 bytes of low nibbles of eight 6-bit scales, 8 times 16 bytes of iq4_nl nibbles
void decode_iq4_xs(const uint8_t* block, float* out) {
  const float d = ggml_half(block);
  for (int j = 0; j < 8; ++j) {
    const float scale = d * static_cast<float>(iq4_xs_scale(block, j));
    const uint8_t* codes = block + 8 + 16 * j;
    for (int i = 0; i < 16; ++i) {
      out[32 * j + i] = scale * kIq4Levels[codes[i] & 15];
      out[32 * j + i + 16] = scale * kIq4Levels[codes[i] >> 4];
    }
  }
}

}  // namespace nibble
