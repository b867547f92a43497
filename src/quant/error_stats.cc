#include "quant/error_stats.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/parallel.h"

namespace nibble {
namespace {

// Sums are taken per piece and then over the pieces in order, so that they do not depend on the number of threads.
constexpr size_t kPiece = size_t{1} << 16;

struct Sums {
  double signal = 0, noise = 0, max_abs_error = 0;
  int64_t nan_count = 0, inf_count = 0, first_nonfinite = -1;
};

Sums sum_piece(const float* original, const float* decoded, size_t begin, size_t end) {
  Sums sums;
  for (size_t i = begin; i < end; ++i) {
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

}  // namespace

ErrorStats error_stats(std::span<const float> original, std::span<const float> decoded) {
  std::vector<Sums> pieces((original.size() + kPiece - 1) / kPiece);
  parallel_for(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      pieces[i] = sum_piece(original.data(), decoded.data(), i * kPiece, std::min(original.size(), (i + 1) * kPiece));
    }
  });
  ErrorStats stats;
  double signal = 0, noise = 0;
  for (const Sums& piece : pieces) {
    signal += piece.signal;
    noise += piece.noise;
    stats.max_abs_error = std::max(stats.max_abs_error, piece.max_abs_error);
    stats.nan_count += piece.nan_count;
    stats.inf_count += piece.inf_count;
    if (stats.first_nonfinite < 0) stats.first_nonfinite = piece.first_nonfinite;
  }
  stats.relative_error = signal > 0 ? std::sqrt(noise / signal) : (noise > 0 ? 1.0 : 0.0);
  stats.sqnr_db = noise > 0 ? 10.0 * std::log10(signal / noise) : std::numeric_limits<double>::infinity();
  return stats;
}

}  // namespace nibble
