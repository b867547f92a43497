#include "text/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "core/error.h"
#include "text/jinja_strings.h"
#include "text/unicode.h"

namespace nibble::jinja {
namespace {

constexpr std::array<std::string_view, 25> kSymbols = {  // the longer ones first
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ","};

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}

std::string with_unix_newlines(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool pair = text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n';
    if (!pair) out += text[i] == '\r' ? '\n' : text[i];
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& where) : where_(where), source_(with_unix_newlines(source)) {}

  std::vector<Token> run() {
    while (position_ < source_.size()) {
      const size_t tag = find_tag(position_);
      const std::string_view raw = tag == std::string::npos ? "" : raw_begin(tag);
      if (tag == std::string::npos) {
        add_text(source_.substr(position_));
        advance(source_.size());
      } else if (!raw.empty()) {
        read_raw(tag, raw);
      } else if (source_[tag + 1] == '#') {
        read_comment(tag);
      } else {
        read_tag(tag);
      }
    }
    add(TokenKind::end, "end of template");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    nibble::fail(ErrorCode::format, where_ + ": line " + std::to_string(line_) + ": " + what);
  }

  void add(TokenKind kind, std::string_view text) { tokens_.push_back({kind, line_, std::string(text), Value()}); }

  void add_text(std::string_view text) {
    if (!text.empty()) add(TokenKind::text, text);
  }

  void advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(position_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    position_ = to;
  }

  std::string_view rest(size_t from) const { return std::string_view(source_).substr(from); }

  size_t skip_spaces(size_t from) const { return source_.size() - strip(rest(from), Side::left).size(); }

  size_t find_tag(size_t from) const {
    for (size_t i = source_.find('{', from); i != std::string::npos; i = source_.find('{', i + 1)) {
      if (i + 1 < source_.size() && std::string_view("{%#").find(source_[i + 1]) != std::string_view::npos) return i;
    }
    return std::string::npos;
  }

  // The '-' or '+' that a tag opens with, or 0.
  char sign_at(size_t i) const {
    return i < source_.size() && (source_[i] == '-' || source_[i] == '+') ? source_[i] : '\0';
  }

  // The text before a tag, less what the tag's sign and lstrip_blocks remove.
  void add_text_before(size_t tag, char sign) {
    std::string_view text = std::string_view(source_).substr(position_, tag - position_);
    const bool block = source_[tag + 1] != '{';
    if (sign == '-') text = strip(text, Side::right);
    if (sign == '\0' && block) {
      const size_t newline = text.rfind('\n');
      const size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
      const bool starts_line = line_start > 0 || position_ == 0 || source_[position_ - 1] == '\n';
      if (starts_line && strip(text.substr(line_start), Side::left).empty()) text = text.substr(0, line_start);
    }
    add_text(text);
  }

  // If `end` ("%}", "}}", "#}"), with its sign, stands at i: the position behind it and what it removes, else 0.
  size_t tag_end(size_t i, std::string_view end) const {
    const char sign = sign_at(i);
    if (sign == '+' && end == "}}") return 0;
    if (!rest(i + (sign != '\0' ? 1 : 0)).starts_with(end)) return 0;
    const size_t behind = i + (sign != '\0' ? 1 : 0) + end.size();
    if (sign == '-') return skip_spaces(behind);
    const bool newline = behind < source_.size() && source_[behind] == '\n';
    return newline && sign == '\0' && end != "}}" ? behind + 1 : behind;
  }

  // "{% word %}" with any signs at i, or nothing.
  std::string_view plain_block(size_t i, std::string_view word) const {
    if (!rest(i).starts_with("{%")) return {};
    const size_t start = skip_spaces(i + 2 + (sign_at(i + 2) != '\0' ? 1 : 0));
    if (!rest(start).starts_with(word)) return {};
    const size_t close = skip_spaces(start + word.size());
    const size_t signs = sign_at(close) != '\0' ? 1 : 0;
    return rest(close + signs).starts_with("%}") ? rest(i).substr(0, close + signs + 2 - i) : std::string_view();
  }

  std::string_view raw_begin(size_t i) const { return plain_block(i, "raw"); }

  void read_raw(size_t tag, std::string_view begin) {
    add_text_before(tag, sign_at(tag + 2));
    const bool strips = begin[begin.size() - 3] == '-';
    advance(strips ? skip_spaces(tag + begin.size()) : tag + begin.size());
    size_t end = source_.find("{%", position_);
    while (end != std::string::npos && plain_block(end, "endraw").empty()) end = source_.find("{%", end + 1);
    if (end == std::string::npos) fail("raw block without endraw");
    add_text_before(end, sign_at(end + 2));
    const std::string_view close = plain_block(end, "endraw");
    const size_t sign = sign_at(end + close.size() - 3) != '\0' ? 1 : 0;
    advance(tag_end(end + close.size() - 2 - sign, "%}"));
  }

  void read_comment(size_t tag) {
    add_text_before(tag, sign_at(tag + 2));
    const size_t body = tag + 2 + (sign_at(tag + 2) != '\0' ? 1 : 0);
    const size_t end = source_.find("#}", body);
    if (end == std::string::npos) fail("comment without end");
    const size_t sign = end > body && sign_at(end - 1) != '\0' ? 1 : 0;
    advance(tag_end(end - sign, "#}"));
  }

  void read_tag(size_t tag) {
    const bool block = source_[tag + 1] == '%';
    const std::string_view end = block ? "%}" : "}}";
    add_text_before(tag, sign_at(tag + 2));
    advance(tag + 2 + (sign_at(tag + 2) != '\0' ? 1 : 0));
    add(block ? TokenKind::block_begin : TokenKind::output_begin, source_.substr(tag, 2));
    std::string open;  // closing brackets that are due; inside brackets "}}" is no end
    while (true) {
      if (position_ >= source_.size()) fail(std::string("tag without ") + std::string(end));
      const size_t behind = open.empty() ? tag_end(position_, end) : 0;
      if (behind != 0) {
        add(block ? TokenKind::block_end : TokenKind::output_end, end);
        return advance(behind);
      }
      read_token(open);
    }
  }

  void read_token(std::string& open) {
    const char c = source_[position_];
    const size_t blank = skip_spaces(position_);
    if (blank > position_) return advance(blank);
    if (c == '\'' || c == '"') return read_string(c);
    if (is_digit(c)) return read_number();
    if (is_name_start(c)) return read_name();
    const auto found = std::find_if(kSymbols.begin(), kSymbols.end(),
                                    [this](std::string_view symbol) { return rest(position_).starts_with(symbol); });
    if (found == kSymbols.end()) fail("unexpected character '" + printable(std::string(1, c)) + "'");
    balance(*found, open);
    add(TokenKind::symbol, *found);
    advance(position_ + found->size());
  }

  void balance(std::string_view symbol, std::string& open) const {
    static constexpr std::string_view kOpening = "([{", kClosing = ")]}";
    const size_t opening = kOpening.find(symbol), closing = kClosing.find(symbol);
    if (opening != std::string_view::npos) open += kClosing[opening];
    if (closing == std::string_view::npos) return;
    if (open.empty() || open.back() != symbol[0]) fail("unexpected '" + std::string(symbol) + "'");
    open.pop_back();
  }

  void read_name() {
    size_t end = position_;
    while (end < source_.size() && (is_name_start(source_[end]) || is_digit(source_[end]))) ++end;
    add(TokenKind::name, std::string_view(source_).substr(position_, end - position_));
    advance(end);
  }

  size_t digits_end(size_t from) const {
    while (from < source_.size() && (is_digit(source_[from]) || (source_[from] == '_' && from > position_))) ++from;
    return from;
  }

  // Where a float that starts at the position ends; 0 when it is an integer.
  size_t float_end() const {
    const auto digit_at = [this](size_t i) { return i < source_.size() && is_digit(source_[i]); };
    if (position_ > 0 && source_[position_ - 1] == '.') return 0;  // x.0.1 is an item of an item
    const size_t whole = digits_end(position_);
    size_t end = whole;
    if (end < source_.size() && source_[end] == '.' && digit_at(end + 1)) end = digits_end(end + 1);
    if (end < source_.size() && (source_[end] | 0x20) == 'e') {
      const size_t exponent = end + 1 + (sign_at(end + 1) != '\0' ? 1 : 0);
      if (digit_at(exponent)) end = digits_end(exponent);
    }
    return end == whole ? 0 : end;
  }

  void read_number() {
    static constexpr std::pair<std::string_view, int> kBases[] = {{"0x", 16}, {"0o", 8}, {"0b", 2}};
    int base = 10;
    for (const auto& [prefix, value] : kBases) {
      if (lowercase(rest(position_).substr(0, 2)) == prefix) base = value;
    }
    const size_t start = position_ + (base == 10 ? 0 : 2), end_of_float = base == 10 ? float_end() : 0;
    size_t end = end_of_float != 0 ? end_of_float : digits_end(start);
    while (base == 16 && end < source_.size() && std::isxdigit(static_cast<unsigned char>(source_[end])) != 0) ++end;
    std::string digits = source_.substr(start, end - start);
    std::erase(digits, '_');
    Value value;
    if (end_of_float != 0) {
      double number = 0;
      std::from_chars(digits.data(), digits.data() + digits.size(), number);
      value = Value(number);
    } else {
      int64_t number = 0;
      const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
      if (result.ec != std::errc() || result.ptr != digits.data() + digits.size())
        fail("number '" + digits + "' is malformed or beyond 64 bits");
      value = Value(number);
    }
    tokens_.push_back({TokenKind::number, line_, digits, std::move(value)});
    advance(end);
  }

  void read_string(char quote) {
    std::string text;
    size_t i = position_ + 1;
    while (i < source_.size() && source_[i] != quote) {
      if (source_[i] == '\\') {
        i = read_escape(i + 1, text);
      } else {
        text += source_[i++];
      }
    }
    if (i >= source_.size()) fail("string without end");
    tokens_.push_back({TokenKind::string, line_, text, Value(text)});
    advance(i + 1);
  }

  // Reads what follows a backslash; Python keeps the backslash of an escape that it does not know.
  size_t read_escape(size_t i, std::string& text) {
    static constexpr std::string_view kLetters = "ntr\\'\"abfv", kMeanings = "\n\t\r\\'\"\a\b\f\v";
    if (i >= source_.size()) fail("string without end");
    const char c = source_[i];
    const size_t letter = kLetters.find(c);
    if (letter != std::string_view::npos) {
      text += kMeanings[letter];
      return i + 1;
    }
    if (c == '\n') return i + 1;
    if (c >= '0' && c <= '7') return read_code(i, {8, 1, 3}, text);
    if (c == 'x') return read_code(i + 1, {16, 2, 2}, text);
    if (c == 'u') return read_code(i + 1, {16, 4, 4}, text);
    if (c == 'U') return read_code(i + 1, {16, 8, 8}, text);
    text.append("\\").append(1, c);
    return i + 1;
  }

  struct CodeForm {
    int base;
    size_t min_digits, max_digits;
  };

  size_t read_code(size_t i, const CodeForm& form, std::string& text) {
    const std::string_view digits = rest(i).substr(0, form.max_digits);
    uint32_t code = 0;
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), code, form.base);
    const auto used = static_cast<size_t>(result.ptr - digits.data());
    if (used < form.min_digits || code > 0x10ffff) fail("malformed escape in a string");
    append_utf8(text, code >= 0xd800 && code <= 0xdfff ? 0xfffd : code);  // no UTF-8 for surrogates
    return i + used;
  }

  const std::string& where_;
  std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, const std::string& where) { return Lexer(source, where).run(); }

}  // namespace nibble::jinja
