#pragma once
// Looking at the products of a forward pass while it runs: per-layer errors, calibration, finding where NaN begins.
#include <functional>

#include "core/tensor.h"
#include "quant/format.h"

namespace nibble {

struct Linear;

/// One call of linear().
struct LinearCall {
  const Linear& layer;
  const Tensor& x;  // f32 [tokens, in]
  const ComputeOptions& options;
  Tensor& y;  // f32 [tokens, out]; may be replaced
};

/// While it lives, `see` is called after every linear() of the thread that made it. Calls of linear() inside `see` are
/// not seen. Observers nest: only the innermost one sees.
class LinearObserver {
 public:
  explicit LinearObserver(std::function<void(const LinearCall&)> see);
  ~LinearObserver();
  LinearObserver(const LinearObserver&) = delete;
  LinearObserver& operator=(const LinearObserver&) = delete;

  /// What linear() does at its end.
  static void notify(const LinearCall& call);

 private:
  std::function<void(const LinearCall&)> see_;
  LinearObserver* outer_;
};

}  // namespace nibble
