#pragma once
#include <cstdint>
#include <string>

namespace nibble {

/// What a model is trained to be quantized to.
struct QatConfig {
  std::string format = "int4";          ///< any quantized format that can be written
  int64_t block = 0;                    ///< 4-bit formats; 0 = 64
  bool double_quant = false;            ///< 4-bit formats
  std::string granularity = "channel";  ///< int8-dynamic: one weight scale per output row, or per "tensor"
  /// int8-dynamic. "dynamic": the range of each call; "observed": a moving average that training finds, then fixed.
  std::string activations = "dynamic";
  bool dither = true;  ///< 4-bit formats: bases of adapters that are stored in the format already, see docs/merge.md
};

}  // namespace nibble
