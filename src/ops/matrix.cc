#include "ops/matrix.h"

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "kernels/kernels.h"
#include "quant/matmul.h"

namespace nibble {
namespace {

constexpr int64_t kPatch = 16;        // a patch of 16 x 16 floats is read and written in whole cache lines
constexpr int64_t kColumnGrain = 64;  // what a tile of sum_rows takes
constexpr int64_t kTileRows = 256;    // of a weight, decoded together

/// A matrix within a larger one: element (r, c) at data[r * stride + c].
struct Source {
  const float* data;
  int64_t stride;
};
struct Target {
  float* data;
  int64_t stride;
};

/// to(c, r) = from(r, c) for r < rows and c in [begin, end).
void transpose_columns(Source from, int64_t rows, int64_t begin, int64_t end, Target to) {
  for (int64_t r = 0; r < rows; r += kPatch) {
    const int64_t r_end = std::min(rows, r + kPatch);
    for (int64_t c = begin; c < end; c += kPatch) {
      const int64_t c_end = std::min(end, c + kPatch);
      for (int64_t j = c; j < c_end; ++j) {
        float* out = to.data + j * to.stride;
        for (int64_t i = r; i < r_end; ++i) out[i] = from.data[i * from.stride + j];
      }
    }
  }
}

/// Rows [begin, end) of a weight as f32: where they lie, or decoded into `room`.
const float* rows_of(const Weight& w, int64_t begin, int64_t end, std::vector<float>& room) {
  const int64_t cols = weight_shape(w)[1];
  const auto* dense = std::get_if<Tensor>(&w);
  if (dense && dense->dtype == DType::f32) return dense->f32() + begin * cols;
  parallel_for(end - begin, kRowGrain,
               [&](int64_t from, int64_t to) { decode_rows(w, begin + from, begin + to, room.data() + from * cols); });
  return room.data();
}

/// Rows [first, first + rows) of a weight as f32.
struct WeightTile {
  Source values;
  int64_t first, rows;
};

/// y = x w for columns [begin, end) of w and the first rows of w; y += x w for those that follow.
void add_product(const Tensor& x, const WeightTile& w, int64_t begin, int64_t end, Tensor& y) {
  kernels().sum_rows_f32({.x = x.f32() + w.first,
                          .w = w.values.data + begin,
                          .y = y.f32() + begin,
                          .tokens = x.rows(),
                          .k = w.rows,
                          .cols = end - begin,
                          .ldx = x.cols(),
                          .ldw = w.values.stride,
                          .ldy = y.cols(),
                          .add = w.first > 0});
}

}  // namespace

Tensor matmul(const Tensor& x, const Tensor& w) {
  Tensor y = Tensor::uninitialized(DType::f32, {x.rows(), w.rows()});
  const auto product = [&](int64_t token, int64_t tokens, int64_t row, int64_t rows) {
    kernels().matmul_f32({.x = x.f32() + token * x.cols(),
                          .w = w.f32() + row * w.cols(),
                          .y = y.f32() + token * w.rows() + row,
                          .tokens = tokens,
                          .rows = rows,
                          .k = x.cols(),
                          .ldx = x.cols(),
                          .ldw = w.cols(),
                          .ldy = w.rows()});
  };
  if (x.rows() > w.rows()) {
    parallel_for(x.rows(), kRowGrain, [&](int64_t begin, int64_t end) { product(begin, end - begin, 0, w.rows()); });
  } else {
    parallel_for(w.rows(), kRowGrain, [&](int64_t begin, int64_t end) { product(0, x.rows(), begin, end - begin); });
  }
  return y;
}

void multiply_decoded(const Weight& w, const MatmulArgs& args) {
  if (const auto* dense = std::get_if<Tensor>(&w)) return matmul_by_decode(*dense, args);
  matmul_by_decode(std::get<QuantizedTensor>(w), args);
}

Tensor matmul_by_columns(const Tensor& x, const Weight& w) {
  const Shape shape = weight_shape(w);
  const int64_t rows = shape[0], cols = shape[1];
  if (rows == 0) return Tensor(DType::f32, {x.rows(), cols});
  Tensor y = Tensor::uninitialized(DType::f32, {x.rows(), cols});
  std::vector<float> room(static_cast<size_t>(std::min(rows, kTileRows) * cols));
  for (int64_t r = 0; r < rows; r += kTileRows) {
    const int64_t count = std::min(kTileRows, rows - r);
    const WeightTile tile = {.values = {rows_of(w, r, r + count, room), cols}, .first = r, .rows = count};
    parallel_for(cols, kColumnGrain, [&](int64_t begin, int64_t end) { add_product(x, tile, begin, end, y); });
  }
  return y;
}

Tensor transpose(const Tensor& x) {
  Tensor y(DType::f32, {x.cols(), x.rows()});
  parallel_for(x.cols(), kPatch, [&](int64_t begin, int64_t end) {
    transpose_columns({x.f32(), x.cols()}, x.rows(), begin, end, {y.f32(), x.rows()});
  });
  return y;
}

Tensor column_sums(const Tensor& x) {
  Tensor sums(DType::f32, {x.cols()});
  parallel_for(x.cols(), kColumnGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < x.rows(); ++r) {
      kernels().axpy(1.0f, x.f32() + r * x.cols() + begin, sums.f32() + begin, end - begin);
    }
  });
  return sums;
}

}  // namespace nibble
