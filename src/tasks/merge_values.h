#pragma once
// How much of the change that an adapter makes to a matrix is left once the merged values are stored.
#include "nibble/merge.h"
#include "quant/format.h"

namespace nibble {

/// Sums over the elements of a matrix, or of several. delta = merged - base.
struct MergeSums {
  double base = 0;      // base^2
  double delta = 0;     // delta^2
  double along = 0;     // (stored - base) * delta
  double rounding = 0;  // (stored - merged)^2

  void add(const MergeSums& other);
  MergeLoss loss() const;
};

/// base, merged: f32 [out, in]; stored: of the same shape, decoded by rows.
MergeSums merge_sums(const Tensor& base, const Tensor& merged, const Weight& stored);

}  // namespace nibble
