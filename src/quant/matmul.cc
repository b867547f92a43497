#include "quant/matmul.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/parallel.h"
#include "kernels/kernels.h"

namespace nibble {
namespace {

constexpr int64_t kRowGrain = 16;
constexpr int64_t kTileValues = 64 * 1024;  // 256 KiB of decoded weights: a share of the second-level cache
constexpr int64_t kRoundPiece = 4096;

int64_t tile_rows(int64_t cols) { return std::clamp<int64_t>(kTileValues / std::max<int64_t>(cols, 1), 4, kRowGrain); }

/// Rows [begin, end) as f32: a pointer into the tensor when it is f32 already, else decoded into `tile`.
const float* rows_of(const Weight& w, int64_t begin, int64_t end, std::vector<float>& tile, int64_t cols) {
  const auto* dense = std::get_if<Tensor>(&w);
  if (dense && dense->dtype == DType::f32) return dense->f32() + begin * cols;
  tile.resize(static_cast<size_t>((end - begin) * cols));
  decode_rows(w, begin, end, tile.data());
  return tile.data();
}

void require_finite(const float* y, int64_t count, const MatmulArgs& args) {
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(y[i])) {
      fail(ErrorCode::invalid_argument, std::string(args.name) +
                                            ": the result overflows fp16 (largest finite value 65504); use the "
                                            "compute dtype bf16, which has the range of fp32");
    }
  }
}

void multiply_rows(const Weight& w, const MatmulArgs& args, DType round_to, int64_t begin, int64_t end) {
  static thread_local std::vector<float> tile;
  const Shape shape = weight_shape(w);
  const int64_t rows = shape[0], cols = shape[1], step = tile_rows(cols);
  for (int64_t r = begin; r < end; r += step) {
    const int64_t stop = std::min(end, r + step);
    const float* values = rows_of(w, r, stop, tile, cols);
    if (round_to != DType::f32) {
      tile.assign(values, values + (stop - r) * cols);
      round_values(round_to, tile.data(), (stop - r) * cols);
      values = tile.data();
    }
    kernels().matmul_f32({.x = args.x,
                          .w = values,
                          .y = args.y + r,
                          .tokens = args.tokens,
                          .rows = stop - r,
                          .k = cols,
                          .ldx = cols,
                          .ldw = cols,
                          .ldy = rows});
  }
  if (args.bias == nullptr) return;
  for (int64_t t = 0; t < args.tokens; ++t) {
    for (int64_t r = begin; r < end; ++r) args.y[t * rows + r] += args.bias[r];
  }
}

}  // namespace

void round_values(DType dtype, float* values, int64_t count) {
  if (dtype == DType::f32) return;
  uint16_t half[kRoundPiece];
  const Kernels& k = kernels();
  for (int64_t i = 0; i < count; i += kRoundPiece) {
    const int64_t n = std::min(kRoundPiece, count - i);
    (dtype == DType::f16 ? k.f32_to_f16 : k.f32_to_bf16)(values + i, half, n);
    (dtype == DType::f16 ? k.f16_to_f32 : k.bf16_to_f32)(half, values + i, n);
  }
}

void matmul_by_decode(const Weight& w, const MatmulArgs& args, DType round_to) {
  const Shape shape = weight_shape(w);
  const auto rounded = [&](const float* values, int64_t count) {
    std::vector<float> copy(values, values + count);
    round_values(round_to, copy.data(), count);
    return copy;
  };
  MatmulArgs inner = args;
  std::vector<float> x, bias;
  if (round_to != DType::f32) {
    inner.x = (x = rounded(args.x, args.tokens * shape[1])).data();
    if (args.bias) inner.bias = (bias = rounded(args.bias, shape[0])).data();
  }
  parallel_for(shape[0], kRowGrain, [&](int64_t begin, int64_t end) { multiply_rows(w, inner, round_to, begin, end); });
  if (round_to == DType::f32) return;
  round_values(round_to, args.y, args.tokens * shape[0]);
  if (round_to == DType::f16) require_finite(args.y, args.tokens * shape[0], args);
}

void matmul(const Weight& w, const MatmulArgs& args, const ComputeOptions& options) {
  const auto* quantized = std::get_if<QuantizedTensor>(&w);
  if (quantized && quantized->format->matmul) return quantized->format->matmul(*quantized, args, options);
  matmul_by_decode(w, args);
}

}  // namespace nibble
