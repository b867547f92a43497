#include "quant/error_stats.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "core/checked.h"
#include "core/parallel.h"
#include "kernels/kernels.h"

namespace nibble {
namespace {

// Sums are taken per piece and then over the pieces in order, so that they do not depend on the number of threads. On
// the instruction set they depend in their last digits.
constexpr int64_t kPieceValues = int64_t{1} << 16;
constexpr size_t kStretch = 1024;
constexpr float kLeastSignal = 1e-15f, kMost = 1e30f;

struct Sums {
  double signal = 0, noise = 0, max_abs_error = 0;
  int64_t nan_count = 0, inf_count = 0, first_nonfinite = -1;  // first: within the piece
};

/// Adds a stretch, one value after the other.
void add_carefully(std::span<const float> original, std::span<const float> error, int64_t position, Sums& sums) {
  for (size_t i = 0; i < original.size(); ++i) {
    const float x = original[i];
    if (!std::isfinite(x)) {
      ++(std::isnan(x) ? sums.nan_count : sums.inf_count);
      if (sums.first_nonfinite < 0) sums.first_nonfinite = position + static_cast<int64_t>(i);
      continue;
    }
    sums.signal += static_cast<double>(x) * x;
    sums.noise += static_cast<double>(error[i]) * error[i];
    sums.max_abs_error = std::max(sums.max_abs_error, std::fabs(static_cast<double>(error[i])));
  }
}

/// decoded becomes the error. Stretches are summed in f32 where their squares are far from its limits.
Sums sum_piece(std::span<const float> original, std::span<float> decoded) {
  Sums sums;
  for (size_t begin = 0; begin < original.size(); begin += kStretch) {
    const size_t count = std::min(kStretch, original.size() - begin);
    const auto n = static_cast<int64_t>(count);
    const float* x = original.data() + begin;
    float* error = decoded.data() + begin;
    kernels().axpy(-1.0f, x, error, n);
    const float signal = kernels().dot(x, x, n), noise = kernels().dot(error, error, n);
    if (!(signal > kLeastSignal && signal < kMost && noise < kMost)) {
      add_carefully(original.subspan(begin, count), decoded.subspan(begin, count), static_cast<int64_t>(begin), sums);
      continue;
    }
    sums.signal += static_cast<double>(signal);
    sums.noise += static_cast<double>(noise);
    sums.max_abs_error = std::max(sums.max_abs_error, static_cast<double>(kernels().absmax(error, n)));
  }
  return sums;
}

ErrorStats combine(const std::vector<Sums>& pieces, int64_t piece_values) {
  ErrorStats stats;
  double signal = 0, noise = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Sums& piece = pieces[i];
    signal += piece.signal;
    noise += piece.noise;
    stats.max_abs_error = std::max(stats.max_abs_error, piece.max_abs_error);
    stats.nan_count += piece.nan_count;
    stats.inf_count += piece.inf_count;
    if (stats.first_nonfinite < 0 && piece.first_nonfinite >= 0) {
      stats.first_nonfinite = static_cast<int64_t>(i) * piece_values + piece.first_nonfinite;
    }
  }
  stats.relative_error = signal > 0 ? std::sqrt(noise / signal) : (noise > 0 ? 1.0 : 0.0);
  stats.sqnr_db = noise > 0 ? 10.0 * std::log10(signal / noise) : std::numeric_limits<double>::infinity();
  return stats;
}

}  // namespace

ErrorStats error_stats(const Tensor& original, const Weight& stored) {
  const int64_t rows = original.rows(), cols = original.cols();
  const int64_t piece_rows = std::max<int64_t>(1, kPieceValues / std::max<int64_t>(cols, 1));
  std::vector<Sums> pieces(static_cast<size_t>(ceil_div(rows, piece_rows)));
  parallel_for(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    const auto room = static_cast<size_t>(piece_rows * cols);
    const auto before = std::make_unique_for_overwrite<float[]>(room),
               after = std::make_unique_for_overwrite<float[]>(room);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * piece_rows, last = std::min(rows, first + piece_rows);
      const auto count = static_cast<size_t>((last - first) * cols);
      const float* values = original.dtype == DType::f32 ? original.f32() + first * cols : before.get();
      if (values == before.get()) decode_rows(original, first, last, before.get());
      decode_rows(stored, first, last, after.get());
      pieces[static_cast<size_t>(i)] = sum_piece({values, count}, {after.get(), count});
    }
  });
  return combine(pieces, piece_rows * cols);
}

}  // namespace nibble
