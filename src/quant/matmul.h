#pragma once
// The portable product of any format: decode a tile of rows into f32, then the dense kernel. Also what the dense
// tensors use.
#include <functional>

#include "quant/format.h"
#include "quant/panels.h"

namespace nibble {

/// y = x W^T with W's rows decoded tile by tile. round_to: activations, decoded weights and results are rounded to this
/// dtype, as a library that computes in it would (sums stay f32); f32 rounds nothing.
/// @throws Error{invalid_argument} naming `args.name` when rounding to f16 overflows.
void matmul_by_decode(const QuantizedTensor& w, const MatmulArgs& args, DType round_to = DType::f32);
void matmul_by_decode(const Tensor& w, const MatmulArgs& args);

/// Runs the format's own product, or matmul_by_decode where it has none.
void matmul(const Weight& w, const MatmulArgs& args, const ComputeOptions& options);

/// Several of them that share x and tokens; weights of one format share the work on x too. The same bits as one by one.
struct WeightProduct {
  const Weight* w;
  MatmulArgs args;
};
void matmul_all(std::span<const WeightProduct> products, const ComputeOptions& options);

/// Exact sums of products of codes, of some tokens and rows: sum of token t and row r at
/// sums[(t - tokens.begin) * stride + r - rows.begin].
struct CodeProducts {
  Span tokens, rows;
  const int32_t* sums;
  int64_t stride;
};

/// y[t, r] from the exact integer sums of codes. x: [tokens, cols], w: [rows, cols].
/// @param scale  what to do with some of the sums; called from several threads.
using ScaleSums = std::function<void(const CodeProducts&)>;
void multiply_codes(const int8_t* x, const int8_t* w, int64_t tokens, int64_t rows, int64_t cols,
                    const ScaleSums& scale);

/// A product of so few tokens is limited by reading the weights, and the fused kernels are the faster ones. They sum in
/// another order than the tiled product; at 1 that shows only between decoding and prefill, and a sequence has the same
/// bits alone and in a batch.
inline constexpr int64_t kFewTokens = 1;
inline constexpr int64_t kRowGrain = 16;

/// Adds args.bias, if there is one, to results [begin, end) of every token. rows: of the whole matrix.
void add_bias(const MatmulArgs& args, int64_t rows, int64_t begin, int64_t end);

/// count values rounded to a 16-bit dtype and back, in place; f32 changes nothing.
void round_values(DType dtype, float* values, int64_t count);

}  // namespace nibble
