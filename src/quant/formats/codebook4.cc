// The 4-bit formats: 16 levels times one f32 scale (absmax) per block of consecutive weights. Blocks run over the
// flattened matrix and may cross rows.
//   parts: data u8 [ceil(n/2), 1]      byte j = (code[2j] << 4) | code[2j+1]
//          absmax f32 [blocks]         or, double-quantized, u8 [blocks] with
//          nested_absmax f32 [ceil(blocks/256)], nested_quant_map f32 [256], nested_offset f32 [1]
//          quant_map f32 [16]          the levels
// packed for computing, the one or the other:
//          records, record_table      instead of all of these: see quant/packed4.h
//          scales f32 [blocks]        the decoded absmax, where that is double-quantized
//
// nf4, fp4: as bitsandbytes' CPU backend, code for code. QLoRA, arXiv 2305.14314.
// int4: levels -8/8 .. 7/8. The scale is chosen so that the value of largest magnitude becomes exactly -8/8, which
// makes the stored absmax signed; docs/formats.md has the measurement against absmax/7.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/checked.h"
#include "core/parallel.h"
#include "kernels/kernels.h"
#include "quant/double_quant.h"
#include "quant/formats/formats.h"
#include "quant/matmul.h"
#include "quant/packed4.h"

namespace nibble {
namespace {

constexpr float kSmallestAbsmax = 1e-38f;       // bitsandbytes clamps the divisor here, so that zero blocks stay finite
constexpr int64_t kEncodedTogether = 8 * 1024;  // values: 32 KiB, within the first-level cache
constexpr int64_t kParallelBlocks = 256;

using Bits = std::array<uint32_t, 16>;

// bitsandbytes functional.py get_4bit_type, as f32 bit patterns.
constexpr Bits kNf4Bits = {0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0, 0xbe91a24d, 0xbe3d353f,
                           0xbdba7871, 0x00000000, 0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a,
                           0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000};
constexpr Bits kFp4Bits = {0x00000000, 0x3baaaaab, 0x3f2aaaab, 0x3f800000, 0x3eaaaaab, 0x3f000000,
                           0x3e2aaaab, 0x3e800000, 0x00000000, 0xbbaaaaab, 0xbf2aaaab, 0xbf800000,
                           0xbeaaaaab, 0xbf000000, 0xbe2aaaab, 0xbe800000};

Codebook4 make_codebook(const std::array<float, 16>& levels) {
  std::array<uint8_t, 16> order;
  for (uint8_t i = 0; i < 16; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](uint8_t a, uint8_t b) { return levels[a] < levels[b]; });
  Codebook4 book = {};
  for (size_t i = 0; i < 16; ++i) {
    book.levels[i] = levels[i];
    book.codes[i] = order[i];
    if (i < 15) book.thresholds[i] = (levels[order[i]] + levels[order[i + 1]]) / 2.0f;
  }
  return book;
}

Codebook4 codebook_from_bits(const Bits& bits) {
  std::array<float, 16> levels;
  for (size_t i = 0; i < 16; ++i) levels[i] = std::bit_cast<float>(bits[i]);
  return make_codebook(levels);
}

const Codebook4& nf4_codebook() {
  static const Codebook4 book = codebook_from_bits(kNf4Bits);
  return book;
}

const Codebook4& fp4_codebook() {
  static const Codebook4 book = codebook_from_bits(kFp4Bits);
  return book;
}

const Codebook4& int4_codebook() {
  static const Codebook4 book = [] {
    std::array<float, 16> levels;
    for (int i = 0; i < 16; ++i) levels[static_cast<size_t>(i)] = static_cast<float>(i - 8) / 8.0f;
    return make_codebook(levels);
  }();
  return book;
}

uint8_t code_of(const Codebook4& book, float value) {
  size_t interval = 0;
  while (interval < 15 && !(value <= book.thresholds[interval])) ++interval;  // NaN passes every threshold
  return book.codes[interval];
}

int64_t block_of(const EncodeOptions& options) { return options.block ? options.block : 64; }

QuantizedTensor layout(const Shape& shape, const EncodeOptions& options) {
  const int64_t n = element_count(shape), blocks = ceil_div(n, block_of(options));
  QuantizedTensor w;
  w.shape = shape;
  w.dtype = options.source_dtype;
  w.block = block_of(options);
  w.double_quant = options.double_quant;
  w.parts["data"] = Tensor::described(DType::u8, {ceil_div(n, 2), 1});
  w.parts["quant_map"] = Tensor::described(DType::f32, {16});
  w.parts["absmax"] = Tensor::described(options.double_quant ? DType::u8 : DType::f32, {blocks});
  if (options.double_quant) {
    w.parts["nested_absmax"] = Tensor::described(DType::f32, {ceil_div(blocks, kNestedBlock)});
    w.parts["nested_quant_map"] = Tensor::described(DType::f32, {256});
    w.parts["nested_offset"] = Tensor::described(DType::f32, {1});
  }
  return w;
}

/// What encoding fills: packed codes and one scale per block.
struct Encoded {
  Tensor data, absmax;
};

/// `count` blocks of `size` values, from the first block on.
struct Blocks {
  int64_t first, count, size;
};

using EncodeBlocks = void (*)(const DenseValues& values, const Blocks& blocks, const Codebook4&, uint8_t* packed,
                              float* absmax);
using EncodeTail = void (*)(std::span<const float> x, const Codebook4&, uint8_t* packed, float* absmax);

// The last, shorter block: bitsandbytes divides here instead of multiplying with the reciprocal, and stores the
// clamped absmax. An odd count leaves the code of zero in the last low nibble.
void encode_tail_bnb(std::span<const float> x, const Codebook4& book, uint8_t* packed, float* absmax) {
  float largest = 0.0f;
  for (const float v : x) largest = std::isnan(v) || std::fabs(v) > largest ? std::fabs(v) : largest;
  *absmax = largest < kSmallestAbsmax ? kSmallestAbsmax : largest;
  const auto code = [&](size_t i) {
    if (i >= x.size()) return code_of(book, 0.0f);
    const float scaled = x[i] / *absmax;
    return code_of(book, std::isnan(scaled) ? scaled : std::clamp(scaled, -1.0f, 1.0f));
  };
  for (size_t i = 0; i < x.size(); i += 2) packed[i / 2] = static_cast<uint8_t>((code(i) << 4) | code(i + 1));
}

/// Their values as f32, until the next call.
const float* values_of(const DenseValues& values, const Blocks& blocks) {
  static thread_local std::vector<float> room;
  return values.at(blocks.first * blocks.size, blocks.count * blocks.size, room);
}

void encode_blocks_bnb(const DenseValues& values, const Blocks& blocks, const Codebook4& book, uint8_t* packed,
                       float* absmax) {
  if (values.matrix.dtype == DType::bf16) {
    const uint16_t* x = values.matrix.data<uint16_t>() + blocks.first * blocks.size;
    return kernels().encode_4bit_bf16(x, blocks.count, blocks.size, book, packed, absmax);
  }
  kernels().encode_4bit(values_of(values, blocks), blocks.count, blocks.size, book, packed, absmax);
}

// Value of largest magnitude -> -8. A value that is not finite counts as zero (and is reported by quantize).
void encode_tail_int4(std::span<const float> x, const Codebook4& book, uint8_t* packed, float* absmax) {
  const auto count = static_cast<int64_t>(x.size());
  const float largest = kernels().absmax(x.data(), count);
  if (!std::isfinite(largest)) {
    std::vector<float> finite(x.begin(), x.end());
    std::replace_if(
        finite.begin(), finite.end(), [](float v) { return !std::isfinite(v); }, 0.0f);
    return encode_tail_int4(finite, book, packed, absmax);
  }
  const float extreme = *std::find_if(x.begin(), x.end(), [&](float v) { return std::fabs(v) == largest; });
  const bool zero = !std::isfinite(8.0f / extreme);  // or too small to divide by
  *absmax = zero ? 0.0f : -extreme;
  static thread_local std::vector<int8_t> codes;
  codes.assign(x.size() + 1, 8);  // an odd count is filled up with the code of zero
  kernels().quantize_affine(x.data(), {.inverse = zero ? 0.0f : -8.0f / extreme, .low = -8, .high = 7, .offset = 8},
                            codes.data(), count);
  for (size_t i = 0; i < x.size(); i += 2) packed[i / 2] = static_cast<uint8_t>((codes[i] << 4) | codes[i + 1]);
}

void encode_blocks_int4(const DenseValues& values, const Blocks& blocks, const Codebook4& book, uint8_t* packed,
                        float* absmax) {
  const float* x = values_of(values, blocks);
  for (int64_t b = 0; b < blocks.count; ++b, x += blocks.size, packed += blocks.size / 2) {
    encode_tail_int4({x, static_cast<size_t>(blocks.size)}, book, packed, absmax + b);
  }
}

Encoded encode_flat(const DenseValues& values, int64_t block, const Codebook4& book, EncodeBlocks encode_blocks,
                    EncodeTail encode_tail) {
  const int64_t n = values.count(), full = n / block, step = std::max<int64_t>(1, kEncodedTogether / block);
  Encoded out = {Tensor::uninitialized(DType::u8, {ceil_div(n, 2), 1}),
                 Tensor::uninitialized(DType::f32, {ceil_div(n, block)})};
  auto* packed = out.data.data<uint8_t>();
  float* absmax = out.absmax.f32();
  parallel_for(full, kParallelBlocks, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; b += step) {
      encode_blocks(values, {b, std::min(step, end - b), block}, book, packed + b * block / 2, absmax + b);
    }
  });
  if (const int64_t rest = n - full * block; rest > 0) {
    std::vector<float> room;
    encode_tail({values.at(full * block, rest, room), static_cast<size_t>(rest)}, book, packed + full * block / 2,
                absmax + full);
  }
  return out;
}

QuantizedTensor finish(Encoded encoded, const Codebook4& book, const Shape& shape, const EncodeOptions& options) {
  QuantizedTensor w = layout(shape, options);
  w.parts["quant_map"] = Tensor::from(std::span(book.levels));
  w.parts["data"] = std::move(encoded.data);
  if (!options.double_quant) {
    w.parts["absmax"] = std::move(encoded.absmax);
    return w;
  }
  const std::span<const float> absmax(encoded.absmax.f32(), static_cast<size_t>(encoded.absmax.count()));
  const float offset = mean_of(absmax);
  NestedScales nested = quantize_nested(absmax, offset);
  w.parts["absmax"] = std::move(nested.codes);
  w.parts["nested_absmax"] = std::move(nested.nested_absmax);
  w.parts["nested_quant_map"] = Tensor::from(std::span(signed_dynamic_map()));
  w.parts["nested_offset"] = Tensor::from(std::span(&offset, 1));
  return w;
}

QuantizedTensor encode_nf4(const DenseValues& values, const EncodeOptions& options) {
  return finish(encode_flat(values, block_of(options), nf4_codebook(), encode_blocks_bnb, encode_tail_bnb),
                nf4_codebook(), values.matrix.shape, options);
}

QuantizedTensor encode_fp4(const DenseValues& values, const EncodeOptions& options) {
  return finish(encode_flat(values, block_of(options), fp4_codebook(), encode_blocks_bnb, encode_tail_bnb),
                fp4_codebook(), values.matrix.shape, options);
}

QuantizedTensor encode_int4(const DenseValues& values, const EncodeOptions& options) {
  return finish(encode_flat(values, block_of(options), int4_codebook(), encode_blocks_int4, encode_tail_int4),
                int4_codebook(), values.matrix.shape, options);
}

/// Scales of blocks [first, first + count) as f32: the packed part when it is there, else decoded into `room`.
const float* scales_of(const QuantizedTensor& w, int64_t first, int64_t count, std::vector<float>& room) {
  if (w.has("scales")) return w.part("scales").f32() + first;
  if (!w.double_quant) return w.part("absmax").f32() + first;
  room.resize(static_cast<size_t>(count));
  const NestedView nested = {.codes = w.part("absmax").data<uint8_t>(),
                             .nested_absmax = w.part("nested_absmax").f32(),
                             .map = w.part("nested_quant_map").f32(),
                             .offset = w.part("nested_offset").f32()[0]};
  decode_nested(nested, first, count, room.data());
  return room.data();
}

void decode_rows(const QuantizedTensor& w, int64_t begin, int64_t end, float* out) {
  static thread_local std::vector<float> room;
  const int64_t first = begin * w.cols(), count = (end - begin) * w.cols();
  if (count == 0) return;
  if (w.has("records")) return decode_record_rows(w, begin, end, out);
  const int64_t first_block = first / w.block, last_block = (first + count - 1) / w.block;
  const float* scales = scales_of(w, first_block, last_block - first_block + 1, room);
  // The kernel indexes absmax by (first + i) / block, so it is given the address block 0 would have.
  kernels().decode_4bit(w.part("data").data<uint8_t>() + first_block * w.block / 2, scales, w.part("quant_map").f32(),
                        first - first_block * w.block, count, w.block, out);
}

/// Whether the products of packed weights are what the options ask for: integers, or f32 that nothing is rounded to.
bool packed_products(const QuantizedTensor& w, const ComputeOptions& options) {
  const bool fits = w.cols() % kPackInputs == 0 && (w.block % kPackInputs == 0 || w.block == kPackInputs / 2);
  return fits && (options.activations != Activations::f32 || options.compute_dtype == DType::f32);
}

void pack_rows(const QuantizedTensor& w, const RecordLayout& layout, int64_t begin, int64_t end, uint8_t* records) {
  std::vector<float> room;
  const int64_t first = begin * w.cols(), first_block = first / w.block;
  const int64_t blocks = ceil_div(end * w.cols(), w.block) - first_block;
  kernels().pack_4bit({.packed = w.part("data").data<uint8_t>() + first_block * w.block / 2,
                       .absmax = scales_of(w, first_block, blocks, room),
                       .records = records,
                       .first = first - first_block * w.block,
                       .block = w.block,
                       .rows = end - begin,
                       .k = w.cols(),
                       .layout = layout});
}

/// With scales of f32, which hold any.
Packing packing_of(const QuantizedTensor& w) {
  const RecordLayout layout = {.groups = w.block < kPackInputs ? 2 : 1, .scale_type = ScaleType::f32};
  return {.layout = layout, .levels = w.part("quant_map").f32(), .pack_rows = pack_rows};
}

void pack(QuantizedTensor& w, const ComputeOptions& options, Residency residency) {
  if (residency == Residency::mapped || w.has("records") || w.has("scales")) return;
  const bool packed = packed_products(w, options);
  if (!packed && !w.double_quant) return;
  std::vector<float> room;
  const int64_t blocks = w.part("absmax").count();
  const float* scales = scales_of(w, 0, blocks, room);
  if (w.double_quant) w.parts["scales"] = Tensor::from(std::span(scales, static_cast<size_t>(blocks)));
  if (!packed) return;
  Packing packing = packing_of(w);
  if (fits_bf16(scales, blocks)) packing.layout.scale_type = ScaleType::bf16;
  pack_records(w, packing);
}

/// Few tokens: the codes are decoded in registers, between reading them and multiplying.
void multiply_few(const QuantizedTensor& w, const MatmulArgs& args) {
  const int64_t rows = w.rows(), cols = w.cols(), blocks_per_row = cols / w.block;
  parallel_for(rows, kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> room;
    kernels().matvec_4bit({.x = args.x,
                           .packed = w.part("data").data<uint8_t>() + begin * cols / 2,
                           .absmax = scales_of(w, begin * blocks_per_row, (end - begin) * blocks_per_row, room),
                           .levels = w.part("quant_map").f32(),
                           .y = args.y + begin,
                           .first = 0,
                           .block = w.block,
                           .tokens = args.tokens,
                           .rows = end - begin,
                           .k = cols,
                           .ldx = cols,
                           .ldy = rows});
    add_bias(args, rows, begin, end);
  });
}

void matmul_4bit(std::span<const Product> products, const ComputeOptions& options) {
  const bool one_layout = std::all_of(products.begin(), products.end(), [&](const Product& p) {
    return packed_products(*p.w, options) && (p.w->block < kPackInputs) == (products[0].w->block < kPackInputs);
  });
  if (one_layout) return multiply_records(products, options.activations, packing_of);
  for (const Product& product : products) {
    const auto& [w, args] = product;
    const bool whole_blocks = w->cols() % w->block == 0, few = args.tokens <= kFewTokens || options.tokens_apart;
    if (packed_products(*w, options)) {
      multiply_records({&product, 1}, options.activations, packing_of);
    } else if (few && whole_blocks && options.compute_dtype == DType::f32) {
      multiply_few(*w, args);
    } else {
      matmul_by_decode(*w, args, options.compute_dtype);
    }
  }
}

Format format_4bit(std::string_view name, std::string_view readable_by, decltype(Format::encode) encode) {
  return {.name = name,
          .bits_per_weight = 4.5,  // 4 + 32/64
          .bits_per_weight_double_quant = 4.0 + 8.0 / 64 + 32.0 / (64 * 256),
          .block = 64,
          .readable_by = readable_by,
          .block_choice = true,
          .activations_choice = true,
          .layout = layout,
          .encode = encode,
          .decode_rows = decode_rows,
          .pack = pack,
          .matmul = matmul_4bit};
}

}  // namespace

Format nf4_format() { return format_4bit("nf4", "nibble, transformers + bitsandbytes", encode_nf4); }
Format fp4_format() { return format_4bit("fp4", "nibble, transformers + bitsandbytes", encode_fp4); }
Format int4_format() { return format_4bit("int4", "nibble", encode_int4); }

}  // namespace nibble
