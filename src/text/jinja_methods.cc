// The methods of strings.
#include <algorithm>
#include <array>

#include "text/jinja_operators.h"
#include "text/jinja_strings.h"
#include "text/unicode.h"

namespace nibble::jinja {
namespace {

std::optional<std::string_view> optional_text(Runtime& runtime, const Value& value, std::string_view function) {
  if (value.is_undefined() || value.is_none()) return std::nullopt;
  return text_argument(runtime, value, function);
}

template <Side side>
Value strip_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto characters = optional_text(runtime, arguments[0], "strip");
  if (characters) runtime.spend(self.string()->size(), characters->size());
  return Value(strip(*self.string(), side, characters));
}

Value list_of(Runtime& runtime, const std::vector<std::string_view>& pieces) {
  runtime.spend(pieces.size(), sizeof(Value) + sizeof(std::string));
  std::vector<Value> items;
  for (const std::string_view piece : pieces) items.emplace_back(piece);
  return runtime.sequence(std::move(items));
}

template <Side from>
Value split_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto separator = optional_text(runtime, arguments[0], "split");
  if (separator && from == Side::right) runtime.spend(self.string()->size(), separator->size());
  if (separator && separator->empty()) runtime.fail("split() has an empty separator");
  return list_of(runtime, split(*self.string(), separator, integer_or(runtime, arguments[1], -1, "split"), from));
}

Value splitlines_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return list_of(runtime, split_lines(*self.string(), is_true(arguments[0])));
}

template <Side from>
Value partition_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string& separator = text_argument(runtime, arguments[0], "partition");
  const std::string_view text = *self.string();
  if (separator.empty()) runtime.fail("partition() has an empty separator");
  if (from == Side::right) runtime.spend(text.size(), separator.size());  // rfind may take that long
  const size_t found = from == Side::left ? find_text(text, separator) : text.rfind(separator);
  std::vector<Value> parts(3, Value(std::string_view()));
  if (found == std::string_view::npos) {
    parts[from == Side::left ? 0 : 2] = self;
  } else {
    parts = {Value(text.substr(0, found)), arguments[0], Value(text.substr(found + separator.size()))};
  }
  return runtime.sequence(std::move(parts), SequenceKind::tuple);
}

template <std::string (*map)(std::string_view)>
Value mapped(Runtime&, const Value& self, const Arguments&) {
  return Value(map(*self.string()));
}

Value title_method(Runtime&, const Value& self, const Arguments&) {
  std::string out;
  bool in_word = false;
  for (const std::string_view point : code_points(*self.string())) {
    const std::string upper = uppercase(point), lower = lowercase(point);
    out += in_word ? lower : upper;
    in_word = upper != lower;
  }
  return Value(std::move(out));
}

Value swapcase_method(Runtime&, const Value& self, const Arguments&) {
  std::string out;
  for (const std::string_view point : code_points(*self.string())) {
    const std::string lower = lowercase(point);
    out += lower != point ? lower : uppercase(point);
  }
  return Value(std::move(out));
}

Value zfill_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string& text = *self.string();
  const int64_t count = code_point_count(text);
  const int64_t missing = std::max(integer_argument(runtime, arguments[0], "zfill"), count) - count;
  const size_t sign = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
  return Value(text.substr(0, sign) + repeat(runtime, "0", missing) + text.substr(sign));
}

// Whether the string begins (ends) with the argument, or with one of its items.
template <bool (*matches)(std::string_view, std::string_view)>
Value affix_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Sequence* several = arguments[0].sequence();
  if (several == nullptr) return Value(matches(*self.string(), text_argument(runtime, arguments[0], "startswith")));
  const auto matches_one = [&](const Value& affix) {
    return matches(*self.string(), text_argument(runtime, affix, "startswith"));
  };
  return Value(std::any_of(several->items.begin(), several->items.end(), matches_one));
}
bool begins(std::string_view text, std::string_view prefix) { return text.starts_with(prefix); }
bool ends(std::string_view text, std::string_view suffix) { return text.ends_with(suffix); }

Value removeprefix_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string& prefix = text_argument(runtime, arguments[0], "removeprefix");
  return self.string()->starts_with(prefix) ? Value(self.string()->substr(prefix.size())) : self;
}

Value removesuffix_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string& suffix = text_argument(runtime, arguments[0], "removesuffix");
  const std::string& text = *self.string();
  return text.ends_with(suffix) ? Value(text.substr(0, text.size() - suffix.size())) : self;
}

Value replace_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  text_argument(runtime, arguments[0], "replace");
  text_argument(runtime, arguments[1], "replace");
  return Value(replace_checked(runtime, *self.string(), arguments));
}

template <Side from>
Value find_position(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string_view text = *self.string();
  const std::string& wanted = text_argument(runtime, arguments[0], "find");
  if (from == Side::right) runtime.spend(text.size(), wanted.size());
  const size_t found = from == Side::left ? find_text(text, wanted) : text.rfind(wanted);
  return Value(found == std::string_view::npos ? int64_t{-1} : code_point_count(text.substr(0, found)));
}

Value index_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  Value found = find_position<Side::left>(runtime, self, arguments);
  if (found.integer() == -1) runtime.fail("index(): substring not found");
  return found;
}

Value count_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return Value(count(*self.string(), text_argument(runtime, arguments[0], "count")));
}

Value join_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return join(runtime, *self.string(), arguments[0], true);
}

Value format_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return Value(brace_format(runtime, *self.string(), arguments));
}

// Whether the string is not empty and all its code points are of a class.
template <bool (*in_class)(char32_t)>
Value all_of_class(Runtime&, const Value& self, const Arguments&) {
  const std::string_view text = *self.string();
  for (size_t i = 0; i < text.size();) {
    if (!in_class(next_char(text, i))) return Value(false);
  }
  return Value(!text.empty());
}
bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }
bool is_letter_or_digit(char32_t c) { return c != '_' && is_word(c); }
bool is_letter(char32_t c) { return is_letter_or_digit(c) && !is_numeric(c); }

Value isupper_method(Runtime&, const Value& self, const Arguments&) { return Value(is_upper(*self.string())); }
Value islower_method(Runtime&, const Value& self, const Arguments&) { return Value(is_lower(*self.string())); }

constexpr std::array<Builtin, 33> kStringMethods = {{
    {"strip", "chars", 0, strip_method<Side::both>},
    {"lstrip", "chars", 0, strip_method<Side::left>},
    {"rstrip", "chars", 0, strip_method<Side::right>},
    {"split", "sep maxsplit", 0, split_method<Side::left>},
    {"rsplit", "sep maxsplit", 0, split_method<Side::right>},
    {"splitlines", "keepends", 0, splitlines_method},
    {"partition", "sep", 1, partition_method<Side::left>},
    {"rpartition", "sep", 1, partition_method<Side::right>},
    {"upper", "", 0, mapped<uppercase>},
    {"lower", "", 0, mapped<lowercase>},
    {"casefold", "", 0, mapped<lowercase>},
    {"capitalize", "", 0, mapped<capitalize>},
    {"title", "", 0, title_method},
    {"swapcase", "", 0, swapcase_method},
    {"zfill", "width", 1, zfill_method},
    {"startswith", "prefix", 1, affix_method<begins>},
    {"endswith", "suffix", 1, affix_method<ends>},
    {"removeprefix", "prefix", 1, removeprefix_method},
    {"removesuffix", "suffix", 1, removesuffix_method},
    {"replace", "old new count", 2, replace_method},
    {"find", "sub", 1, find_position<Side::left>},
    {"rfind", "sub", 1, find_position<Side::right>},
    {"index", "sub", 1, index_method},
    {"count", "sub", 1, count_method},
    {"join", "iterable", 1, join_method},
    {"format", "*", 0, format_method},
    {"isdigit", "", 0, all_of_class<is_digit>},
    {"isnumeric", "", 0, all_of_class<is_numeric>},
    {"isalpha", "", 0, all_of_class<is_letter>},
    {"isalnum", "", 0, all_of_class<is_letter_or_digit>},
    {"isspace", "", 0, all_of_class<is_space>},
    {"isupper", "", 0, isupper_method},
    {"islower", "", 0, islower_method},
}};

}  // namespace

std::span<const Builtin> string_methods() { return kStringMethods; }

}  // namespace nibble::jinja
