#include "quant/error_stats.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "core/checked.h"
#include "core/parallel.h"

namespace nibble {
namespace {

// Sums are taken per piece and then over the pieces in order, so that they do not depend on the number of threads.
constexpr int64_t kPieceValues = int64_t{1} << 16;

struct Sums {
  double signal = 0, noise = 0, max_abs_error = 0;
  int64_t nan_count = 0, inf_count = 0, first_nonfinite = -1;  // first: within the piece
};

/// All values finite: plain loops that the compiler can vectorize. Otherwise the signal is not finite.
Sums sum_finite(std::span<const float> original, std::span<const float> decoded) {
  Sums sums;
  float largest = 0;
  for (size_t i = 0; i < original.size(); ++i) {
    const double x = original[i], error = static_cast<double>(decoded[i]) - x;
    sums.signal += x * x;
    sums.noise += error * error;
    largest = std::max(largest, std::fabs(decoded[i] - original[i]));
  }
  sums.max_abs_error = static_cast<double>(largest);
  return sums;
}

Sums sum_piece(std::span<const float> original, std::span<const float> decoded) {
  Sums sums = sum_finite(original, decoded);
  if (std::isfinite(sums.signal)) return sums;
  sums = {};
  for (size_t i = 0; i < original.size(); ++i) {
    const float x = original[i];
    if (!std::isfinite(x)) {
      ++(std::isnan(x) ? sums.nan_count : sums.inf_count);
      if (sums.first_nonfinite < 0) sums.first_nonfinite = static_cast<int64_t>(i);
      continue;
    }
    const double error = static_cast<double>(decoded[i]) - x;
    sums.signal += static_cast<double>(x) * x;
    sums.noise += error * error;
    sums.max_abs_error = std::max(sums.max_abs_error, std::fabs(error));
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
    std::vector<float> before(static_cast<size_t>(piece_rows * cols)), after(before.size());
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * piece_rows, last = std::min(rows, first + piece_rows);
      const auto count = static_cast<size_t>((last - first) * cols);
      decode_rows(original, first, last, before.data());
      decode_rows(stored, first, last, after.data());
      pieces[static_cast<size_t>(i)] = sum_piece({before.data(), count}, {after.data(), count});
    }
  });
  return combine(pieces, piece_rows * cols);
}

}  // namespace nibble
