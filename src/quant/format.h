#pragma once
// A Format says how bits are stored. Every format is one row of the table in formats.cc; nothing else in nibble
// switches over formats.
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/buffer.h"
#include "core/tensor.h"

namespace nibble {

struct Format;

enum class Granularity { channel, tensor };

/// @throws Error{invalid_argument} unless "channel" or "tensor".
Granularity parse_granularity(const std::string& name);

struct EncodeOptions {
  int64_t block = 0;                               // weights per scale; 0 = the format's own
  bool double_quant = false;                       // quantize the scales too (8 bit, blocks of 256)
  Granularity granularity = Granularity::channel;  // int8-dynamic: one scale per output row, or one in all
  DType source_dtype = DType::f32;                 // what the values were before they were widened to f32
};

/// A matrix in some format. Its parts are tensors with the names that bitsandbytes gives them: "data" (the packed
/// weight), "absmax", "nested_absmax", "nested_quant_map", "CB", "SCB", ... The file of each format says which.
struct QuantizedTensor {
  const Format* format = nullptr;
  Shape shape;               // [rows, cols] of the matrix it stands for
  DType dtype = DType::f32;  // of the matrix before quantization
  int64_t block = 0;
  bool double_quant = false;
  std::map<std::string, Tensor, std::less<>> parts;

  int64_t rows() const { return shape.at(0); }
  int64_t cols() const { return shape.at(1); }
  /// @throws Error{internal} when there is no such part.
  const Tensor& part(std::string_view name) const;
  bool has(std::string_view name) const { return parts.find(name) != parts.end(); }
  /// Of the stored parts, scales and tables included; derived parts do not count.
  uint64_t bytes() const;
};

using Weight = std::variant<Tensor, QuantizedTensor>;

/// What packed weights are multiplied with: the activations as they are (rounded to the compute dtype), or integers
/// with one scale per token and 64 inputs, see kernels/packed4.h.
enum class Activations { f32, i16, i8 };

/// How a product is computed; not stored with the weight but chosen by the model's configuration.
struct ComputeOptions {
  DType compute_dtype = DType::f32;            // 4-bit formats: activations and decoded weights are rounded to it
  Activations activations = Activations::f32;  // 4-bit formats: integers take the place of the compute dtype
  float int8_threshold = 6.0f;                 // int8: activations at or above it are taken out of the integer product
  bool reduce_range = false;                   // int8-dynamic: 127 activation steps as torch's fbgemm, instead of 255
  bool per_token = true;                       // int8-dynamic: one activation scale per token, or torch's one per call
  bool float_activations = false;              // int8-dynamic: only the weights are in 8 bits
  bool tokens_apart = false;                   // each token gets the bits that it would get alone
};

/// y = x W^T + bias. x: [tokens, cols] f32, y: [tokens, rows] f32, both row-major and contiguous.
struct MatmulArgs {
  const float* x;
  float* y;
  int64_t tokens;
  const float* bias = nullptr;  // [rows], added before any rounding of the result
  std::string_view name = {};   // of the layer, for messages
};

/// One of the products that share x and tokens.
struct Product {
  const QuantizedTensor* w;
  MatmulArgs args;
};

/// A dense matrix that is being encoded, its values as f32: where they lie, or widened a piece at a time.
struct DenseValues {
  const Tensor& matrix;

  int64_t count() const { return matrix.count(); }
  /// Values [first, first + n); until `room` changes.
  const float* at(int64_t first, int64_t n, std::vector<float>& room) const;
};

struct Format {
  std::string_view name;                                         // what users type and files record
  double bits_per_weight = 0, bits_per_weight_double_quant = 0;  // at the default block; 0 = has no such variant
  int64_t block = 0;                          // default weights per scale; 0 = whole row, whole tensor or no scale
  std::string_view readable_by;               // what reads files in this format
  std::optional<DType> dense = std::nullopt;  // fp32, fp16, bf16: the matrix is an ordinary tensor
  bool block_choice = false;                  // block sizes 32 to 4096 are allowed
  bool granularity_choice = false;            // a scale per row, or one in all
  bool activations_choice = false;            // ComputeOptions::activations and compute_dtype change products
  bool range_choice = false;                  // ComputeOptions::per_token and reduce_range do

  /// The parts of a [rows, cols] matrix, with dtypes and shapes but without data: what encode() will make.
  QuantizedTensor (*layout)(const Shape& shape, const EncodeOptions& options) = nullptr;
  /// Null: the format can be read but not written.
  QuantizedTensor (*encode)(const DenseValues& values, const EncodeOptions& options) = nullptr;
  /// Rows [begin, end) as f32, into (end - begin) * cols values. The reference for every faster path.
  void (*decode_rows)(const QuantizedTensor& w, int64_t begin, int64_t end, float* out) = nullptr;
  /// Makes the parts that computing is fastest on, once, when a model has loaded the weight; they may take the place of
  /// stored ones, except where those are mapped from their file. Products are the same, bit for bit. Null: computes on
  /// the stored parts.
  void (*pack)(QuantizedTensor& w, const ComputeOptions& options, Residency residency) = nullptr;
  /// Products with one input. Null: decode a tile of rows, then the dense product.
  void (*matmul)(std::span<const Product> products, const ComputeOptions& options) = nullptr;
  /// Whether the result for a token depends on the other tokens of the call. Null: never.
  bool (*mixes_tokens)(const ComputeOptions& options) = nullptr;
};

/// Weights per scale with these options; 0 = the format has no blocks.
inline int64_t block_of(const Format& format, const EncodeOptions& options) {
  return options.block ? options.block : format.block;
}

/// All formats in the order in which they are listed to users.
std::span<const Format> all_formats();

/// Those that `--format` accepts.
std::vector<std::string> writable_format_names();

/// @throws Error{invalid_argument} naming the nearest known format.
const Format& find_format(std::string_view name);

/// The same, or null.
const Format* find_format_or_null(std::string_view name);

/// Rows [begin, end) as f32, into (end - begin) * cols values; of a vector, elements.
void decode_rows(const Weight& w, int64_t begin, int64_t end, float* out);
void decode_rows(const Tensor& w, int64_t begin, int64_t end, float* out);
/// The whole matrix as f32. Works for dense tensors of any float dtype too.
Tensor decode(const Weight& w);
Shape weight_shape(const Weight& w);
uint64_t weight_bytes(const Weight& w);

/// Encodes a dense [rows, cols] matrix, whatever its float dtype. Dense formats return a Tensor. For values that were
/// widened to f32 already, options.source_dtype says what they were.
/// @throws Error{invalid_argument} for a block size the format does not have, or double_quant or granularity where they
///         mean nothing.
Weight encode(const Tensor& w, const Format& format, const EncodeOptions& options);

/// The shape of what encode() would return, without data. Dense formats: a Tensor.
Weight layout(const Shape& shape, DType source_dtype, const Format& format, const EncodeOptions& options);

/// @throws Error{invalid_argument} as encode() would.
void check_encode_options(const Format& format, const EncodeOptions& options);

/// @throws Error{invalid_argument} for a compute_dtype other than f32, f16 and bf16, and for a negative threshold.
void check_compute_options(const ComputeOptions& options);

}  // namespace nibble
