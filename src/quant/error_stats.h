#pragma once
// What an encoding lost, compared with the values it stands for.
#include "quant/format.h"

namespace nibble {

struct ErrorStats {
  double relative_error = 0;  // ||decoded - original|| / ||original||
  double sqnr_db = 0;         // 20 log10(||original|| / ||error||); infinite when nothing was lost
  double max_abs_error = 0;
  int64_t nan_count = 0, inf_count = 0;  // in the original; such elements take no part in the figures above
  int64_t first_nonfinite = -1;          // flat index
};

/// original: the dense values, of any float dtype; stored: what became of them, of the same shape. Both are decoded
/// piece by piece, so little memory is needed.
ErrorStats error_stats(const Tensor& original, const Weight& stored);

}  // namespace nibble
