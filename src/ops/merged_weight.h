#pragma once
// A matrix and its low-rank adapters as one matrix.
#include "core/tensor.h"
#include "ops/lora.h"

namespace nibble {

/// Rows [begin, end) of W + scaling * B A. base: those of W; out may be base.
void merge_rows(const float* base, const Lora& lora, int64_t begin, int64_t end, float* out);

/// W + scaling * B A, its rows brought from their lengths, or lora.row_lengths, to lora.magnitude where there is any.
/// w: [out, in] f32
Tensor merged_weight(const Tensor& w, const Lora& lora);

}  // namespace nibble
