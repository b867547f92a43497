// Blocks of 32 values with one scale. Nibbles: byte j holds value j in its low half and value j + 16 in its high half.
#include <bit>
#include <cmath>

#include "quant/formats/ggml_blocks.h"

namespace nibble {
namespace {

constexpr int kHalf = 16;

/// value(index, code) for the 32 codes of 16 bytes.
template <class Value>
void for_nibbles(const uint8_t* bytes, Value value) {
  for (int j = 0; j < kHalf; ++j) {
    value(j, bytes[j] & 15);
    value(j + kHalf, bytes[j] >> 4);
  }
}

/// Bit i of the 4 bytes, as the fifth bit of code i.
int fifth_bit(const uint8_t* high, int i) { return ((high[i / 8] >> (i % 8)) & 1) << 4; }

// 4 bits of exponent, 3 of mantissa, no sign.
float ue4m3(uint8_t bits) {
  const int exponent = (bits >> 3) & 15, mantissa = bits & 7;
  if (exponent == 0) return std::ldexp(static_cast<float>(mantissa), -9);
  return std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
}

}  // namespace

// d f16, 16 bytes of nibbles: d * (q - 8)
void decode_q4_0(const uint8_t* block, float* out) {
  const float d = ggml_half(block);
  for_nibbles(block + 2, [&](int i, int q) { out[i] = d * static_cast<float>(q - 8); });
}

// d f16, m f16, 16 bytes of nibbles: d * q + m
void decode_q4_1(const uint8_t* block, float* out) {
  const float d = ggml_half(block), m = ggml_half(block + 2);
  for_nibbles(block + 4, [&](int i, int q) { out[i] = d * static_cast<float>(q) + m; });
}

// d f16, 4 bytes of fifth bits, 16 bytes of nibbles: d * (q - 16)
void decode_q5_0(const uint8_t* block, float* out) {
  const float d = ggml_half(block);
  for_nibbles(block + 6, [&](int i, int q) { out[i] = d * static_cast<float>((q | fifth_bit(block + 2, i)) - 16); });
}

// d f16, m f16, 4 bytes of fifth bits, 16 bytes of nibbles: d * q + m
void decode_q5_1(const uint8_t* block, float* out) {
  const float d = ggml_half(block), m = ggml_half(block + 2);
  for_nibbles(block + 8, [&](int i, int q) { out[i] = d * static_cast<float>(q | fifth_bit(block + 4, i)) + m; });
}

// d f16, 32 signed bytes: d * q
void decode_q8_0(const uint8_t* block, float* out) {
  const float d = ggml_half(block);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

// d f16, 16 bytes of nibbles: d * table[q]
void decode_iq4_nl(const uint8_t* block, float* out) {
  const float d = ggml_half(block);
  for_nibbles(block + 2, [&](int i, int q) { out[i] = d * kIq4Levels[q]; });
}

// OCP microscaling: an E8M0 exponent, 16 bytes of E2M1 nibbles: 2^(e - 127) * value
void decode_mxfp4(const uint8_t* block, float* out) {
  const float scale = std::ldexp(1.0f, block[0] - 128);
  for_nibbles(block + 1, [&](int i, int q) { out[i] = scale * kE2m1Doubled[q]; });
}

// 64 values: 4 UE4M3 scales, then per 16 values 8 bytes, value j in the low half of byte j and j + 8 in the high half
void decode_nvfp4(const uint8_t* block, float* out) {
  for (int group = 0; group < 4; ++group) {
    const float scale = ue4m3(block[group]) * 0.5f;
    const uint8_t* bytes = block + 4 + 8 * group;
    for (int j = 0; j < 8; ++j) {
      out[16 * group + j] = scale * kE2m1Doubled[bytes[j] & 15];
      out[16 * group + j + 8] = scale * kE2m1Doubled[bytes[j] >> 4];
    }
  }
}

}  // namespace nibble
