// Blocks of 256 values in sub-blocks of 16 or 32, whose scales are themselves quantized.
#include "quant/formats/ggml_blocks.h"

namespace nibble {
namespace {

/// Two bits of 64 bytes: value i of 256. Per half of 128 values: 32 bytes, four planes of two bits.
int two_bits(const uint8_t* bytes, int i) { return (bytes[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3; }

/// Four bits of 128 bytes: value i of 256. Per 64 values: 32 bytes, low halves first.
int four_bits(const uint8_t* bytes, int i) { return (bytes[32 * (i / 64) + i % 32] >> (4 * (i % 64 / 32))) & 15; }

// d f16, dmin f16, 12 bytes of scales and minimums: d * scale * q - dmin * min, for sub-blocks of 32
template <class Code>
void decode_with_minimums(const uint8_t* block, float* out, Code code) {
  const float d = ggml_half(block), dmin = ggml_half(block + 2);
  for (int j = 0; j < 8; ++j) {
    const ScaleAndMin s = scale_and_min(block + 4, j);
    const float scale = d * static_cast<float>(s.scale), min = dmin * static_cast<float>(s.min);
    for (int i = 32 * j; i < 32 * j + 32; ++i) out[i] = scale * static_cast<float>(code(i)) - min;
  }
}

}  // namespace

// 16 bytes of scale (low half) and minimum (high half), 64 bytes of 2-bit codes, d f16, dmin f16; sub-blocks of 16
void decode_q2_k(const uint8_t* block, float* out) {
  const float d = ggml_half(block + 80), dmin = ggml_half(block + 82);
  for (int i = 0; i < 256; ++i) {
    const uint8_t packed = block[i / 16];
    const float scale = d * static_cast<float>(packed & 15), min = dmin * static_cast<float>(packed >> 4);
    out[i] = scale * static_cast<float>(two_bits(block + 16, i)) - min;
  }
}

// 32 bytes of third bits (plane i / 32), 64 bytes of 2-bit codes, 12 bytes of sixteen 6-bit scales, d f16
void decode_q3_k(const uint8_t* block, float* out) {
  const float d = ggml_half(block + 108);
  for (int i = 0; i < 256; ++i) {
    const float scale = d * static_cast<float>(q3_k_scale(block, i / 16));
    const int third = (block[i % 32] >> (i / 32)) & 1;
    out[i] = scale * static_cast<float>(two_bits(block + 32, i) - (third ? 0 : 4));
  }
}

// d, dmin, scales, then 128 bytes of nibbles
void decode_q4_k(const uint8_t* block, float* out) {
  decode_with_minimums(block, out, [&](int i) { return four_bits(block + 16, i); });
}

// d, dmin, scales, 32 bytes of fifth bits (plane i / 32), 128 bytes of nibbles
void decode_q5_k(const uint8_t* block, float* out) {
  decode_with_minimums(block, out,
                       [&](int i) { return four_bits(block + 48, i) | (((block[16 + i % 32] >> (i / 32)) & 1) << 4); });
}

// 128 bytes of low nibbles, 64 bytes of 2-bit tops, 16 signed scales, d f16: d * scale * (q - 32), sub-blocks of 16.
// Per half of 128 values: 64 bytes, the low halves of all 64 first.
void decode_q6_k(const uint8_t* block, float* out) {
  const float d = ggml_half(block + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, in_half = i % 128;
    const int low = (block[64 * half + in_half % 64] >> (4 * (in_half / 64))) & 15;
    const float scale = d * static_cast<float>(static_cast<int8_t>(block[192 + i / 16]));
    out[i] = scale * static_cast<float>((low | (two_bits(block + 128, i) << 4)) - 32);
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
