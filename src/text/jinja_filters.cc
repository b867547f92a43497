// The filters of text and numbers, and what converts one into the other.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "text/jinja_operators.h"
#include "text/jinja_strings.h"
#include "text/unicode.h"

namespace nibble::jinja {
namespace {

template <std::string (*map)(std::string_view)>
Value text_filter(Runtime& runtime, const Value& self, const Arguments&) {
  return Value(map(to_text(runtime, self)));
}

Value trim_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string text = to_text(runtime, self);
  const bool spaces = arguments[0].is_undefined() || arguments[0].is_none();
  if (spaces) return Value(strip(text, Side::both));
  const std::string& characters = text_argument(runtime, arguments[0], "trim");
  runtime.spend(text.size(), characters.size());
  return Value(strip(text, Side::both, characters));
}

std::string title(std::string_view text) {
  static constexpr std::string_view kBeforeWord = "-({[<";
  std::string out;
  bool starts = true;
  for (const std::string_view point : code_points(text)) {
    size_t position = 0;
    out += starts ? uppercase(point) : lowercase(point);
    starts = kBeforeWord.find(point) != std::string_view::npos || is_space(next_char(point, position));
  }
  return out;
}

std::string unchanged(std::string_view text) { return std::string(text); }

Value marked(Value text) {
  text.markup = true;
  return text;
}

Value safe_filter(Runtime& runtime, const Value& self, const Arguments&) {
  return marked(Value(to_text(runtime, self)));
}
Value escape_filter(Runtime& runtime, const Value& self, const Arguments&) {
  return self.markup ? self : marked(Value(escape(to_text(runtime, self))));
}

Value replace_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  Arguments texts = arguments;
  for (size_t i = 0; i < 2; ++i) texts.positional[i] = Value(to_text(runtime, arguments[i]));
  return Value(replace_checked(runtime, to_text(runtime, self), texts));
}

Value format_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Value values = runtime.sequence(arguments.positional, SequenceKind::tuple);
  return Value(percent_format(runtime, to_text(runtime, self), values));
}

Value indent_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string* given = arguments[0].string();
  const std::string indent =
      given != nullptr ? *given : repeat(runtime, " ", integer_or(runtime, arguments[0], 4, "indent"));
  const bool first = is_true(arguments[1]), blank = is_true(arguments[2]);
  const std::string text = to_text(runtime, self) + "\n";
  std::string out = first ? indent : "";
  const auto lines = split_lines(text);
  for (size_t i = 0; i < lines.size(); ++i) {
    const bool indented = i > 0 && (blank || !lines[i].empty());
    runtime.spend(lines[i].size() + indent.size() + 1);
    if (i > 0) out += '\n';
    if (indented) out += indent;
    out += lines[i];
  }
  return Value(std::move(out));
}

Value truncate_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string text = to_text(runtime, self);
  const std::string end = arguments[2].is_undefined() ? "..." : text_argument(runtime, arguments[2], "truncate");
  const int64_t length = integer_or(runtime, arguments[0], 255, "truncate");
  const int64_t leeway = integer_or(runtime, arguments[3], 5, "truncate");
  if (length < code_point_count(end) || leeway < 0) {
    runtime.fail("truncate() needs a length of at least that of its end, and no negative one");
  }
  const int64_t kept = length - code_point_count(end);
  if (code_point_count(text) - leeway <= length) return Value(text);
  size_t cut = 0;
  for (int64_t i = 0; i < kept; ++i) next_char(text, cut);
  const size_t space = is_true(arguments[1]) || cut == 0 ? std::string::npos : text.rfind(' ', cut - 1);
  return Value(text.substr(0, space == std::string::npos ? cut : space) + end);
}

// As Python's quote(), or for a part of a query its quote_plus().
std::string url_quoted(std::string_view text, bool query) {
  static constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter || std::string_view(query ? "_.-~" : "_.-~/").find(c) != std::string_view::npos) {
      out += c;
    } else if (query && c == ' ') {
      out += '+';
    } else {
      out.append({'%', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
  return out;
}

Value urlencode_filter(Runtime& runtime, const Value& self, const Arguments&) {
  if (self.dict() == nullptr && self.sequence() == nullptr) return Value(url_quoted(to_text(runtime, self), false));
  const Value source = self.dict() ? call_builtin(runtime, *find_method(self, "items"), self, {}) : self;
  std::string out;
  for (const Value& pair : source.sequence()->items) {
    const auto parts = iterate(runtime, pair);
    if (parts->items.size() != 2) runtime.fail("urlencode needs pairs");
    if (!out.empty()) out += '&';
    out += url_quoted(to_text(runtime, parts->items[0]), true) + "=";
    out += url_quoted(to_text(runtime, parts->items[1]), true);
  }
  return Value(std::move(out));
}

std::optional<double> parse_float(std::string_view text) {
  text = strip(text, Side::both);
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  double number = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = result.ptr == text.data() + text.size() && !text.empty();
  return whole && result.ec == std::errc() ? std::optional(number) : std::nullopt;
}

std::optional<int64_t> parse_integer(std::string_view text, int base) {
  text = strip(text, Side::both);
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  static constexpr std::pair<int, std::string_view> kPrefixes[] = {{2, "0b"}, {8, "0o"}, {16, "0x"}};
  for (const auto& [prefix_base, prefix] : kPrefixes) {
    if (base == prefix_base && lowercase(text.substr(0, 2)) == prefix) text.remove_prefix(2);
  }
  int64_t number = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), number, base);
  const bool whole = result.ptr == text.data() + text.size() && !text.empty();
  return whole && result.ec == std::errc() ? std::optional(number) : std::nullopt;
}

void require_defined_number(Runtime& runtime, const Value& value, std::string_view filter) {
  if (value.is_undefined()) runtime.fail(std::string(filter) + " filter: the value is undefined");
}

Value int_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  require_defined_number(runtime, self, "int");
  const Value fallback = arguments[0].is_undefined() ? Value(int64_t{0}) : arguments[0];
  const int64_t base = integer_or(runtime, arguments[1], 10, "int");
  if (base < 2 || base > 36) runtime.fail("int() base must be between 2 and 36");
  if (const auto whole = self.integer()) return Value(*whole);
  const std::string* text = self.string();
  const auto parsed = text == nullptr ? std::nullopt : parse_integer(*text, static_cast<int>(base));
  if (parsed) return Value(*parsed);
  const auto number = text == nullptr ? self.number() : parse_float(*text);
  if (!number || !std::isfinite(*number)) return fallback;
  if (std::fabs(*number) >= 0x1p63) runtime.fail("integer overflow (integers have 64 bits here)");
  return Value(static_cast<int64_t>(*number));
}

Value float_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  require_defined_number(runtime, self, "float");
  const auto number = self.string() == nullptr ? self.number() : parse_float(*self.string());
  if (number) return Value(*number);
  return arguments[0].is_undefined() ? Value(0.0) : arguments[0];
}

Value abs_filter(Runtime& runtime, const Value& self, const Arguments&) {
  const auto number = self.number();
  if (!number) runtime.fail("abs filter needs a number, found '" + std::string(type_name(self)) + "'");
  return *number < 0 ? negative(runtime, self) : positive(runtime, self);
}

Value round_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const int64_t precision = integer_or(runtime, arguments[0], 0, "round");
  const std::string method = arguments[1].is_undefined() ? "common" : text_argument(runtime, arguments[1], "round");
  const auto number = self.number();
  if (!number) runtime.fail("round filter needs a number, found '" + std::string(type_name(self)) + "'");
  if (precision < 0 || precision > 300) runtime.fail("round filter: precision must be between 0 and 300");
  if (method == "common") {
    if (self.integer()) return Value(*self.integer());
    if (!std::isfinite(*number)) return self;
    char buffer[700];  // %f rounds the exact binary value, ties to even, as Python does
    std::snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(precision), *number);
    return Value(*parse_float(buffer));
  }
  if (method != "ceil" && method != "floor") runtime.fail("round filter: method must be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = *number * scale;
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value default_filter(Runtime&, const Value& self, const Arguments& arguments) {
  const bool missing = self.is_undefined() || (is_true(arguments[1]) && !is_true(self));
  if (!missing) return self;
  return arguments[0].is_undefined() ? Value(std::string_view()) : arguments[0];
}

Value tojson_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  JsonStyle style;
  style.ensure_ascii = is_true(arguments[0]);
  const Value& indent = arguments[1];
  const std::string* indent_text = indent.string();
  if (indent_text != nullptr) style.indent = *indent_text;
  if (indent.integer()) style.indent = repeat(runtime, " ", *indent.integer());
  if (style.indent) style.item_separator = ",";
  if (is_true(arguments[2])) {
    const auto separators = iterate(runtime, arguments[2]);
    if (separators->items.size() != 2) runtime.fail("tojson needs two separators");
    style.item_separator = text_argument(runtime, separators->items[0], "tojson");
    style.key_separator = text_argument(runtime, separators->items[1], "tojson");
  }
  style.sort_keys = is_true(arguments[3]);
  return Value(to_json(runtime, self, style));
}

constexpr std::array<Builtin, 21> kFilters = {{
    {"trim", "chars", 0, trim_filter},
    {"upper", "", 0, text_filter<uppercase>},
    {"lower", "", 0, text_filter<lowercase>},
    {"capitalize", "", 0, text_filter<capitalize>},
    {"title", "", 0, text_filter<title>},
    {"escape", "", 0, escape_filter},
    {"e", "", 0, escape_filter},
    {"safe", "", 0, safe_filter},
    {"string", "", 0, text_filter<unchanged>},
    {"replace", "old new count", 2, replace_filter},
    {"format", "*", 0, format_filter},
    {"indent", "width first blank", 0, indent_filter},
    {"truncate", "length killwords end leeway", 0, truncate_filter},
    {"urlencode", "", 0, urlencode_filter},
    {"int", "default base", 0, int_filter},
    {"float", "default", 0, float_filter},
    {"abs", "", 0, abs_filter},
    {"round", "precision method", 0, round_filter},
    {"default", "default_value boolean", 0, default_filter},
    {"d", "default_value boolean", 0, default_filter},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, tojson_filter},
}};

}  // namespace

std::span<const Builtin> filters() { return kFilters; }

std::string replace_checked(Runtime& runtime, std::string_view text, const Arguments& arguments) {
  const std::string &old = *arguments[0].string(), &fresh = *arguments[1].string();
  const int64_t limit = integer_or(runtime, arguments[2], -1, "replace");
  runtime.spend(text.size());
  runtime.spend(static_cast<size_t>(count(text, old)), fresh.size());
  return replace(text, old, fresh, limit);
}

}  // namespace nibble::jinja
