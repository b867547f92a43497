#pragma once
// GPT-2's printable alphabet for bytes: 188 bytes stand for the Latin-1 character of their value, the other 68 (control
// characters, space, ...) for U+0100 upwards in order. A space becomes U+0120 and a line feed U+010A.
#include <string>
#include <string_view>

namespace nibble {

/// The split of words that goes with it (GPT-2's encoder.py).
inline constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// One character of the alphabet for every byte.
std::string bytes_to_chars(std::string_view bytes);
/// The reverse; text that has a character outside the alphabet is returned as it is.
std::string chars_to_bytes(std::string_view text);

}  // namespace nibble
