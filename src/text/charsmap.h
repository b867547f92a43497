#pragma once
// SentencePiece's compiled normalization table: u32 size of the trie in bytes (little-endian), the trie as a
// darts-clone double array of u32 units, then zero-terminated replacement texts that the trie's values point into.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

class Charsmap {
 public:
  /// @throws Error{format} when the sizes do not fit.
  Charsmap(std::string_view bytes, const std::string& where);

  std::string normalize(std::string_view text) const;

 private:
  /// The replacement of the shortest entry that begins `chunk`.
  std::optional<std::string_view> lookup(std::string_view chunk) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

std::string base64_encode(std::string_view bytes);
/// @throws Error{format}
std::string base64_decode(std::string_view text, const std::string& where);

}  // namespace nibble
