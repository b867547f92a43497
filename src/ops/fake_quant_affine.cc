#include "ops/fake_quant_affine.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/parallel.h"

namespace nibble {
namespace {

constexpr int64_t kGrainValues = 16 * 1024;

int64_t groups_of(const Tensor& x, int64_t group) {
  if (group < 1 || x.count() % group != 0) {
    fail(ErrorCode::internal, "fake quantization: groups of " + std::to_string(group) + " do not divide " +
                                  std::to_string(x.count()) + " values");
  }
  return x.count() / group;
}

/// fn(range, first value, one past the last) for every group.
template <class Fn>
void for_groups(const Tensor& x, const AffineGrid& grid, Fn fn) {
  const int64_t groups = groups_of(x, grid.group);
  if (groups != static_cast<int64_t>(grid.ranges.size())) fail(ErrorCode::internal, "fake quantization: wrong groups");
  parallel_for(groups, std::max<int64_t>(1, kGrainValues / grid.group), [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) fn(grid.ranges[static_cast<size_t>(g)], g * grid.group, (g + 1) * grid.group);
  });
}

/// Before it is cut off.
float code_of(float x, const AffineRange& range, float inverse) {
  return std::nearbyint(x * inverse) + static_cast<float>(range.zero_point);
}

}  // namespace

AffineGrid unsigned_grid(std::span<const Extent> extents, int64_t group, int levels) {
  AffineGrid grid = {.ranges = {}, .group = group, .low = 0, .high = levels};
  for (const Extent& extent : extents) grid.ranges.push_back(choose_range(extent, levels));
  return grid;
}

AffineGrid signed_grid(std::span<const Extent> extents, int64_t group, int32_t low, int32_t high) {
  AffineGrid grid = {.ranges = {}, .group = group, .low = low, .high = high};
  for (const Extent& extent : extents) {
    const double scale = std::max(static_cast<double>(std::min(extent.low, 0.0f)) / low,
                                  static_cast<double>(std::max(extent.high, 0.0f)) / high);
    grid.ranges.push_back({.scale = scale > 0 ? static_cast<float>(scale) : 1.0f, .zero_point = 0});
  }
  return grid;
}

Tensor fake_quantize(const Tensor& x, const AffineGrid& grid, Tape* tape) {
  Tensor y(DType::f32, x.shape);
  for_groups(x, grid, [&](const AffineRange& range, int64_t begin, int64_t end) {
    const float inverse = 1.0f / range.scale;
    const auto low = static_cast<float>(grid.low), high = static_cast<float>(grid.high);
    for (int64_t i = begin; i < end; ++i) {
      const float code = std::clamp(code_of(x.f32()[i], range, inverse), low, high);
      y.f32()[i] = (code - static_cast<float>(range.zero_point)) * range.scale;
    }
  });
  if (is_traced(tape, x)) {
    tape->record(
        y, [x, grid, to_x = tape->slot(x)](Tape& t, const Tensor& dy) { t.add(to_x, pass_straight(x, grid, dy)); });
  }
  return y;
}

Tensor pass_straight(const Tensor& x, const AffineGrid& grid, const Tensor& dy) {
  Tensor dx(DType::f32, x.shape);
  for_groups(x, grid, [&](const AffineRange& range, int64_t begin, int64_t end) {
    const float inverse = 1.0f / range.scale;
    for (int64_t i = begin; i < end; ++i) {
      const float code = code_of(x.f32()[i], range, inverse);
      const bool has_code = code >= static_cast<float>(grid.low) && code <= static_cast<float>(grid.high);
      dx.f32()[i] = has_code ? dy.f32()[i] : 0.0f;
    }
  });
  return dx;
}

void MovingExtents::observe(const Tensor& x, int64_t group) {
  const int64_t groups = groups_of(x, group);
  const bool first = extents_.empty();
  extents_.resize(static_cast<size_t>(groups));
  for (int64_t g = 0; g < groups; ++g) {
    const Extent now = extent_of(x.f32() + g * group, group);
    Extent& moving = extents_[static_cast<size_t>(g)];
    if (first) moving = now;
    moving.low += rate_ * (now.low - moving.low);
    moving.high += rate_ * (now.high - moving.high);
  }
}

}  // namespace nibble
