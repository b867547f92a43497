#pragma once
// Products of 4-bit weights over the packed layout of kernels/packed4.h.
#include "quant/format.h"

namespace nibble {

/// Whether the layout has a place for the weight: rows and blocks of scales in multiples of 64 weights.
bool fits_packed4(const QuantizedTensor& w);

/// The f32 scales of blocks [first, first + count) of a weight that is not packed; `room` may be used to hold them.
using ScalesOf = const float* (*)(const QuantizedTensor& w, int64_t first, int64_t count, std::vector<float>& room);

/// Puts the parts "records" and "levels4" in the place of "data" and the scales.
void pack4(QuantizedTensor& w, ScalesOf scales_of);

/// Rows of a packed weight, see Format::decode_rows.
void decode_packed4_rows(const QuantizedTensor& w, int64_t begin, int64_t end, float* out);

/// Products of weights that fit the layout. Those that are not packed are packed piece by piece: slow, the same bits.
void multiply_packed4(std::span<const Product> products, Activations activations, ScalesOf scales_of);

}  // namespace nibble
