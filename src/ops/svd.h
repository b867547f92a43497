#pragma once
// The largest singular values of a matrix with their vectors.
#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace nibble {

/// The part of W = U diag(s) V^T with the largest singular values. Vectors lie in rows.
struct PartialSvd {
  Tensor u;              // f32 [rank, rows of W]
  std::vector<float> s;  // falling; one below 1e-6 of the first is 0, and its vectors are too
  Tensor v;              // f32 [rank, columns of W]
};

struct SvdOptions {
  int64_t rank = 1;
  int64_t passes = 0;  // over W and its transpose; 0 = until no singular value moves by more than 1e-6 of the first
  uint64_t seed = 0;   // of the subspace that is begun with
};

/// w: f32 [rows, cols], finite values; rank at most the smaller of the two. Rounding aside the result is that of a full
/// decomposition once the passes suffice, at the cost of 4 (2 rank + 8) rows cols operations for each.
///
/// Subspace iteration with more vectors than are asked for: Halko, Martinsson and Tropp, arXiv 0909.4061, algorithm
/// 4.4, the basis of each pass being the singular vectors that the one before has found.
PartialSvd partial_svd(const Tensor& w, const SvdOptions& options);

}  // namespace nibble
