#pragma once
// The "quantization_config" of a config.json: how transformers and nibble say which layers are quantized and how they
// are to be computed. The tensors themselves say what they are (bnb_names.h); this never overrides them.
#include <string>
#include <vector>

#include "core/json.h"
#include "quant/format.h"

namespace nibble {

struct QuantizationConfig {
  std::string quant_method;  // "bitsandbytes" or "nibble"; empty: the folder is not quantized
  bool load_in_4bit = false;
  bool load_in_8bit = false;
  std::string quant_type;  // "nf4", "fp4"; for nibble's own: "int4", "int8-dynamic"
  bool double_quant = false;
  DType compute_dtype = DType::f32;
  float threshold = 6.0f;  // of LLM.int8() outliers
  std::vector<std::string> skip_modules;

  bool is_quantized() const { return !quant_method.empty(); }
};

/// Reads config["quantization_config"]. `where` names the file.
/// @throws Error{unsupported} for another quant_method (gptq, awq, ...), Error{format} for members of a wrong type.
QuantizationConfig parse_quantization_config(const Json& config, const std::string& where);

/// The member to write, complete as transformers writes it; for nibble's own formats quant_method is "nibble".
/// @param skip_modules  null in the file when empty.
Json quantization_config(const Format& format, const EncodeOptions& options, DType compute_dtype,
                         const std::vector<std::string>& skip_modules, float int8_threshold = 6.0f);

}  // namespace nibble
