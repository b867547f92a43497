#pragma once
// UTF-8 and the Unicode properties that tokenizers ask for. Tables are those of Unicode 14 (utf8proc 2.8).
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nibble {

/// What stands at one position of a byte string. `length` is at least 1; for a broken character it is the longest run
/// of bytes that could have begun one, which is what U+FFFD stands for (Unicode 14, section 3.9, "maximal subpart").
struct Utf8Step {
  enum class Kind : uint8_t { character, broken, cut_off };  // cut_off: broken only because the text ends here
  Kind kind;
  uint8_t length;
  char32_t value;  // U+FFFD unless kind is character
};
Utf8Step utf8_step(std::string_view text, size_t position);

/// The character at `position` of valid UTF-8; moves the position behind it.
char32_t next_char(std::string_view text, size_t& position);
/// Bytes of the character that `lead` begins, in valid UTF-8.
size_t char_bytes(char lead);
void append_utf8(std::string& out, char32_t c);

bool is_valid_utf8(std::string_view text);
bool is_ascii(std::string_view text);
/// The text with U+FFFD for every broken character.
std::string to_valid_utf8(std::string_view text);
/// How many bytes at the end are the beginning of a character that is not there yet.
size_t incomplete_tail(std::string_view text);

enum class NormalForm { nfc, nfd, nfkc, nfkd };
std::string normalize(std::string_view text, NormalForm form);
std::string lowercase(std::string_view text);
/// One character for one: a sharp s stays.
std::string uppercase(std::string_view text);

bool is_whitespace(char32_t c);          // White_Space
bool is_numeric(char32_t c);             // Nd, Nl, No
bool is_punctuation(char32_t c);         // P* of Unicode 8, and the ASCII symbols
bool is_mark(char32_t c);                // Mn, Mc, Me
bool is_nonspacing_mark(char32_t c);     // Mn of Unicode 8
bool is_control_or_private(char32_t c);  // Cc, Cf, Cs, Co of Unicode 8
bool is_word(char32_t c);                // letters, marks, digits, connectors: \w of regular expressions

/// Bytes of the grapheme cluster (what a reader takes for one character) at `position`.
size_t grapheme_bytes(std::string_view text, size_t position);

}  // namespace nibble
