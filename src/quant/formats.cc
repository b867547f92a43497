// THE TABLE of formats.
#include <algorithm>

#include "core/dtype.h"
#include "core/error.h"
#include "core/parallel.h"
#include "kernels/kernels.h"
#include "quant/format.h"
#include "quant/formats/formats.h"
#include "quant/weight_source.h"

namespace nibble {
namespace {

constexpr int64_t kDecodeGrain = 64 * 1024;  // values
constexpr int64_t kBlockSizes[] = {32, 64, 128, 256, 512, 1024, 2048, 4096};

const std::vector<Format>& table() {
  static const std::vector<Format> formats = [] {
    std::vector<Format> rows = {
        dense_format(DType::f32),
        dense_format(DType::f16),
        dense_format(DType::bf16),
        int8_format(),
        int8_dynamic_format(),
        nf4_format(),
        fp4_format(),
        int4_format(),
    };
    const auto ggml = ggml_formats();
    rows.insert(rows.end(), ggml.begin(), ggml.end());
    return rows;
  }();
  return formats;
}

/// Values [first, first + count) of a dense tensor as f32.
void widen(const Tensor& t, int64_t first, int64_t count, float* out) {
  if (t.dtype == DType::f16) return kernels().f16_to_f32(t.data<uint16_t>() + first, out, count);
  if (t.dtype == DType::bf16) return kernels().bf16_to_f32(t.data<uint16_t>() + first, out, count);
  to_f32(t.dtype, t.raw() + static_cast<size_t>(first) * dtype_bytes(t.dtype), out, count);
}

bool writable(const Format& format) { return format.encode != nullptr || format.dense.has_value(); }

}  // namespace

std::span<const Format> all_formats() { return table(); }

std::vector<std::string> writable_format_names() {
  std::vector<std::string> names;
  for (const Format& format : table()) {
    if (writable(format)) names.emplace_back(format.name);
  }
  return names;
}

const Format* find_format_or_null(std::string_view name) {
  for (const Format& format : table()) {
    if (format.name == name) return &format;
  }
  return nullptr;
}

Granularity parse_granularity(const std::string& name) {
  if (name == "channel") return Granularity::channel;
  if (name == "tensor") return Granularity::tensor;
  fail(ErrorCode::invalid_argument, "granularity: found '" + name + "', expected channel or tensor");
}

const Format& find_format(std::string_view name) {
  if (const Format* format = find_format_or_null(name)) return *format;
  const std::vector<std::string> known = writable_format_names();
  const std::string nearest = nearest_name(name, known);
  std::string list;
  for (const std::string& k : known) list += (list.empty() ? "" : ", ") + k;
  fail(ErrorCode::invalid_argument, "unknown format '" + std::string(name) + "'" +
                                        (nearest.empty() ? "" : ", did you mean '" + nearest + "'?") +
                                        " (known: " + list + ")");
}

const Tensor& QuantizedTensor::part(std::string_view name) const {
  const auto it = parts.find(name);
  if (it == parts.end()) fail(ErrorCode::internal, std::string(format->name) + ": no part '" + std::string(name) + "'");
  return it->second;
}

uint64_t QuantizedTensor::bytes() const {
  const bool one_scale = has("scale") && part("scale").count() == 1;
  const QuantizedTensor stored =
      format->layout(shape, {.block = block,
                             .double_quant = double_quant,
                             .granularity = one_scale ? Granularity::tensor : Granularity::channel});
  uint64_t total = 0;
  for (const auto& [name, tensor] : stored.parts) {
    if (name != "nested_offset") total += tensor.bytes();  // it lies in the JSON beside the matrix
  }
  return total;
}

DType stored_dtype(const SourceTensor& tensor) {
  if (const Format* format = find_format_or_null(tensor.format)) return format->dense.value_or(DType::f32);
  std::string name = tensor.format;  // in lower case what safetensors calls it, such as "i64"
  for (char& c : name) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  return dtype_from_safetensors(name).value_or(DType::f32);
}

Shape weight_shape(const Weight& w) {
  return std::visit([](const auto& value) { return value.shape; }, w);
}

uint64_t weight_bytes(const Weight& w) {
  return std::visit([](const auto& value) { return uint64_t{value.bytes()}; }, w);
}

void decode_rows(const Weight& w, int64_t begin, int64_t end, float* out) {
  if (const auto* quantized = std::get_if<QuantizedTensor>(&w)) {
    return quantized->format->decode_rows(*quantized, begin, end, out);
  }
  decode_rows(std::get<Tensor>(w), begin, end, out);
}

void decode_rows(const Tensor& w, int64_t begin, int64_t end, float* out) {
  widen(w, begin * w.cols(), (end - begin) * w.cols(), out);
}

const float* DenseValues::at(int64_t first, int64_t n, std::vector<float>& room) const {
  if (matrix.dtype == DType::f32) return matrix.f32() + first;
  room.resize(static_cast<size_t>(n));
  widen(matrix, first, n, room.data());
  return room.data();
}

Tensor decode(const Weight& w) {
  if (const auto* dense = std::get_if<Tensor>(&w); dense && dense->dtype == DType::f32) return *dense;
  Tensor out(DType::f32, weight_shape(w));
  const int64_t cols = out.cols();
  parallel_for(out.rows(), std::max<int64_t>(1, kDecodeGrain / std::max<int64_t>(cols, 1)),
               [&](int64_t begin, int64_t end) { decode_rows(w, begin, end, out.f32() + begin * cols); });
  return out;
}

void check_encode_options(const Format& format, const EncodeOptions& options) {
  const std::string name(format.name);
  if (!writable(format)) fail(ErrorCode::unsupported, "format '" + name + "' can be read but not written");
  if (options.block != 0 && !format.block_choice && options.block != format.block) {
    fail(ErrorCode::invalid_argument, "format '" + name + "' has no block size to choose");
  }
  if (options.block != 0 && format.block_choice &&
      std::find(std::begin(kBlockSizes), std::end(kBlockSizes), options.block) == std::end(kBlockSizes)) {
    fail(ErrorCode::invalid_argument,
         "block " + std::to_string(options.block) + ": expected one of 32, 64, 128, 256, 512, 1024, 2048, 4096");
  }
  if (options.double_quant && format.bits_per_weight_double_quant == 0) {
    fail(ErrorCode::invalid_argument,
         "double_quant has no meaning for format '" + name + "': only the 4-bit formats have scales to quantize");
  }
  if (options.granularity != Granularity::channel && !format.granularity_choice) {
    fail(ErrorCode::invalid_argument,
         "granularity has no meaning for format '" + name + "': only int8-dynamic has one scale per row or in all");
  }
}

void check_compute_options(const ComputeOptions& options) {
  const DType dtype = options.compute_dtype;
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16) {
    fail(ErrorCode::invalid_argument,
         "compute_dtype: found " + std::string(dtype_name(dtype)) + ", expected fp32, fp16 or bf16");
  }
  if (!(options.int8_threshold >= 0)) {
    fail(ErrorCode::invalid_argument,
         "int8_threshold: found " + std::to_string(options.int8_threshold) + ", expected a number >= 0");
  }
}

Weight layout(const Shape& shape, DType source_dtype, const Format& format, const EncodeOptions& options) {
  check_encode_options(format, options);
  if (format.dense) return Tensor::described(*format.dense, shape);
  EncodeOptions full = options;
  full.source_dtype = source_dtype;
  QuantizedTensor out = format.layout(shape, full);
  out.format = &format;
  return out;
}

Weight encode(const Tensor& w, const Format& format, const EncodeOptions& options) {
  check_encode_options(format, options);
  if (format.dense) return w.cast(*format.dense);
  if (w.shape.size() != 2) {
    fail(ErrorCode::invalid_argument, "only matrices can be quantized, found shape " + shape_text(w.shape));
  }
  EncodeOptions full = options;
  if (w.dtype != DType::f32) full.source_dtype = w.dtype;
  QuantizedTensor out = format.encode({w}, full);
  out.format = &format;
  return out;
}

}  // namespace nibble
