#pragma once
// The block types of ggml as rows of the format table. They are read only. One part, "data": u8 [rows, row_bytes],
// rows of whole blocks as GGUF files have them.
#include <span>

#include "quant/format.h"

namespace nibble {

std::span<const Format> ggml_formats();

}  // namespace nibble
