#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "core/error.h"

namespace nibble {
namespace {

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

bool in(char32_t c, char32_t low, char32_t high) { return c >= low && c <= high; }

// The tokenizers library knows punctuation, nonspacing marks and controls as of Unicode 8, from Rust's crate
// unicode_categories. These ranges hold all that came later, and nothing that was one of them then.
constexpr char32_t kAfterUnicode8[][2] = {
    {0x61d, 0x61d},     {0x7fd, 0x7fd},     {0x890, 0x8e2},     {0x9fd, 0x9fe},     {0xa76, 0xa76},
    {0xafa, 0xaff},     {0xb55, 0xb55},     {0xc04, 0xc3c},     {0xc77, 0xc77},     {0xc84, 0xc84},
    {0xd00, 0xd00},     {0xd3b, 0xd3c},     {0xd81, 0xd81},     {0xeba, 0xeba},     {0xece, 0xece},
    {0x180f, 0x1886},   {0x1abf, 0x1ace},   {0x1b7d, 0x1b7e},   {0x1df6, 0x1dfb},   {0x2e43, 0x2e5d},
    {0xa82c, 0xa82c},   {0xa8c5, 0xa8c5},   {0xa8ff, 0xa8ff},   {0xa9bd, 0xa9bd},   {0x10d24, 0x10f89},
    {0x11070, 0x11074}, {0x110c2, 0x110cd}, {0x111cf, 0x111cf}, {0x1123e, 0x11241}, {0x1133b, 0x1133b},
    {0x11438, 0x1145e}, {0x11660, 0x1166c}, {0x116b9, 0x116b9}, {0x1182f, 0x11fff}, {0x12ff1, 0x13455},
    {0x16e97, 0x16f4f}, {0x16fe2, 0x16fe4}, {0x1cf00, 0x1cf46}, {0x1e000, 0x1e4ef}, {0x1e944, 0x1e95f}};

struct Recategorized {
  char32_t c;
  utf8proc_category_t in_unicode8;
};
constexpr Recategorized kRecategorized[] = {
    {0x166d, UTF8PROC_CATEGORY_PO}, {0x1734, UTF8PROC_CATEGORY_MN}, {0x111c9, UTF8PROC_CATEGORY_PO}};

// The category in Unicode 8, as far as punctuation, nonspacing marks and controls go.
utf8proc_category_t category_in_unicode8(char32_t c) {
  for (const Recategorized& row : kRecategorized) {
    if (row.c == c) return row.in_unicode8;
  }
  const auto* const range = std::lower_bound(std::begin(kAfterUnicode8), std::end(kAfterUnicode8), c,
                                             [](const char32_t(&r)[2], char32_t x) { return r[1] < x; });
  const bool is_later = range != std::end(kAfterUnicode8) && c >= (*range)[0];
  return is_later ? UTF8PROC_CATEGORY_CN : category(c);
}

bool is_ascii_byte(char c) { return static_cast<unsigned char>(c) < 0x80; }

// Sorts each run of combining marks by combining class. utf8proc does this too, but in time quadratic in the run.
void order_marks(std::vector<utf8proc_int32_t>& chars) {
  const auto combining_class = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  const auto by_class = [&](utf8proc_int32_t a, utf8proc_int32_t b) { return combining_class(a) < combining_class(b); };
  for (auto run = chars.begin(); run != chars.end();) {
    if (combining_class(*run) == 0) {
      ++run;
      continue;
    }
    const auto end = std::find_if(run, chars.end(), [&](utf8proc_int32_t c) { return combining_class(c) == 0; });
    std::stable_sort(run, end, by_class);
    run = end;
  }
}

// The normal form of a text that begins with a starter (or is the very beginning of the input).
void append_normalized(std::string& out, std::string_view text, NormalForm form) {
  const bool compatibility = form == NormalForm::nfkc || form == NormalForm::nfkd;
  const bool compose = form == NormalForm::nfc || form == NormalForm::nfkc;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatibility ? UTF8PROC_COMPAT : 0));
  constexpr utf8proc_ssize_t kLongestDecomposition = 32;  // Unicode's longest is 18 (U+FDFA)
  std::vector<utf8proc_int32_t> chars;
  for (size_t at = 0; at < text.size();) {
    utf8proc_int32_t parts[kLongestDecomposition];
    int boundary_class = 0;
    const auto c = static_cast<utf8proc_int32_t>(next_char(text, at));
    const auto count = utf8proc_decompose_char(c, parts, kLongestDecomposition, options, &boundary_class);
    if (count < 0 || count > kLongestDecomposition) fail(ErrorCode::internal, "utf8proc cannot decompose a character");
    chars.insert(chars.end(), parts, parts + count);
  }
  order_marks(chars);
  auto length = static_cast<utf8proc_ssize_t>(chars.size());
  if (compose) {
    const auto composing = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    length = utf8proc_normalize_utf32(chars.data(), length, composing);
  }
  for (utf8proc_ssize_t i = 0; i < length; ++i) append_utf8(out, static_cast<char32_t>(chars[static_cast<size_t>(i)]));
}

}  // namespace

Utf8Step utf8_step(std::string_view text, size_t position) {
  using Kind = Utf8Step::Kind;
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[position + i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {Kind::character, 1, lead};
  const size_t bytes = in(lead, 0xc2, 0xdf) ? 2 : in(lead, 0xe0, 0xef) ? 3 : in(lead, 0xf0, 0xf4) ? 4 : 0;
  if (bytes == 0) return {Kind::broken, 1, 0xfffd};
  // The second byte's range excludes overlong forms, surrogates and values above U+10FFFF.
  unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  unsigned high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  char32_t value = lead & (0x7fu >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    const auto length = static_cast<uint8_t>(i);
    if (position + i == text.size()) return {Kind::cut_off, length, 0xfffd};
    if (!in(byte(i), low, high)) return {Kind::broken, length, 0xfffd};
    value = (value << 6) | (byte(i) & 0x3fu);
    low = 0x80;
    high = 0xbf;
  }
  return {Kind::character, static_cast<uint8_t>(bytes), value};
}

char32_t next_char(std::string_view text, size_t& position) {
  const Utf8Step step = utf8_step(text, position);
  position += step.length;
  return step.value;
}

size_t char_bytes(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | (c >> 6));
    put(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    put(0xe0 | (c >> 12));
    put(0x80 | ((c >> 6) & 0x3f));
    put(0x80 | (c & 0x3f));
  } else {
    put(0xf0 | (c >> 18));
    put(0x80 | ((c >> 12) & 0x3f));
    put(0x80 | ((c >> 6) & 0x3f));
    put(0x80 | (c & 0x3f));
  }
}

bool is_ascii(std::string_view text) { return std::all_of(text.begin(), text.end(), is_ascii_byte); }

bool is_valid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    if (step.kind != Utf8Step::Kind::character) return false;
    at += step.length;
  }
  return true;
}

std::string to_valid_utf8(std::string_view text) {
  if (is_valid_utf8(text)) return std::string(text);
  std::string out;
  for (size_t at = 0; at < text.size();) append_utf8(out, next_char(text, at));
  return out;
}

size_t incomplete_tail(std::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const Utf8Step step = utf8_step(text, text.size() - back);
    if (step.kind == Utf8Step::Kind::cut_off && step.length == back) return back;
  }
  return 0;
}

// Normalization never changes ASCII and never joins an ASCII character to what stands before it, so the text can be cut
// in front of every ASCII character; only the parts with other characters need work.
std::string normalize(std::string_view text, NormalForm form) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const auto other = std::find_if_not(text.begin() + static_cast<ptrdiff_t>(at), text.end(), is_ascii_byte);
    auto begin = static_cast<size_t>(other - text.begin());
    if (begin > at && begin < text.size()) --begin;  // the ASCII character may take marks
    out.append(text.substr(at, begin - at));
    if (begin == text.size()) break;
    const auto next = std::find_if(other, text.end(), is_ascii_byte);
    at = static_cast<size_t>(next - text.begin());
    append_normalized(out, text.substr(begin, at - begin), form);
  }
  return out;
}

std::string uppercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const auto c = static_cast<utf8proc_int32_t>(next_char(text, at));
    append_utf8(out, static_cast<char32_t>(c == 0xdf ? c : utf8proc_toupper(c)));
  }
  return out;
}

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    if (is_ascii_byte(text[at])) {
      const char c = text[at++];
      out.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c);
      continue;
    }
    const char32_t c = next_char(text, at);
    // The only character whose lower case is two characters whatever stands around it.
    if (c == 0x130) {
      out += "i\u0307";
    } else {
      append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
  }
  return out;
}

bool is_whitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || in(c, '\t', '\r');
  return c == 0x85 || in(category(c), UTF8PROC_CATEGORY_ZS, UTF8PROC_CATEGORY_ZP);
}

bool is_numeric(char32_t c) {
  return c < 0x80 ? in(c, '0', '9') : in(category(c), UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NO);
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) return in(c, '!', '/') || in(c, ':', '@') || in(c, '[', '`') || in(c, '{', '~');
  return in(category_in_unicode8(c), UTF8PROC_CATEGORY_PC, UTF8PROC_CATEGORY_PO);
}

bool is_mark(char32_t c) { return in(category(c), UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_ME); }

bool is_nonspacing_mark(char32_t c) { return category_in_unicode8(c) == UTF8PROC_CATEGORY_MN; }

bool is_control_or_private(char32_t c) {
  return in(category_in_unicode8(c), UTF8PROC_CATEGORY_CC, UTF8PROC_CATEGORY_CO);
}

bool is_word(char32_t c) {
  const utf8proc_category_t kind = category(c);
  if (in(kind, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_NL)) return true;  // letters, marks, Nd, Nl are neighbours
  if (kind == UTF8PROC_CATEGORY_PC || c == 0x200c || c == 0x200d) return true;
  return in(c, 0x24b6, 0x24e9) || in(c, 0x1f130, 0x1f149) || in(c, 0x1f150, 0x1f169) || in(c, 0x1f170, 0x1f189);
}

size_t grapheme_bytes(std::string_view text, size_t position) {
  size_t at = position;
  utf8proc_int32_t state = 0;
  auto before = static_cast<utf8proc_int32_t>(next_char(text, at));
  while (at < text.size()) {
    size_t after = at;
    const auto c = static_cast<utf8proc_int32_t>(next_char(text, after));
    if (utf8proc_grapheme_break_stateful(before, c, &state)) break;
    before = c;
    at = after;
  }
  return at - position;
}

}  // namespace nibble
