#pragma once
// Fake quantization as torch has it: values are rounded to the codes of an affine grid and stay f32; the gradient
// passes straight through where a value has a code of its own and stops where it was cut off.
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/tensor.h"
#include "ops/tape.h"
#include "quant/affine.h"

namespace nibble {

/// code = rne(x / scale) + zero_point, cut to [low, high]; it stands for (code - zero_point) * scale.
struct AffineGrid {
  std::vector<AffineRange> ranges;  // one for each `group` consecutive values
  int64_t group = 0;
  int32_t low = 0, high = 255;
};

/// Unsigned codes 0..levels over each extent.
AffineGrid unsigned_grid(std::span<const Extent> extents, int64_t group, int levels);
/// Signed codes low..high around zero: scale = max(smallest / low, largest / high).
AffineGrid signed_grid(std::span<const Extent> extents, int64_t group, int32_t low, int32_t high);

/// x: f32, of grid.ranges.size() * grid.group values
Tensor fake_quantize(const Tensor& x, const AffineGrid& grid, Tape* tape);
/// dy where x has a code of its own, else 0.
Tensor pass_straight(const Tensor& x, const AffineGrid& grid, const Tensor& dy);

/// Extents of groups of values, as moving averages over the calls: torch's MovingAverageMinMaxObserver.
class MovingExtents {
 public:
  explicit MovingExtents(float rate = 0.01f) : rate_(rate) {}

  /// The first call sets them, a later one moves them by `rate` of the way to its own.
  void observe(const Tensor& x, int64_t group);
  /// Empty before the first call.
  const std::vector<Extent>& extents() const { return extents_; }
  /// Goes on from extents() of an earlier time.
  void restore(std::vector<Extent> extents) { extents_ = std::move(extents); }

 private:
  float rate_;
  std::vector<Extent> extents_;
};

}  // namespace nibble
