// JSON as configurations have it, and the two small texts of quantized folders.
#include <string_view>

#include "core/error.h"
#include "core/json.h"
#include "io/quant_state.h"
#include "io/quantization_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const nibble::Json config = nibble::Json::parse(text, "config.json");
    if (nibble::Json::parse(config.dump(), "written").dump() != config.dump()) __builtin_trap();
    nibble::parse_quantization_config(config, "config.json");
  } catch (const nibble::Error&) {
  }
  try {
    const nibble::QuantState state = nibble::parse_quant_state(text, "state");
    const nibble::QuantState again = nibble::parse_quant_state(nibble::quant_state_text(state), "written");
    if (again.shape != state.shape || again.nested_offset != state.nested_offset) __builtin_trap();
  } catch (const nibble::Error&) {
  }
  return 0;
}
