#include "tasks/merge_values.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/parallel.h"

namespace nibble {
namespace {

constexpr int64_t kRowGrain = 16;

MergeSums row_sums(const float* base, const float* merged, const float* stored, int64_t cols) {
  MergeSums sums;
  for (int64_t c = 0; c < cols; ++c) {
    const double w = base[c], delta = merged[c] - w, kept = stored[c] - w;
    sums.base += w * w;
    sums.delta += delta * delta;
    sums.along += kept * delta;
    sums.rounding += (kept - delta) * (kept - delta);
  }
  return sums;
}

}  // namespace

void MergeSums::add(const MergeSums& other) {
  base += other.base;
  delta += other.delta;
  along += other.along;
  rounding += other.rounding;
}

MergeLoss MergeSums::loss() const {
  if (delta == 0) return {};  // an adapter that changes nothing loses nothing
  return {.delta_norm_ratio = std::sqrt(delta / base),
          .delta_retained = along / delta,
          .rounding_ratio = std::sqrt(rounding / delta)};
}

MergeSums merge_sums(const Tensor& base, const Tensor& merged, const Weight& stored) {
  const int64_t rows = base.rows(), cols = base.cols();
  std::vector<MergeSums> by_row(static_cast<size_t>(rows));  // so that the total does not depend on the threads
  parallel_for(rows, kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = begin; r < end; ++r) {
      decode_rows(stored, r, r + 1, row.data());
      by_row[static_cast<size_t>(r)] = row_sums(base.f32() + r * cols, merged.f32() + r * cols, row.data(), cols);
    }
  });
  MergeSums total;
  for (const MergeSums& sums : by_row) total.add(sums);
  return total;
}

}  // namespace nibble
