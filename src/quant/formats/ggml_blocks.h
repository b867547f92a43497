#pragma once
// What the decoders of ggml's block types share. Layouts: ggml-common.h of github.com/ggml-org/ggml, described in
// docs/formats.md. Every product and sum is rounded to f32, as ggml's reference decoders do.
#include <cstdint>
#include <cstring>

#include "core/checked.h"
#include "core/dtype.h"
#include "quant/format.h"

namespace nibble {

using DecodeGgmlBlock = void (*)(const uint8_t* block, float* out);

/// The f16 at an address of any alignment.
inline float ggml_half(const uint8_t* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return f16_to_f32(bits);
}

/// The 16 values of IQ4_NL and IQ4_XS.
inline constexpr float kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

template <int64_t kValues, int64_t kBytes, DecodeGgmlBlock kDecode>
void decode_ggml_rows(const QuantizedTensor& w, int64_t begin, int64_t end, float* out) {
  const int64_t blocks_per_row = w.cols() / kValues;
  const auto* data = w.part("data").data<uint8_t>();
  for (int64_t b = begin * blocks_per_row; b < end * blocks_per_row; ++b, out += kValues)
    kDecode(data + b * kBytes, out);
}

template <int64_t kValues, int64_t kBytes>
QuantizedTensor ggml_layout(const Shape& shape, const EncodeOptions&) {
  QuantizedTensor w;
  w.shape = shape;
  w.block = kValues;
  w.parts["data"] = Tensor::described(DType::u8, {shape.at(0), ceil_div(shape.at(1), kValues) * kBytes});
  return w;
}

/// A row of the format table for blocks of kValues weights in kBytes bytes.
template <int64_t kValues, int64_t kBytes, DecodeGgmlBlock kDecode>
Format ggml_format(std::string_view name) {
  return {.name = name,
          .bits_per_weight = 8.0 * static_cast<double>(kBytes) / static_cast<double>(kValues),
          .block = kValues,
          .readable_by = "nibble, llama.cpp",
          .layout = ggml_layout<kValues, kBytes>,
          .decode_rows = decode_ggml_rows<kValues, kBytes, kDecode>};
}

// Blocks of 32 (nvfp4: 64) values. out: that many floats.
void decode_q4_0(const uint8_t* block, float* out);
void decode_q4_1(const uint8_t* block, float* out);
void decode_q5_0(const uint8_t* block, float* out);
void decode_q5_1(const uint8_t* block, float* out);
void decode_q8_0(const uint8_t* block, float* out);
void decode_iq4_nl(const uint8_t* block, float* out);
void decode_mxfp4(const uint8_t* block, float* out);
void decode_nvfp4(const uint8_t* block, float* out);

// Blocks of 256 values.
void decode_q2_k(const uint8_t* block, float* out);
void decode_q3_k(const uint8_t* block, float* out);
void decode_q4_k(const uint8_t* block, float* out);
void decode_q5_k(const uint8_t* block, float* out);
void decode_q6_k(const uint8_t* block, float* out);
void decode_iq4_xs(const uint8_t* block, float* out);

}  // namespace nibble
