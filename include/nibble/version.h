#pragma once

namespace nibble {

/// "0.1.0"
const char* version();

}  // namespace nibble
