#pragma once
// The JSON that bitsandbytes stores beside a 4-bit matrix, as the tensor P.weight.quant_state.bitsandbytes__nf4.
#include <optional>
#include <string>
#include <string_view>

#include "core/tensor.h"

namespace nibble {

struct QuantState {
  std::string quant_type;  // "nf4"
  int64_t block = 0;
  DType dtype = DType::f32;             // of the matrix before quantization
  Shape shape;                          // [rows, cols]
  std::optional<double> nested_offset;  // present when the scales are quantized too
};

/// Requires exactly the keys that bitsandbytes writes. @throws Error{format, unsupported}
QuantState parse_quant_state(std::string_view text, const std::string& where);

/// The same bytes as bitsandbytes writes: Python's json.dumps, keys in its order.
std::string quant_state_text(const QuantState& state);

/// Python's repr of a float: the shortest digits that read back as the same value.
std::string python_repr(double value);

}  // namespace nibble
