#pragma once
// What the files of this folder give to the table in quant/formats.cc.
#include <span>

#include "quant/format.h"

namespace nibble {

Format dense_format(DType dtype);
Format nf4_format();
Format fp4_format();
Format int4_format();
Format int8_format();
Format int8_dynamic_format();
std::span<const Format> ggml_formats();  // the block types of GGUF files, read only

}  // namespace nibble
