// int8-dynamic: what torch calls quantize_dynamic. Weights: signed 8 bit, symmetric, one scale per output row
// (granularity channel) or one in all (tensor). Activations: unsigned 8 bit, affine, ranges taken from each call, or
// fixed ones where training with quantization has found them.
//   parts: data i8 [rows, cols], scale f32 [rows] or [1], zero_point i32 (zeros; kept because torch keeps them)
//          input_scale f32 [1], input_zero_point i32 [1]: the fixed range, if there is one
//   packed for computing: row_sums i32 [rows], row_scales f32 [rows]
// Source: torch.ao.quantization MinMaxObserver and ATen's ChooseQuantizationParams; arithmetic in docs/formats.md.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "core/error.h"
#include "core/parallel.h"
#include "kernels/kernels.h"
#include "quant/affine.h"
#include "quant/formats/formats.h"
#include "quant/matmul.h"

namespace nibble {
namespace {

constexpr float kScaleFloor = 1.1920928955078125e-07f;  // torch's eps for weight scales
constexpr int64_t kMaxCols = 131'072;
// Up to here the exact sum of a row, at most 255 * 128 a column, and both its halves, 128 * 128 a column, fit 32 bits.
constexpr int64_t kInt32Cols = 65'536;

int64_t scale_count(const Shape& shape, const EncodeOptions& options) {
  return options.granularity == Granularity::channel ? shape.at(0) : 1;
}

QuantizedTensor layout(const Shape& shape, const EncodeOptions& options) {
  QuantizedTensor w;
  w.shape = shape;
  w.dtype = options.source_dtype;
  w.parts["data"] = Tensor::described(DType::i8, shape);
  w.parts["scale"] = Tensor::described(DType::f32, {scale_count(shape, options)});
  w.parts["zero_point"] = Tensor::described(DType::i32, {scale_count(shape, options)});
  return w;
}

// qint8 symmetric: 255 steps over [-absmax, absmax], so the scale is absmax / 127.5 and -128 does occur.
void encode_rows(std::span<const float> x, float* scale, int8_t* codes) {
  const auto count = static_cast<int64_t>(x.size());
  const float absmax = kernels().absmax(x.data(), count);
  *scale = std::max(absmax / 127.5f, kScaleFloor);
  if (!std::isfinite(absmax)) {
    std::fill_n(codes, count, int8_t{0});
    return;
  }
  kernels().quantize_affine(x.data(), {.inverse = 1.0f / *scale, .low = -128, .high = 127, .offset = 0}, codes, count);
}

QuantizedTensor encode_int8_dynamic(const DenseValues& values, const EncodeOptions& options) {
  const Shape& shape = values.matrix.shape;
  QuantizedTensor w = layout(shape, options);
  const int64_t scales = scale_count(shape, options);
  Tensor codes = Tensor::uninitialized(DType::i8, shape), scale(DType::f32, {scales});
  const int64_t length = values.count() / std::max<int64_t>(scales, 1);
  parallel_for(scales, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> room;
    for (int64_t s = begin; s < end; ++s) {
      encode_rows({values.at(s * length, length, room), static_cast<size_t>(length)}, scale.f32() + s,
                  codes.data<int8_t>() + s * length);
    }
  });
  w.parts["data"] = std::move(codes);
  w.parts["scale"] = std::move(scale);
  w.parts["zero_point"] = Tensor(DType::i32, {scales});
  return w;
}

void decode_rows(const QuantizedTensor& w, int64_t begin, int64_t end, float* out) {
  const auto* codes = w.part("data").data<int8_t>();
  const Tensor& scales = w.part("scale");
  for (int64_t r = begin; r < end; ++r) {
    const float scale = scales.f32()[scales.count() == 1 ? 0 : r];
    for (int64_t c = 0; c < w.cols(); ++c) *out++ = static_cast<float>(codes[r * w.cols() + c]) * scale;
  }
}

void pack(QuantizedTensor& w, const ComputeOptions&, Residency) {
  if (w.has("row_sums")) return;
  Tensor sums(DType::i32, {w.rows()});
  const auto* codes = w.part("data").data<int8_t>();
  for (int64_t r = 0; r < w.rows(); ++r) {
    int32_t sum = 0;
    for (int64_t c = 0; c < w.cols(); ++c) sum += codes[r * w.cols() + c];
    sums.data<int32_t>()[r] = sum;
  }
  w.parts["row_sums"] = std::move(sums);
  const Tensor& scale = w.part("scale");
  Tensor scales(DType::f32, {w.rows()});
  for (int64_t r = 0; r < w.rows(); ++r) scales.f32()[r] = scale.f32()[scale.count() == 1 ? 0 : r];
  w.parts["row_scales"] = std::move(scales);
}

/// A range that was fixed when the model was made.
std::optional<AffineRange> fixed_range(const QuantizedTensor& w) {
  if (!w.has("input_scale")) return std::nullopt;
  return AffineRange{.scale = w.part("input_scale").f32()[0],
                     .zero_point = w.part("input_zero_point").data<int32_t>()[0]};
}

struct AffineActivations {
  std::vector<int8_t> codes;        // [tokens, cols], less 128
  std::vector<AffineRange> ranges;  // [tokens]
};

AffineActivations quantize_activations(const MatmulArgs& args, int64_t cols, const ComputeOptions& options,
                                       const std::optional<AffineRange>& fixed) {
  const int levels = options.reduce_range ? 127 : 255;
  AffineActivations a;
  a.codes.resize(static_cast<size_t>(args.tokens * cols));
  a.ranges.resize(static_cast<size_t>(args.tokens));
  const bool per_token = (options.per_token || options.tokens_apart) && !fixed;
  AffineRange whole = fixed.value_or(AffineRange());
  if (!per_token && !fixed) whole = choose_range(extent_of(args.x, args.tokens * cols), levels);
  parallel_for(args.tokens, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      AffineRange& range = a.ranges[static_cast<size_t>(t)];
      const float* x = args.x + t * cols;
      range = per_token ? choose_range(extent_of(x, cols), levels) : whole;
      quantize_affine(x, cols, range, levels, a.codes.data() + t * cols);
      // Codes hide what is not finite; every output of its token shows it.
      if (!std::isfinite(kernels().absmax(x, cols))) range.scale = std::numeric_limits<float>::quiet_NaN();
    }
  });
  return a;
}

/// As the kernel scale_sums, for rows so long that their sums take more than 32 bits.
void scale_long_sums(const ScaledSums& a, int64_t count) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t exact = a.sums[i] + int64_t{a.offset} * a.column_sums[i];
    a.y[i] = static_cast<float>(exact) * (a.scale * a.scales[i]);
    if (a.bias != nullptr) a.y[i] += a.bias[i];
  }
}

void multiply(const QuantizedTensor& w, const MatmulArgs& args, const AffineActivations& a) {
  const auto scale = w.cols() <= kInt32Cols ? kernels().scale_sums : scale_long_sums;
  const auto* row_sums = w.part("row_sums").data<int32_t>();
  const float* scales = w.part("row_scales").f32();
  const auto scale_sums = [&](const CodeProducts& products) {
    const Span rows = products.rows;
    const int32_t* sums = products.sums;
    for (int64_t t = products.tokens.begin; t < products.tokens.end; ++t, sums += products.stride) {
      const AffineRange& range = a.ranges[static_cast<size_t>(t)];
      scale({.sums = sums,
             .column_sums = row_sums + rows.begin,
             .offset = 128 - range.zero_point,
             .scale = range.scale,
             .scales = scales + rows.begin,
             .bias = args.bias ? args.bias + rows.begin : nullptr,
             .y = args.y + t * w.rows() + rows.begin},
            rows.size());
    }
  };
  multiply_codes(a.codes.data(), w.part("data").data<int8_t>(), args.tokens, w.rows(), w.cols(), scale_sums);
}

/// Codes times the activations as they are.
void multiply_floats(const QuantizedTensor& w, const MatmulArgs& args) {
  const int64_t rows = w.rows(), cols = w.cols();
  const float* scales = w.part("row_scales").f32();
  parallel_for(rows, kRowGrain, [&](int64_t begin, int64_t end) {
    kernels().matvec_i8({.x = args.x,
                         .w = w.part("data").data<int8_t>() + begin * cols,
                         .y = args.y + begin,
                         .tokens = args.tokens,
                         .rows = end - begin,
                         .k = cols,
                         .ldx = cols,
                         .ldw = cols,
                         .ldy = rows});
    for (int64_t t = 0; t < args.tokens; ++t) {
      for (int64_t r = begin; r < end; ++r) args.y[t * rows + r] *= scales[r];
    }
    add_bias(args, rows, begin, end);
  });
}

void matmul_int8_dynamic(std::span<const Product> products, const ComputeOptions& options) {
  if (options.float_activations) {
    for (const auto& [w, args] : products) multiply_floats(*w, args);
    return;
  }
  const auto& [first, args] = products[0];
  const int64_t cols = first->cols();
  if (cols > kMaxCols) fail(ErrorCode::unsupported, std::string(args.name) + ": int8 rows longer than 131072");
  std::optional<AffineRange> fixed = fixed_range(*first);
  AffineActivations a = quantize_activations(args, cols, options, fixed);
  for (const Product& product : products) {
    if (const auto own = fixed_range(*product.w); own != fixed) {
      fixed = own;
      a = quantize_activations(args, cols, options, fixed);
    }
    multiply(*product.w, product.args, a);
  }
}

}  // namespace

Format int8_dynamic_format() {
  return {.name = "int8-dynamic",
          .bits_per_weight = 8.0,  // and one f32 scale and one i32 zero point per row
          .readable_by = "nibble",
          .granularity_choice = true,
          .range_choice = true,
          .layout = layout,
          .encode = encode_int8_dynamic,
          .decode_rows = decode_rows,
          .pack = pack,
          .matmul = matmul_int8_dynamic,
          .mixes_tokens = [](const ComputeOptions& options) { return !options.per_token; }};
}

}  // namespace nibble
