#include "text/byte_level.h"

#include <array>

#include "text/unicode.h"

namespace nibble {
namespace {

constexpr char32_t kFirstSubstitute = 0x100;
constexpr char32_t kAlphabetEnd = kFirstSubstitute + 68;

struct Alphabet {
  std::array<std::string, 256> chars;
  std::array<int16_t, kAlphabetEnd> bytes;  // -1: not in the alphabet

  Alphabet() {
    bytes.fill(-1);
    char32_t substitute = kFirstSubstitute;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
      const char32_t c = printable ? byte : substitute++;
      append_utf8(chars[byte], c);
      bytes[c] = static_cast<int16_t>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet table;
  return table;
}

}  // namespace

std::string bytes_to_chars(std::string_view bytes) {
  const Alphabet& table = alphabet();
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char byte : bytes) out += table.chars[static_cast<unsigned char>(byte)];
  return out;
}

std::string chars_to_bytes(std::string_view text) {
  const Alphabet& table = alphabet();
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    if (c >= kAlphabetEnd || table.bytes[c] < 0) return std::string(text);
    out.push_back(static_cast<char>(table.bytes[c]));
  }
  return out;
}

}  // namespace nibble
