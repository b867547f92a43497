#pragma once
// How plans and recommendations word sizes.
#include <cstdint>
#include <string>

namespace nibble {

/// "4.13 GB": decimal units, as memory is sold and as --memory 8GB means it.
std::string size_text(uint64_t bytes);

}  // namespace nibble
