#include "quant/affine.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/checked.h"
#include "core/parallel.h"
#include "kernels/kernels.h"

namespace nibble {
namespace {

constexpr double kSmallestScale = 6.1e-5;  // ATen's SMALL_SCALE_THRESHOLD
constexpr int64_t kPiece = 16 * 1024;

}  // namespace

Extent extent_of(const float* x, int64_t count) {
  const int64_t pieces = ceil_div(count, kPiece);
  if (pieces <= 1) return kernels().extent(x, count);
  std::vector<Extent> parts(static_cast<size_t>(pieces));
  parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      parts[static_cast<size_t>(i)] = kernels().extent(x + i * kPiece, std::min(kPiece, count - i * kPiece));
    }
  });
  Extent all = parts[0];
  for (const Extent& part : parts) all = {.low = std::min(all.low, part.low), .high = std::max(all.high, part.high)};
  return all;
}

AffineRange choose_range(Extent extent, int levels) {
  const float low = std::min(extent.low, 0.0f), high = std::max(extent.high, 0.0f);
  double scale = (static_cast<double>(high) - low) / levels;
  if (static_cast<float>(scale) == 0.0f || std::isinf(1.0f / static_cast<float>(scale))) scale = 0.1;
  const double zero_point = std::isfinite(scale) ? std::nearbyint(-static_cast<double>(low) / scale) : 0.0;
  return {.scale = static_cast<float>(std::max(scale, kSmallestScale)),
          .zero_point = static_cast<int32_t>(std::clamp(zero_point, 0.0, static_cast<double>(levels)))};
}

void quantize_affine(const float* x, int64_t count, const AffineRange& range, int levels, int8_t* codes) {
  const AffineCodes to = {.inverse = 1.0f / range.scale,
                          .low = static_cast<float>(-range.zero_point),
                          .high = static_cast<float>(levels - range.zero_point),
                          .offset = static_cast<float>(range.zero_point - 128)};
  kernels().quantize_affine(x, to, codes, count);
}

}  // namespace nibble
