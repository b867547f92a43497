#pragma once
// What a matrix may have been before it was quantized. The values of a quantized matrix are grid points, so rounding a
// small change of them takes all of it away again; where the values lie anywhere in their cells, the change moves some
// of them across, and its mean survives (dither: Roberts, "Picture coding using pseudo-random noise", 1962).
#include "quant/format.h"

namespace nibble {

/// Whether dithered(base) has a meaning for a merge that is stored in this format with these options: the same 4-bit
/// format and block.
bool can_dither(const Weight& base, const Format& format, const EncodeOptions& encode);

/// As f32, every value at some place of the cell that is rounded to it; the place depends on where in the matrix it is
/// and on nothing else. The first value of the largest magnitude of a block stays, so that encoding the result in the
/// format of w gives the values and scales of w (of double-quantized ones: of its decoded scales).
/// w: nf4, fp4 or int4, packed or not.
Tensor dithered(const QuantizedTensor& w);

}  // namespace nibble
