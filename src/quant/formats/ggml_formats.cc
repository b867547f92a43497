#include <array>

#include "quant/formats/ggml.h"
#include "quant/formats/ggml_blocks.h"

namespace nibble {

std::span<const Format> ggml_formats() {
  static const std::array<Format, 14> formats = {
      ggml_format<32, 18, decode_q4_0>("q4_0"),     ggml_format<32, 20, decode_q4_1>("q4_1"),
      ggml_format<32, 22, decode_q5_0>("q5_0"),     ggml_format<32, 24, decode_q5_1>("q5_1"),
      ggml_format<32, 34, decode_q8_0>("q8_0"),     ggml_format<256, 84, decode_q2_k>("q2_k"),
      ggml_format<256, 110, decode_q3_k>("q3_k"),   ggml_format<256, 144, decode_q4_k>("q4_k"),
      ggml_format<256, 176, decode_q5_k>("q5_k"),   ggml_format<256, 210, decode_q6_k>("q6_k"),
      ggml_format<32, 18, decode_iq4_nl>("iq4_nl"), ggml_format<256, 136, decode_iq4_xs>("iq4_xs"),
      ggml_format<32, 17, decode_mxfp4>("mxfp4"),   ggml_format<64, 36, decode_nvfp4>("nvfp4"),
  };
  return formats;
}

}  // namespace nibble
