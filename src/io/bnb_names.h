#pragma once
// How a quantized matrix lies in a safetensors file: several tensors with the names that bitsandbytes gives them.
//
//   nf4, fp4  P.weight  P.weight.absmax  P.weight.quant_map  [P.weight.nested_absmax  P.weight.nested_quant_map]
//             P.weight.quant_state.bitsandbytes__nf4 (JSON: type, block, dtype, shape, [nested block, dtype, offset])
//   int4      the same with P.weight.quant_state.nibble__int4
//   int8      P.weight  P.SCB  [P.weight_format]
//   int8-dynamic  P.weight  P.weight_scale  P.weight_zero_point
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "io/quantization_config.h"
#include "quant/format.h"

namespace nibble {

/// What is known of a stored tensor before it is read.
struct StoredTensor {
  std::string name;
  std::string dtype;  // as safetensors has it: "U8"
  Shape shape;
  uint64_t bytes = 0;
  std::string file;  // for messages
};

/// Reads one stored tensor; with as_bytes as u8 [size], whatever its element type.
enum class ReadAs { stored, bytes };
using ReadStored = std::function<Tensor(const std::string& name, ReadAs as)>;

/// A quantized matrix whose pieces were found and checked, but not read.
struct FoldedWeight {
  std::string name;       // "P.weight"
  QuantizedTensor empty;  // everything but the parts
  float nested_offset = 0;
  std::vector<std::pair<std::string, std::string>> pieces;  // part name, stored name
  std::vector<std::string> consumed;  // stored names that have no part: quant_state, weight_format
  uint64_t bytes = 0;                 // all pieces together
};

/// Finds the quantized matrices among the tensors of a folder and checks types, shapes and states of their pieces.
/// @throws Error{format} when a piece is missing or does not fit, Error{unsupported} for an unknown type.
std::vector<FoldedWeight> fold_pieces(const std::vector<StoredTensor>& stored, const ReadStored& read);

/// Reads the pieces. Parts: "data", "absmax", "quant_map", "nested_absmax", "nested_quant_map", "nested_offset" (f32
/// [1]); int8: "CB", "SCB"; int8-dynamic: "data", "scale", "zero_point".
/// @throws Error{unsupported} when the file's table of 4-bit values is not the known one.
QuantizedTensor load_folded(const FoldedWeight& weight, const ReadStored& read);

/// The tensors to write for a matrix, the inverse of load_folded. weight_name is "P.weight". For a matrix without data
/// (quant/format.h, layout) the same names, dtypes and shapes. The bytes are those that bitsandbytes writes, but for
/// spaces at the end of the state of a double-quantized matrix.
std::vector<std::pair<std::string, Tensor>> stored_pieces(const std::string& weight_name, const QuantizedTensor& w);

}  // namespace nibble
