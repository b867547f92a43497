#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "nibble/dtype.h"

namespace nibble {

/// How to quantize, with the field names and defaults of transformers' BitsAndBytesConfig. Stricter than it: the quant
/// type is checked, and from_json refuses unknown keys with the nearest known name.
///
///     BitsAndBytesConfig config{.load_in_4bit = true, .bnb_4bit_quant_type = "nf4"};
struct BitsAndBytesConfig {
  bool load_in_8bit = false;
  bool load_in_4bit = false;
  float llm_int8_threshold = 6.0f;                      ///< activations at or above it stay in 16 bit; 0 = none do
  std::vector<std::string> llm_int8_skip_modules = {};  ///< kept as they are, besides the output head
  bool llm_int8_enable_fp32_cpu_offload = false;        ///< accepted; nibble's int8 runs on the CPU as it is
  bool llm_int8_has_fp16_weight = false;                ///< must be false: nibble keeps int8 weights
  DType bnb_4bit_compute_dtype = DType::f32;
  std::string bnb_4bit_quant_type = "fp4";  ///< "nf4", "fp4", or nibble's own "int4"
  bool bnb_4bit_use_double_quant = false;   ///< meaningless with load_in_8bit, and refused there
  std::string bnb_4bit_quant_storage = "uint8";

  /// @throws Error{invalid_argument} for contradicting or unknown values, saying what to change.
  void validate() const;

  /// Parses a JSON object with these keys. @throws Error{invalid_argument, format}
  static BitsAndBytesConfig from_json(std::string_view json);
  /// As transformers writes it into config.json.
  std::string to_json() const;
};

}  // namespace nibble
