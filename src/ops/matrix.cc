#include "ops/matrix.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "core/checked.h"
#include "core/parallel.h"
#include "kernels/kernels.h"
#include "ops/pairs.h"
#include "quant/matmul.h"
#include "quant/panels.h"

namespace nibble {
namespace {

constexpr int64_t kColumnGrain = 16;
constexpr int64_t kPanelDepth = 768;  // rows of a panel that are multiplied together: 192 KiB, beside 144 KiB of x

/// k rows of a matrix in panels: made, see quant/panels.h, or parts of the matrix where it lies.
struct Panels {
  const float* data;
  int64_t k, cols;
  int64_t row_step = kPanelCols, panel_step = kPanelCols * k;

  const float* at(int64_t row, int64_t panel) const { return data + panel * panel_step + row * row_step; }
};

/// For k rows of so many columns in panels.
Tensor room_for(int64_t k, int64_t cols) { return Tensor::scratch(DType::f32, {round_up(cols, kPanelCols), k}); }

/// y = x w, or with `add` y += x w.
void multiply_floats(const Left& x, const Panels& w, Result y, bool add) {
  for_panels(x.tokens, w.cols, [&](Span tokens, Span columns) {
    int64_t k = 0;
    do {
      kernels().sum_rows_f32({.x = x.data + tokens.begin * x.token_step + k * x.k_step,
                              .w = w.at(k, columns.begin / kPanelCols),
                              .y = y.data + tokens.begin * y.row_step + columns.begin,
                              .tokens = tokens.size(),
                              .k = std::min(kPanelDepth, w.k - k),
                              .cols = columns.size(),
                              .ldx = x.token_step,
                              .ldw = w.row_step,
                              .ldy = y.row_step,
                              .add = add || k > 0,
                              .x_step = x.k_step});
      k += kPanelDepth;
    } while (k < w.k);
  });
}

/// A weight whose values are multiplied where they lie; null for others.
const Tensor* floats_of(const Weight& w) {
  const auto* dense = std::get_if<Tensor>(&w);
  return dense && dense->dtype == DType::f32 ? dense : nullptr;
}

/// Rows [begin, end) of a weight as f32: where they lie, or decoded.
const float* rows_of(const Weight& w, int64_t begin, int64_t end, std::vector<float>& room) {
  const int64_t cols = weight_shape(w)[1];
  if (const Tensor* floats = floats_of(w)) return floats->f32() + begin * cols;
  room.resize(static_cast<size_t>((end - begin) * cols));
  decode_rows(w, begin, end, room.data());
  return room.data();
}

/// The same as a tensor, decoded by all threads.
Tensor float_rows(const Weight& w, int64_t begin, int64_t end) {
  if (const Tensor* floats = floats_of(w)) return floats->slice_rows(begin, end);
  const int64_t cols = weight_shape(w)[1];
  Tensor rows = Tensor::scratch(DType::f32, {end - begin, cols});
  parallel_for(rows.rows(), kRowGrain,
               [&](int64_t from, int64_t to) { decode_rows(w, begin + from, begin + to, rows.f32() + from * cols); });
  return rows;
}

/// Rows [begin, end) turned: y[input * ldy + row].
void turn_rows(const Weight& w, int64_t begin, int64_t end, float* y, int64_t ldy) {
  static thread_local std::vector<float> decoded;
  const int64_t k = weight_shape(w)[1];
  kernels().transpose(
      {.x = rows_of(w, begin, end, decoded), .y = y, .rows = end - begin, .cols = k, .ldx = k, .ldy = ldy});
}

/// Rows [begin, end) of a weight, side by side in panels: room[panel][row].
void pack_rows(const Weight& w, int64_t begin, int64_t end, Tensor& room) {
  const int64_t cols = weight_shape(w)[1], k = end - begin;
  parallel_for(k, kRowGrain, [&](int64_t from, int64_t to) {
    static thread_local std::vector<float> decoded;
    const float* rows = rows_of(w, begin + from, begin + to, decoded);
    for (int64_t r = from; r < to; ++r, rows += cols) {
      for (int64_t c = 0; c < cols; c += kPanelCols) {
        std::copy_n(rows + c, std::min(kPanelCols, cols - c), room.f32() + column_in_panels(c, k) + r * kPanelCols);
      }
    }
  });
}

/// The same rows in whole numbers.
PairedPanels pair_rows(const Weight& w, int64_t begin, int64_t end) {
  const Tensor rows = float_rows(w, begin, end);
  const int64_t cols = weight_shape(w)[1], panels = ceil_div(cols, kPanelCols);
  PairedPanels paired(end - begin, cols);
  parallel_for(panels * paired.groups(), 1, [&](int64_t from, int64_t to) {
    for (int64_t unit = from; unit < to; ++unit) {
      const int64_t column = unit % panels * kPanelCols, row = unit / panels * kPairTerms;
      paired.fill(row, {column, std::min(cols, column + kPanelCols)}, rows.f32() + row * cols + column, cols);
    }
  });
  return paired;
}

/// Rows [begin, end) turned, as columns: room[panel][input].
void pack_columns(const Weight& w, int64_t begin, int64_t end, Tensor& room) {
  const int64_t k = weight_shape(w)[1];
  for_turned_rows(end - begin, [&](Span rows) {
    float* y = room.f32() + column_in_panels(rows.begin, k);
    turn_rows(w, begin + rows.begin, begin + rows.end, y, kPanelCols);
  });
}

/// The same in whole numbers.
PairedPanels pair_columns(const Weight& w, int64_t begin, int64_t end) {
  const int64_t k = weight_shape(w)[1];
  PairedPanels paired(k, end - begin);
  for_turned_rows(end - begin, [&](Span rows) {
    static thread_local std::vector<float> turned;
    turned.resize(static_cast<size_t>(k * kTurnedRows));
    turn_rows(w, begin + rows.begin, begin + rows.end, turned.data(), kTurnedRows);
    for (int64_t row = 0; row < k; row += kPairTerms) {
      paired.fill(row, rows, turned.data() + row * kTurnedRows, kTurnedRows);
    }
  });
  return paired;
}

/// Rows of so many columns that are made into panels together: 4 MiB, if that is not too few for a product.
int64_t rows_together(int64_t cols) {
  constexpr int64_t kWords = 1024 * 1024, kFewest = 256;
  return std::clamp(kWords / std::max<int64_t>(cols, 1), kFewest, kPanelDepth) / kPairTerms * kPairTerms;
}

/// y = x w, or with `add` y += x w, by tiles of rows of w.
void multiply_by_rows(Left x, const Weight& w, Result y, bool add, bool in_pairs = false) {
  const int64_t rows = weight_shape(w)[0], cols = weight_shape(w)[1];
  const Tensor* floats = floats_of(w);
  if (floats && x.tokens < kTurnFrom) {  // a copy would cost more than it gains
    return multiply_floats(x, {floats->f32(), rows, cols, cols, kPanelCols}, y, add);
  }
  in_pairs = in_pairs && x.tokens >= kTurnFrom && rows > 0;
  const int64_t step = rows_together(cols);
  Tensor room = in_pairs ? Tensor() : room_for(std::min(rows, step), cols);
  for (int64_t r = 0; r == 0 || r < rows; r += step) {
    const int64_t end = std::min(rows, r + step);
    if (in_pairs) {
      pair_rows(w, r, end).multiply(PairedLeft(x, end - r), y, add || r > 0);
    } else {
      pack_rows(w, r, end, room);
      multiply_floats(x, {room.f32(), end - r, cols}, y, add || r > 0);
    }
    x.data += step * x.k_step;
  }
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

void multiply_decoded(const Weight& w, const MatmulArgs& args, bool in_pairs) {
  if (args.tokens < kTurnFrom) {
    if (const auto* dense = std::get_if<Tensor>(&w)) return matmul_by_decode(*dense, args);
    return matmul_by_decode(std::get<QuantizedTensor>(w), args);
  }
  const int64_t rows = weight_shape(w)[0], k = weight_shape(w)[1];
  const int64_t step = columns_together(k);
  const Left x = {args.x, args.tokens, k, 1};
  std::optional<PairedLeft> numbers;
  if (in_pairs) numbers.emplace(x, k);
  Tensor room = in_pairs ? Tensor() : room_for(k, std::min(rows, step));
  for (int64_t r = 0; r < rows; r += step) {
    const int64_t end = std::min(rows, r + step);
    const Result y = {args.y + r, rows};
    if (in_pairs) {
      pair_columns(w, r, end).multiply(*numbers, y, false);
    } else {
      pack_columns(w, r, end, room);
      multiply_floats(x, {room.f32(), k, end - r}, y, false);
    }
  }
  add_bias(args, rows, 0, rows);
}

Tensor matmul_by_columns(const Tensor& x, const Weight& w, bool in_pairs) {
  const int64_t rows = weight_shape(w)[0], cols = weight_shape(w)[1];
  Tensor y = Tensor::uninitialized(DType::f32, {x.rows(), cols});
  multiply_by_rows({x.f32(), x.rows(), rows, 1}, w, {y.f32(), cols}, false, in_pairs);
  return y;
}

void add_matmul_by_columns(const Tensor& x, const Weight& w, Tensor& y, bool in_pairs) {
  multiply_by_rows({x.f32(), x.rows(), x.cols(), 1}, w, {y.f32(), y.cols()}, true, in_pairs);
}

Tensor turned_matmul(const Tensor& x, const Tensor& w) {
  Tensor y = Tensor::uninitialized(DType::f32, {x.cols(), w.cols()});
  multiply_by_rows({x.f32(), x.cols(), 1, x.cols()}, w, {y.f32(), w.cols()}, false);
  return y;
}

Tensor transpose(const Tensor& x) {
  Tensor y = Tensor::uninitialized(DType::f32, {x.cols(), x.rows()});
  for_turned_rows(x.rows(), [&](Span rows) {
    kernels().transpose({.x = x.f32() + rows.begin * x.cols(),
                         .y = y.f32() + rows.begin,
                         .rows = rows.size(),
                         .cols = x.cols(),
                         .ldx = x.cols(),
                         .ldy = x.rows()});
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
