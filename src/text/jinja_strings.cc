#include "text/jinja_strings.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "text/unicode.h"

namespace nibble::jinja {
namespace {

// Bytes of the code point at `position`.
size_t width_at(std::string_view text, size_t position) { return utf8_step(text, position).length; }

// Bytes of the code point that ends at `end`.
size_t width_before(std::string_view text, size_t end) {
  for (size_t width = 2; width <= std::min<size_t>(4, end); ++width) {
    if (width_at(text.substr(0, end), end - width) == width) return width;
  }
  return 1;
}

bool is_stripped(std::string_view code_point, std::optional<std::string_view> characters) {
  if (characters) return characters->find(code_point) != std::string_view::npos;
  size_t position = 0;
  return is_space(next_char(code_point, position));
}

// Where str.splitlines() ends a line, besides "\r\n". Source: Python's documentation of str.splitlines.
bool is_line_end(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

std::vector<std::string_view> split_at_spaces(std::string_view text, int64_t limit) {
  std::vector<std::string_view> pieces;
  text = strip(text, Side::left);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(pieces.size()) == limit) {
      pieces.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size() && !is_stripped(text.substr(end, width_at(text, end)), std::nullopt)) {
      end += width_at(text, end);
    }
    pieces.push_back(text.substr(0, end));
    text = strip(text.substr(end), Side::left);
  }
  return pieces;
}

// As split_at_spaces, cutting from the right; the pieces come last first.
std::vector<std::string_view> split_at_spaces_backwards(std::string_view text, int64_t limit) {
  std::vector<std::string_view> pieces;
  text = strip(text, Side::right);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(pieces.size()) == limit) {
      pieces.push_back(text);
      break;
    }
    size_t start = text.size();
    while (start > 0) {
      const size_t width = width_before(text, start);
      if (is_stripped(text.substr(start - width, width), std::nullopt)) break;
      start -= width;
    }
    pieces.push_back(text.substr(start));
    text = strip(text.substr(0, start), Side::right);
  }
  return pieces;
}

// Ranges that repr() escapes although they are not ASCII: format characters, separators, private use.
constexpr std::array<std::pair<char32_t, char32_t>, 9> kEscaped = {{{0x80, 0xa0},
                                                                    {0xad, 0xad},
                                                                    {0x200b, 0x200f},
                                                                    {0x2000, 0x200a},
                                                                    {0x2028, 0x202f},
                                                                    {0x205f, 0x206f},
                                                                    {0x3000, 0x3000},
                                                                    {0xe000, 0xf8ff},
                                                                    {0xfeff, 0xfeff}}};

void append_escape(std::string& out, char32_t c) {
  static constexpr char kHex[] = "0123456789abcdef";
  const int digits = c < 0x100 ? 2 : 4;
  out += digits == 2 ? "\\x" : "\\u";
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) out += kHex[(c >> shift) & 15];
}

}  // namespace

int64_t code_point_count(std::string_view text) {
  int64_t total = 0;
  for (size_t i = 0; i < text.size(); i += width_at(text, i)) ++total;
  return total;
}

std::vector<std::string_view> code_points(std::string_view text) {
  std::vector<std::string_view> out;
  for (size_t i = 0; i < text.size(); i += width_at(text, i)) out.push_back(text.substr(i, width_at(text, i)));
  return out;
}

bool is_space(char32_t c) { return is_whitespace(c) || (c >= 0x1c && c <= 0x1f); }

std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> characters) {
  while (side != Side::right && !text.empty()) {
    const size_t width = width_at(text, 0);
    if (!is_stripped(text.substr(0, width), characters)) break;
    text.remove_prefix(width);
  }
  while (side != Side::left && !text.empty()) {
    const size_t width = width_before(text, text.size());
    if (!is_stripped(text.substr(text.size() - width), characters)) break;
    text.remove_suffix(width);
  }
  return text;
}

std::vector<std::string_view> split(std::string_view text, std::optional<std::string_view> separator, int64_t limit,
                                    Side from) {
  std::vector<std::string_view> pieces;
  if (!separator) pieces = from == Side::right ? split_at_spaces_backwards(text, limit) : split_at_spaces(text, limit);
  while (separator) {
    const bool more = limit < 0 || static_cast<int64_t>(pieces.size()) < limit;
    const size_t found = from == Side::right ? text.rfind(*separator) : find_text(text, *separator);
    if (!more || found == std::string_view::npos) {
      pieces.push_back(text);
      break;
    }
    const std::string_view before = text.substr(0, found), after = text.substr(found + separator->size());
    pieces.push_back(from == Side::right ? after : before);
    text = from == Side::right ? before : after;
  }
  if (from == Side::right) std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t end = i;
    const char32_t c = next_char(text, i);
    if (!is_line_end(c)) continue;
    if (c == '\r' && i < text.size() && text[i] == '\n') ++i;
    lines.push_back(text.substr(start, (keep_ends ? i : end) - start));
    start = i;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

size_t find_text(std::string_view text, std::string_view needle, size_t start) {
  if (start > text.size()) return std::string_view::npos;
  const void* found = memmem(text.data() + start, text.size() - start, needle.data(), needle.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

int64_t count(std::string_view text, std::string_view needle) {
  if (needle.empty()) return code_point_count(text) + 1;
  int64_t total = 0;
  for (size_t i = find_text(text, needle); i != std::string_view::npos; i = find_text(text, needle, i + needle.size()))
    ++total;
  return total;
}

std::string replace(std::string_view text, std::string_view old, std::string_view fresh, int64_t limit) {
  std::string out;
  size_t start = 0;
  for (int64_t done = 0; limit < 0 || done < limit; ++done) {
    const size_t found = find_text(text, old, start);
    if (found == std::string_view::npos) break;
    out.append(text.substr(start, found - start)).append(fresh);
    start = found + old.size();
    if (!old.empty()) continue;
    if (start == text.size()) return out;
    const size_t width = width_at(text, start);  // an empty `old` stands between all code points
    out.append(text.substr(start, width));
    start += width;
  }
  return out.append(text.substr(start));
}

std::string capitalize(std::string_view text) {
  const size_t first = text.empty() ? 0 : width_at(text, 0);
  return uppercase(text.substr(0, first)) + lowercase(text.substr(first));
}

bool is_upper(std::string_view text) { return uppercase(text) == text && lowercase(text) != text; }
bool is_lower(std::string_view text) { return lowercase(text) == text && uppercase(text) != text; }

std::string escape(std::string_view text) {
  static constexpr std::string_view kSpecial = "&<>\"'";
  static constexpr std::string_view kEscapes[] = {"&amp;", "&lt;", "&gt;", "&#34;", "&#39;"};
  std::string out;
  for (const char c : text) {
    const size_t place = kSpecial.find(c);
    out += place == std::string_view::npos ? std::string_view(&c, 1) : kEscapes[place];
  }
  return out;
}

std::string quoted(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t i = 0; i < text.size();) {
    const size_t start = i;
    const char32_t c = next_char(text, i);
    const auto in_range = [c](const auto& range) { return c >= range.first && c <= range.second; };
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\\' || c == static_cast<unsigned char>(quote)) {
      out.append("\\").append(1, static_cast<char>(c));
    } else if (c < 0x20 || c == 0x7f || std::any_of(kEscaped.begin(), kEscaped.end(), in_range)) {
      append_escape(out, c);
    } else {
      out.append(text.substr(start, i - start));
    }
  }
  return out + quote;
}

}  // namespace nibble::jinja
