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

constexpr int64_t kTileValues = 64 * 1024;  // 256 KiB of decoded weights: a share of the second-level cache
constexpr int64_t kRoundPiece = 4096;
constexpr int64_t kWordCodes = 4;
// Measured: up to here it is faster to widen 16-bit weights anew for every few tokens than to decode tiles of them. The
// bits are the same.
constexpr int64_t kFewTokensOfHalves = 16;

int64_t tile_rows(int64_t cols) { return std::clamp<int64_t>(kTileValues / std::max<int64_t>(cols, 1), 4, kRowGrain); }

/// Rows [begin, end) as f32: a pointer into the tensor when it is f32 already, else decoded into `tile`.
const float* rows_of(const Tensor& w, int64_t begin, int64_t end, std::vector<float>& tile) {
  if (w.dtype == DType::f32) return w.f32() + begin * w.cols();
  tile.resize(static_cast<size_t>((end - begin) * w.cols()));
  decode_rows(w, begin, end, tile.data());
  return tile.data();
}

const float* rows_of(const QuantizedTensor& w, int64_t begin, int64_t end, std::vector<float>& tile) {
  tile.resize(static_cast<size_t>((end - begin) * w.cols()));
  w.format->decode_rows(w, begin, end, tile.data());
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

template <class W>
void multiply_rows(const W& w, const MatmulArgs& args, DType round_to, int64_t begin, int64_t end) {
  static thread_local std::vector<float> tile;
  const int64_t rows = w.rows(), cols = w.cols(), step = tile_rows(cols);
  for (int64_t r = begin; r < end; r += step) {
    const int64_t stop = std::min(end, r + step);
    const float* values = rows_of(w, r, stop, tile);
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
  add_bias(args, rows, begin, end);
}

template <class W>
void multiply(const W& w, const MatmulArgs& args, DType round_to) {
  const int64_t rows = w.rows();
  const auto rounded = [&](const float* values, int64_t count) {
    std::vector<float> copy(values, values + count);
    round_values(round_to, copy.data(), count);
    return copy;
  };
  MatmulArgs inner = args;
  std::vector<float> x, bias;
  if (round_to != DType::f32) {
    inner.x = (x = rounded(args.x, args.tokens * w.cols())).data();
    if (args.bias) inner.bias = (bias = rounded(args.bias, rows)).data();
  }
  parallel_for(rows, kRowGrain, [&](int64_t begin, int64_t end) { multiply_rows(w, inner, round_to, begin, end); });
  if (round_to == DType::f32) return;
  round_values(round_to, args.y, args.tokens * rows);
  if (round_to == DType::f16) require_finite(args.y, args.tokens * rows, args);
}

/// Weights of 16 bits, widened as they are read.
void multiply_half(const Tensor& w, const MatmulArgs& args) {
  const int64_t rows = w.rows(), cols = w.cols();
  const auto product = w.dtype == DType::f16 ? kernels().matvec_f16 : kernels().matvec_bf16;
  parallel_for(rows, kRowGrain, [&](int64_t begin, int64_t end) {
    product({.x = args.x,
             .w = w.data<uint16_t>() + begin * cols,
             .y = args.y + begin,
             .tokens = args.tokens,
             .rows = end - begin,
             .k = cols,
             .ldx = cols,
             .ldw = cols,
             .ldy = rows});
    add_bias(args, rows, begin, end);
  });
}

struct Codes {
  const int8_t *x, *w;
  int64_t tokens, rows, cols;
};

/// Rows [begin, end) of w as columns of words of four codes, each made unsigned.
void turn_codes(const Codes& a, int64_t begin, int64_t end, uint32_t* panels) {
  const int64_t words = a.cols / kWordCodes;
  for_turned_rows(end - begin, [&](Span rows) {
    uint32_t* out = panels + column_in_panels(rows.begin, words);
    kernels().transpose({.x = a.w + (begin + rows.begin) * a.cols,
                         .y = out,
                         .rows = rows.size(),
                         .cols = words,
                         .ldx = words,
                         .ldy = kPanelCols});
    for (int64_t j = 0; j < words; ++j) {
      for (int64_t c = 0; c < rows.size(); ++c) out[j * kPanelCols + c] ^= 0x80808080u;
    }
  });
}

/// For many tokens: the weights turned, some panels at a time.
void multiply_turned(const Codes& a, const ScaleSums& scale) {
  const int64_t words = a.cols / kWordCodes, step = columns_together(words);
  Tensor room = Tensor::scratch(DType::i32, {round_up(std::min(a.rows, step), kPanelCols), words});
  auto* panels = room.data<uint32_t>();
  for (int64_t r = 0; r < a.rows; r += step) {
    const int64_t end = std::min(a.rows, r + step);
    turn_codes(a, r, end, panels);
    for_panels(a.tokens, end - r, [&](Span tokens, Span columns) {
      int32_t sums[kTokensTogether * kPanelCols];
      kernels().sum_codes({.x = a.x + tokens.begin * a.cols,
                           .w = panels + column_in_panels(columns.begin, words),
                           .y = sums,
                           .tokens = tokens.size(),
                           .k = a.cols,
                           .cols = columns.size(),
                           .ldx = a.cols,
                           .ldw = kPanelCols,
                           .ldy = kPanelCols});
      scale({tokens, {r + columns.begin, r + columns.end}, sums, kPanelCols});
    });
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

void matmul_by_decode(const QuantizedTensor& w, const MatmulArgs& args, DType round_to) { multiply(w, args, round_to); }
void add_bias(const MatmulArgs& args, int64_t rows, int64_t begin, int64_t end) {
  if (args.bias == nullptr) return;
  for (int64_t t = 0; t < args.tokens; ++t) {
    for (int64_t r = begin; r < end; ++r) args.y[t * rows + r] += args.bias[r];
  }
}

void matmul_by_decode(const Tensor& w, const MatmulArgs& args) {
  const bool half = w.dtype == DType::f16 || w.dtype == DType::bf16;
  if (half && args.tokens <= kFewTokensOfHalves) return multiply_half(w, args);
  multiply(w, args, DType::f32);
}

void matmul(const Weight& w, const MatmulArgs& args, const ComputeOptions& options) {
  if (const auto* dense = std::get_if<Tensor>(&w)) return matmul_by_decode(*dense, args);
  const auto& quantized = std::get<QuantizedTensor>(w);
  const Product product = {&quantized, args};
  if (quantized.format->matmul) return quantized.format->matmul({&product, 1}, options);
  matmul_by_decode(quantized, args);
}

void matmul_all(std::span<const WeightProduct> products, const ComputeOptions& options) {
  if (products.empty()) return;
  std::vector<Product> same;
  for (const WeightProduct& p : products) {
    const auto* w = std::get_if<QuantizedTensor>(p.w);
    if (w && w->format->matmul && (same.empty() || same[0].w->format == w->format)) same.push_back({w, p.args});
  }
  if (same.size() == products.size()) return same[0].w->format->matmul(same, options);
  for (const WeightProduct& p : products) matmul(*p.w, p.args, options);
}

void multiply_codes(const int8_t* x, const int8_t* w, int64_t tokens, int64_t rows, int64_t cols,
                    const ScaleSums& scale) {
  if (tokens >= kTurnFrom && cols % kWordCodes == 0) return multiply_turned({x, w, tokens, rows, cols}, scale);
  parallel_for(rows, kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> sums(static_cast<size_t>(tokens * std::min(kRowGrain, end - begin)));
    for (int64_t r = begin; r < end; r += kRowGrain) {
      const int64_t stop = std::min(end, r + kRowGrain);
      kernels().matmul_i8({.x = x,
                           .w = w + r * cols,
                           .y = sums.data(),
                           .tokens = tokens,
                           .rows = stop - r,
                           .k = cols,
                           .ldx = cols,
                           .ldw = cols,
                           .ldy = stop - r});
      scale({{0, tokens}, {r, stop}, sums.data(), stop - r});
    }
  });
}

}  // namespace nibble
