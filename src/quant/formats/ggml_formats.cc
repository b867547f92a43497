#include <array>

#include "quant/formats/ggml.h"
#include "quant/formats/ggml_blocks.h"

namespace nibble {

std::span<const Format> ggml_formats() {
  static const std::array<Format, 14> formats = {
      PackedGgmlBlocks<32, 18, decode_q4_0, kPackingQ4_0>::row("q4_0"),
      PackedGgmlBlocks<32, 20, decode_q4_1, kPackingQ4_1>::row("q4_1"),
      PackedGgmlBlocks<32, 22, decode_q5_0, kPackingQ5_0>::row("q5_0"),
      PackedGgmlBlocks<32, 24, decode_q5_1, kPackingQ5_1>::row("q5_1"),
      PackedGgmlBlocks<32, 34, decode_q8_0, kPackingQ8_0>::row("q8_0"),
      PackedGgmlBlocks<256, 84, decode_q2_k, kPackingQ2K>::row("q2_k"),
      PackedGgmlBlocks<256, 110, decode_q3_k, kPackingQ3K>::row("q3_k"),
      PackedGgmlBlocks<256, 144, decode_q4_k, kPackingQ4K>::row("q4_k"),
      PackedGgmlBlocks<256, 176, decode_q5_k, kPackingQ5K>::row("q5_k"),
      PackedGgmlBlocks<256, 210, decode_q6_k, kPackingQ6K>::row("q6_k"),
      PackedGgmlBlocks<32, 18, decode_iq4_nl, kPackingIq4Nl>::row("iq4_nl"),
      PackedGgmlBlocks<256, 136, decode_iq4_xs, kPackingIq4Xs>::row("iq4_xs"),
      PackedGgmlBlocks<32, 17, decode_mxfp4, kPackingMxfp4>::row("mxfp4"),
      GgmlBlocks<64, 36, decode_nvfp4>::row("nvfp4"),
  };
  return formats;
}

}  // namespace nibble
