// int8: LLM.int8(), arXiv 2208.07339, as bitsandbytes' CPU backend computes it.
//   parts: CB i8 [rows, cols], SCB f32 [rows]        w = CB * SCB / 127
// The matrix is rounded to fp16 first; each row's largest magnitude becomes 127.
//
// In a product the activations are quantized the same way, row by row. Activations at or above the threshold do not
// take part: every column that holds one, in any row of the batch, is multiplied in the original precision with the
// decoded weights. So a token's result depends on the tokens that share the call with it, unless they are kept apart.
//
// The result is scaled by bitsandbytes' CPU constant for 1/127^2. It is 1.8e-5 too large, relatively (a digit slip for
// 6.2000124e-05; its CUDA code has 6.200012e-05), which costs no accuracy, but the exact value would move activations
// of the next layer across rounding boundaries and so give other logits than bitsandbytes on the same machine.
#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "core/error.h"
#include "core/parallel.h"
#include "kernels/kernels.h"
#include "quant/formats/formats.h"
#include "quant/matmul.h"

namespace nibble {
namespace {

constexpr float kInverse127 = 0.007874015718698502f;  // f32 of 1/127
constexpr double kInverse127Squared = 6.200124e-05;   // bitsandbytes/backends/default/ops.py, int8_mm_dequant
constexpr int64_t kMaxCols = 131'072;                 // beyond it a 32-bit sum could overflow

QuantizedTensor layout(const Shape& shape, const EncodeOptions& options) {
  QuantizedTensor w;
  w.shape = shape;
  w.dtype = options.source_dtype;
  w.parts["CB"] = Tensor::described(DType::i8, shape);
  w.parts["SCB"] = Tensor::described(DType::f32, {shape.at(0)});
  return w;
}

float encode_row(const float* x, int64_t count, int8_t* codes) {
  const float scale = kernels().absmax(x, count);
  // Two roundings, as torch computes 127.0 / tensor. A zero row: 0 * inf is not finite and gives code 0.
  kernels().quantize_i8(x, 1.0f / scale * 127.0f, codes, count);
  return scale;
}

QuantizedTensor encode_int8(const DenseValues& values, const EncodeOptions& options) {
  const Shape& shape = values.matrix.shape;
  QuantizedTensor w = layout(shape, options);
  Tensor codes = Tensor::uninitialized(DType::i8, shape), scales(DType::f32, {shape[0]});
  const int64_t cols = shape[1];
  parallel_for(shape[0], 1, [&](int64_t begin, int64_t end) {
    std::vector<float> half(static_cast<size_t>(cols)), room;
    for (int64_t r = begin; r < end; ++r) {
      std::copy_n(values.at(r * cols, cols, room), cols, half.data());
      round_values(DType::f16, half.data(), cols);
      scales.f32()[r] = encode_row(half.data(), cols, codes.data<int8_t>() + r * cols);
    }
  });
  w.parts["CB"] = std::move(codes);
  w.parts["SCB"] = std::move(scales);
  return w;
}

void decode_rows(const QuantizedTensor& w, int64_t begin, int64_t end, float* out) {
  const int64_t cols = w.cols();
  const auto* codes = w.part("CB").data<int8_t>();
  const float* scales = w.part("SCB").f32();
  for (int64_t r = begin; r < end; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      *out++ = static_cast<float>(codes[r * cols + c]) * scales[r] * kInverse127;
    }
  }
}

/// The activations of one call as the integer product sees them.
struct RowwiseActivations {
  std::vector<int8_t> codes;                        // [tokens, cols], outlier columns zero
  std::vector<float> scales;                        // [tokens]
  int64_t together = 1;                             // tokens whose outliers are one set
  std::vector<std::vector<int64_t>> outliers = {};  // of each set: columns, ascending

  const std::vector<int64_t>& outliers_of(int64_t token) const {
    return outliers[static_cast<size_t>(token / together)];
  }
};

std::vector<int64_t> outlier_columns(std::span<const float> half, int64_t cols, float threshold) {
  if (!(threshold > 0)) return {};
  std::vector<bool> hit(static_cast<size_t>(cols));
  for (size_t i = 0; i < half.size(); ++i) {
    if (std::fabs(half[i]) >= threshold) hit[i % static_cast<size_t>(cols)] = true;
  }
  std::vector<int64_t> columns;
  for (int64_t c = 0; c < cols; ++c) {
    if (hit[static_cast<size_t>(c)]) columns.push_back(c);
  }
  return columns;
}

RowwiseActivations quantize_activations(const MatmulArgs& args, int64_t cols, const ComputeOptions& options) {
  const float threshold = options.int8_threshold;
  std::vector<float> half(args.x, args.x + args.tokens * cols);
  round_values(DType::f16, half.data(), args.tokens * cols);
  RowwiseActivations a;
  a.codes.resize(half.size());
  a.scales.resize(static_cast<size_t>(args.tokens));
  a.together = options.tokens_apart ? 1 : std::max<int64_t>(args.tokens, 1);
  for (int64_t t = 0; t < args.tokens; t += a.together) {
    const auto set = std::span(half).subspan(static_cast<size_t>(t * cols), static_cast<size_t>(a.together * cols));
    a.outliers.push_back(outlier_columns(set, cols, threshold));
  }
  for (int64_t t = 0; t < args.tokens; ++t) {
    float* row = half.data() + t * cols;
    int8_t* codes = a.codes.data() + t * cols;
    for (const int64_t c : a.outliers_of(t)) row[c] = std::fabs(row[c]) >= threshold ? 0.0f : row[c];
    a.scales[static_cast<size_t>(t)] = encode_row(row, cols, codes);
    for (const int64_t c : a.outliers_of(t)) codes[c] = 0;
  }
  return a;
}

/// What the sums of some tokens and rows become.
void scale_sums(const QuantizedTensor& w, const MatmulArgs& args, const RowwiseActivations& a,
                const CodeProducts& products) {
  const auto& [tokens, rows, all_sums, stride] = products;
  const int64_t cols = w.cols();
  const auto* codes = w.part("CB").data<int8_t>();
  const float* scb = w.part("SCB").f32();
  for (int64_t t = tokens.begin; t < tokens.end; ++t) {
    const int32_t* sums = all_sums + (t - tokens.begin) * stride;
    const std::vector<int64_t>& outliers = a.outliers_of(t);
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const float scale = a.scales[static_cast<size_t>(t)] * scb[r];
      double y = static_cast<double>(sums[r - rows.begin]) * scale * kInverse127Squared;
      for (const int64_t c : outliers) {
        const float weight = static_cast<float>(codes[r * cols + c]) * scb[r] * kInverse127;
        y += static_cast<double>(args.x[t * cols + c]) * weight;
      }
      args.y[t * w.rows() + r] = static_cast<float>(y) + (args.bias ? args.bias[r] : 0.0f);
    }
  }
}

void matmul_int8(std::span<const Product> products, const ComputeOptions& options) {
  const auto& [first, args] = products[0];
  const int64_t cols = first->cols();
  if (cols > kMaxCols) fail(ErrorCode::unsupported, std::string(args.name) + ": int8 rows longer than 131072");
  const RowwiseActivations a = quantize_activations(args, cols, options);
  for (const Product& p : products) {
    multiply_codes(a.codes.data(), p.w->part("CB").data<int8_t>(), p.args.tokens, p.w->rows(), cols,
                   [&](const CodeProducts& sums) { scale_sums(*p.w, p.args, a, sums); });
  }
}

}  // namespace

Format int8_format() {
  return {.name = "int8",
          .bits_per_weight = 8.0,  // and one f32 per row
          .readable_by = "nibble, transformers + bitsandbytes",
          .layout = layout,
          .encode = encode_int8,
          .decode_rows = decode_rows,
          .matmul = matmul_int8,
          .mixes_tokens = [](const ComputeOptions& options) { return options.int8_threshold > 0; }};
}

}  // namespace nibble
