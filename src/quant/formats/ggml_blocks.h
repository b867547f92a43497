#pragma once
// What the decoders of ggml's block types share. Layouts: ggml-common.h of github.com/ggml-org/ggml, described in
// docs/formats.md. Every product and sum is rounded to f32, as ggml's reference decoders do.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/checked.h"
#include "core/dtype.h"
#include "quant/format.h"
#include "quant/formats/ggml_groups.h"
#include "quant/matmul.h"

namespace nibble {

using DecodeGgmlBlock = void (*)(const uint8_t* block, float* out);

/// The f16 at an address of any alignment.
inline float ggml_half(const uint8_t* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return f16_to_f32(bits);
}

/// The 6-bit scale and minimum of sub-block j of q4_k and q5_k, out of 12 bytes: the first four pairs lie in the low
/// 6 bits of bytes 0-7, the last four in the nibbles of bytes 8-11 with their two high bits on top of bytes 0-7.
struct ScaleAndMin {
  int scale, min;
};
inline ScaleAndMin scale_and_min(const uint8_t* bytes, int j) {
  if (j < 4) return {bytes[j] & 63, bytes[j + 4] & 63};
  return {(bytes[j + 4] & 15) | ((bytes[j - 4] >> 6) << 4), (bytes[j + 4] >> 4) | ((bytes[j] >> 6) << 4)};
}

/// The scale of sub-block j of q3_k, -32 to 31.
inline int q3_k_scale(const uint8_t* block, int j) {
  const uint8_t* packed = block + 96;
  const int low = (packed[j % 8] >> (4 * (j / 8))) & 15, high = (packed[8 + j % 4] >> (2 * (j / 4))) & 3;
  return (low | (high << 4)) - 32;
}

/// The scale of sub-block j of iq4_xs, -32 to 31.
inline int iq4_xs_scale(const uint8_t* block, int j) {
  const int low = (block[4 + j / 2] >> (4 * (j % 2))) & 15, high = ((block[2] | (block[3] << 8)) >> (2 * j)) & 3;
  return (low | (high << 4)) - 32;
}

/// A type of blocks: kValues weights in kBytes bytes.
template <int64_t kValues, int64_t kBytes, DecodeGgmlBlock kDecode>
struct GgmlBlocks {
  static QuantizedTensor layout(const Shape& shape, const EncodeOptions&) {
    QuantizedTensor w;
    w.shape = shape;
    w.block = kValues;
    w.parts["data"] = Tensor::described(DType::u8, {shape.at(0), ceil_div(shape.at(1), kValues) * kBytes});
    return w;
  }

  static void decode_rows(const QuantizedTensor& w, int64_t begin, int64_t end, float* out) {
    const int64_t blocks_per_row = w.cols() / kValues;
    const auto* data = w.part("data").data<uint8_t>();
    for (int64_t b = begin * blocks_per_row; b < end * blocks_per_row; ++b, out += kValues)
      kDecode(data + b * kBytes, out);
  }

  static Format row(std::string_view name) {
    return {.name = name,
            .bits_per_weight = 8.0 * static_cast<double>(kBytes) / static_cast<double>(kValues),
            .block = kValues,
            .readable_by = "nibble, llama.cpp",
            .layout = layout,
            .decode_rows = decode_rows};
  }
};

/// The same with records for computing: where rows are a multiple of 64, "records" and "record_table" take the place of
/// "data" (quant/packed4.h).
template <int64_t kValues, int64_t kBytes, DecodeGgmlBlock kDecode, const GgmlPacking& kPacking>
struct PackedGgmlBlocks : GgmlBlocks<kValues, kBytes, kDecode> {
  using Stored = GgmlBlocks<kValues, kBytes, kDecode>;

  static bool fits(const QuantizedTensor& w) { return w.cols() % kPackInputs == 0; }

  static void pack_rows(const QuantizedTensor& w, const RecordLayout& layout, int64_t begin, int64_t end,
                        uint8_t* records) {
    const auto* data = w.part("data").data<uint8_t>();
    const int64_t row_bytes = w.cols() / kValues * kBytes, inputs = kPackInputs / layout.groups;
    StoredGroup stored = {};
    for (int64_t r = begin; r < end; r += kPackRows) {
      const bool is_short = end - r < kPackRows;
      if (is_short) std::memset(records, 0, static_cast<size_t>(packed4_bytes(end - r, w.cols(), layout)));
      for (int64_t k = 0; k < w.cols(); k += kPackInputs, records += record_bytes(layout)) {
        for (int64_t row = r; row < std::min(r + kPackRows, end); ++row) {
          for (int64_t g = 0; g < layout.groups; ++g) {
            const int64_t input = k + g * inputs;
            kPacking.read_group(data + row * row_bytes + input / kValues * kBytes, input % kValues / inputs, stored);
            put_group(stored, layout, row - r, g, records);
          }
        }
      }
    }
  }

  static Packing packing_of(const QuantizedTensor&) { return {kPacking.layout, kPacking.levels, pack_rows}; }

  static void pack(QuantizedTensor& w, const ComputeOptions&, Residency residency) {
    if (residency == Residency::memory && !w.has("records") && fits(w)) pack_records(w, packing_of(w));
  }

  static void matmul(std::span<const Product> products, const ComputeOptions& options) {
    if (fits(*products[0].w)) return multiply_records(products, options.activations, packing_of);
    for (const Product& p : products) matmul_by_decode(*p.w, p.args);
  }

  static void decode_rows(const QuantizedTensor& w, int64_t begin, int64_t end, float* out) {
    if (w.has("records")) return decode_record_rows(w, begin, end, out);
    Stored::decode_rows(w, begin, end, out);
  }

  static Format row(std::string_view name) {
    Format format = Stored::row(name);
    format.activations_choice = true;
    format.decode_rows = decode_rows;
    format.pack = pack;
    format.matmul = matmul;
    return format;
  }
};

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
