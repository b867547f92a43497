#include "text/charsmap.h"

#include "core/error.h"
#include "text/unicode.h"

namespace nibble {
namespace {

constexpr size_t kLongestGraphemeBytes = 5;  // longer clusters are looked up character by character

uint32_t read_u32(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value |= static_cast<uint32_t>(static_cast<unsigned char>(bytes[at + i])) << (8 * i);
  return value;
}

// A unit: bit 31 set = leaf, with the value below; else bits 0-7 the label, bit 8 "has a leaf", bit 9 "offset is scaled
// by 256", bits 10-30 the offset.
bool has_leaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t leaf_value(uint32_t unit) { return unit & 0x7fffffffu; }
uint32_t label(uint32_t unit) { return unit & 0x800000ffu; }
uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }

constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

Charsmap::Charsmap(std::string_view bytes, const std::string& where) {
  const size_t trie_bytes = bytes.size() < 4 ? 0 : read_u32(bytes, 0);
  if (bytes.size() < 4 || trie_bytes > bytes.size() - 4 || trie_bytes % 4 != 0 || trie_bytes == 0) {
    fail(ErrorCode::format, where + ": the trie's size " + std::to_string(trie_bytes) + " does not fit the table of " +
                                std::to_string(bytes.size()) + " bytes");
  }
  for (size_t at = 4; at < 4 + trie_bytes; at += 4) units_.push_back(read_u32(bytes, at));
  replacements_ = bytes.substr(4 + trie_bytes);
  if (!is_valid_utf8(replacements_)) fail(ErrorCode::format, where + ": the replacement texts are not UTF-8");
}

std::optional<std::string_view> Charsmap::lookup(std::string_view chunk) const {
  size_t node = offset(units_[0]);
  for (const char c : chunk) {
    const auto byte = static_cast<unsigned char>(c);
    node ^= byte;
    if (byte == 0 || node >= units_.size() || label(units_[node]) != byte) return std::nullopt;
    const uint32_t unit = units_[node];
    node ^= offset(unit);
    if (!has_leaf(unit)) continue;
    if (node >= units_.size()) return std::nullopt;
    const size_t begin = leaf_value(units_[node]);
    if (begin >= replacements_.size()) return std::nullopt;
    const size_t end = std::min(replacements_.find('\0', begin), replacements_.size());
    return std::string_view(replacements_).substr(begin, end - begin);
  }
  return std::nullopt;
}

std::string Charsmap::normalize(std::string_view text) const {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const std::string_view grapheme = text.substr(at, grapheme_bytes(text, at));
    at += grapheme.size();
    const auto whole = grapheme.size() <= kLongestGraphemeBytes ? lookup(grapheme) : std::nullopt;
    if (whole) {
      out += *whole;
      continue;
    }
    for (size_t i = 0; i < grapheme.size();) {
      const std::string_view c = grapheme.substr(i, char_bytes(grapheme[i]));
      out += lookup(c).value_or(c);
      i += c.size();
    }
  }
  return to_valid_utf8(out);  // a damaged table can point into the middle of a character
}

std::string base64_encode(std::string_view bytes) {
  std::string out;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - at);
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i) group = group << 8 | (i < count ? static_cast<unsigned char>(bytes[at + i]) : 0u);
    for (size_t i = 0; i < 4; ++i) out += i <= count ? kBase64[group >> (18 - 6 * i) & 63] : '=';
  }
  return out;
}

std::string base64_decode(std::string_view text, const std::string& where) {
  std::string out;
  uint32_t group = 0;
  int bits = 0;
  for (const char c : text.substr(0, text.find('='))) {
    const size_t value = kBase64.find(c);
    if (value == kBase64.npos) fail(ErrorCode::format, where + ": not base64");
    group = (group << 6 | static_cast<uint32_t>(value)) & 0xffffffu;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    out.push_back(static_cast<char>(group >> bits & 0xff));
  }
  return out;
}

}  // namespace nibble
