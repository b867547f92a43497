// Python's two ways to fill values into a text: "%s: %.2f" % (a, b) and "{}: {name:>5}".format(a, name=b). Conversions
// that no published template uses (fields of fields, thousands, bits) are refused by name.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "text/jinja_operators.h"
#include "text/jinja_strings.h"
#include "text/unicode.h"

namespace nibble::jinja {
namespace {

constexpr int kMaxWidth = 1000;

struct Conversion {
  std::string flags;
  int width = 0;
  int precision = -1;
  char type = 0;
};

int read_number(Runtime& runtime, std::string_view pattern, size_t& i) {
  int number = 0;
  const auto result = std::from_chars(pattern.data() + i, pattern.data() + pattern.size(), number);
  if (result.ec == std::errc::result_out_of_range || number > kMaxWidth) {
    runtime.fail("format width or precision is larger than " + std::to_string(kMaxWidth));
  }
  i = static_cast<size_t>(result.ptr - pattern.data());
  return number;
}

// Reads what follows a percent sign; `i` moves behind it.
Conversion read_conversion(Runtime& runtime, std::string_view pattern, size_t& i) {
  Conversion conversion;
  while (i < pattern.size() && std::string_view("-+ 0#").find(pattern[i]) != std::string_view::npos) {
    if (conversion.flags.find(pattern[i]) == std::string::npos) conversion.flags += pattern[i];
    ++i;
  }
  conversion.width = read_number(runtime, pattern, i);
  if (i < pattern.size() && pattern[i] == '.') conversion.precision = read_number(runtime, pattern, ++i);
  if (i >= pattern.size()) runtime.fail("incomplete format");
  conversion.type = pattern[i++];
  return conversion;
}

std::string print_number(const Conversion& conversion, const Value& value) {
  const bool whole = std::string_view("dxXo").find(conversion.type) != std::string_view::npos;
  const std::string precision = conversion.precision >= 0 ? "." + std::to_string(conversion.precision) : "";
  const std::string format =
      "%" + conversion.flags + std::to_string(conversion.width) + precision + (whole ? "ll" : "") + conversion.type;
  char buffer[2 * kMaxWidth + 512];  // the longest double has 309 digits before its point
  const int length =
      whole ? std::snprintf(buffer, sizeof(buffer), format.c_str(), static_cast<long long>(value.integer().value_or(0)))
            : std::snprintf(buffer, sizeof(buffer), format.c_str(), *value.number());
  return std::string(buffer, static_cast<size_t>(length));
}

std::string convert(Runtime& runtime, Conversion conversion, const Value& value) {
  if (conversion.type == 's' || conversion.type == 'r') {
    std::string text = conversion.type == 's' ? to_text(runtime, value) : repr(runtime, value);
    if (conversion.precision >= 0) {
      size_t end = 0;
      for (int i = 0; i < conversion.precision && end < text.size(); ++i) next_char(text, end);
      text.resize(end);
    }
    const auto missing = static_cast<size_t>(std::max<int64_t>(conversion.width - code_point_count(text), 0));
    const bool left = conversion.flags.find('-') != std::string::npos;
    return left ? text + std::string(missing, ' ') : std::string(missing, ' ') + text;
  }
  if (conversion.type == 'i' || conversion.type == 'u') conversion.type = 'd';
  if (std::string_view("dxXofFeEgG").find(conversion.type) == std::string_view::npos) {
    runtime.fail("unsupported format character '" + std::string(1, conversion.type) + "'");
  }
  if (!value.number()) runtime.fail("%" + std::string(1, conversion.type) + " needs a number");
  if (conversion.type != 'd' || value.integer()) return print_number(conversion, value);
  const double whole = *value.number();
  if (!(whole > -9e18 && whole < 9e18)) runtime.fail("%d needs a number of at most 64 bits");
  return print_number(conversion, Value(static_cast<int64_t>(whole)));
}

[[noreturn]] void fail_field(Runtime& runtime, std::string_view field) {
  runtime.fail(ErrorCode::unsupported, "format field '{" + std::string(field) + "}' is not supported");
}

// The value that "{}", "{0}" or "{name}" stands for.
const Value& field(Runtime& runtime, std::string_view name, const Arguments& arguments, size_t& next) {
  size_t index = next;
  if (name.empty()) {
    ++next;
  } else {
    const auto is_wanted = [name](const auto& pair) { return pair.first == name; };
    const auto named = std::find_if(arguments.named.begin(), arguments.named.end(), is_wanted);
    if (named != arguments.named.end()) return named->second;
    const auto result = std::from_chars(name.data(), name.data() + name.size(), index);
    if (result.ec != std::errc() || result.ptr != name.data() + name.size()) {
      fail_field(runtime, name);
    }
  }
  if (index >= arguments.positional.size()) runtime.fail("format() has too few arguments");
  return arguments.positional[index];
}

// What stands behind the colon of a field: [[fill]align][sign][0][width][.precision][type].
struct FieldFormat {
  std::string fill = " ";
  char align = 0;      // one of < > ^ =; 0: as the value's type has it
  bool zeros = false;  // a 0 in front of the width, which goes between sign and digits of numbers
  Conversion conversion;
};

FieldFormat read_format(Runtime& runtime, std::string_view format, std::string_view whole) {
  static constexpr std::string_view kAligns = "<>^=", kTypes = "sdxXofFeEgG%";
  const auto is_align = [&](size_t at) { return at < format.size() && kAligns.find(format[at]) != kAligns.npos; };
  FieldFormat result;
  size_t i = 0, filled = 0;
  next_char(format, filled);
  if (is_align(filled)) {
    result.fill = format.substr(0, filled);
    i = filled;
  }
  if (is_align(i)) result.align = format[i++];
  if (i < format.size() && std::string_view("+- ").find(format[i]) != std::string_view::npos) {
    result.conversion.flags = format[i++];
  }
  if (i < format.size() && format[i] == '0') {
    if (filled >= format.size() || !is_align(filled)) result.fill = "0";
    result.zeros = true;
  }
  result.conversion.width = read_number(runtime, format, i);
  if (i < format.size() && format[i] == '.') {
    if (++i >= format.size() || format[i] < '0' || format[i] > '9') fail_field(runtime, whole);
    result.conversion.precision = read_number(runtime, format, i);
  }
  if (i < format.size() && kTypes.find(format[i]) != kTypes.npos) result.conversion.type = format[i++];
  if (i < format.size()) fail_field(runtime, whole);
  return result;
}

// Negative numbers as a sign and a magnitude, where C would print two's complement.
std::string convert_base(const Conversion& conversion, int64_t value) {
  char digits[32];
  const auto [end, error] = std::to_chars(digits, digits + sizeof(digits), value, conversion.type == 'o' ? 8 : 16);
  const std::string text = (value < 0 ? "" : conversion.flags) + std::string(digits, end);
  return conversion.type == 'X' ? uppercase(text) : text;
}

// The value without its padding.
std::string convert_field(Runtime& runtime, Conversion conversion, const Value& value, std::string_view whole) {
  conversion.width = 0;
  const bool number = value.number().has_value(), fraction = value.is_float();
  if (conversion.type == 0) conversion.type = !number ? 's' : fraction ? 'r' : 'd';
  const bool rounded = conversion.precision >= 0, text = conversion.type == 's', integral = value.integer().has_value();
  const bool whole_type = std::string_view("dxXo").find(conversion.type) != std::string_view::npos;
  if (text != !number || (whole_type && (!integral || rounded))) fail_field(runtime, whole);
  if (text && (value.string() == nullptr || !conversion.flags.empty())) fail_field(runtime, whole);
  if (whole_type && conversion.type != 'd') return convert_base(conversion, *value.integer());
  if (conversion.type == 'r') {
    if (rounded) fail_field(runtime, whole);  // shortest or fixed, by a rule of its own
    const bool signed_text = conversion.flags == "+" || conversion.flags == " ";
    return (signed_text && !std::signbit(*value.number()) ? conversion.flags : "") + repr(runtime, value);
  }
  if (conversion.type != '%') return convert(runtime, conversion, value);
  conversion.type = 'f';
  return convert(runtime, conversion, Value(*value.number() * 100)) + "%";
}

std::string format_field(Runtime& runtime, const Value& value, std::string_view spec, std::string_view whole) {
  if (spec.empty()) return to_text(runtime, value);
  const FieldFormat format = read_format(runtime, spec, whole);
  const std::string text = convert_field(runtime, format.conversion, value, whole);
  const int64_t missing = std::max<int64_t>(format.conversion.width - code_point_count(text), 0);
  const char align = format.align != 0 ? format.align : !value.number() ? '<' : format.zeros ? '=' : '>';
  if (align == '=' && !value.number()) fail_field(runtime, whole);
  const bool has_sign = !text.empty() && std::string_view("+- ").find(text[0]) != std::string_view::npos;
  const size_t sign = align == '=' && has_sign ? 1 : 0;
  const int64_t left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  return text.substr(0, sign) + repeat(runtime, format.fill, left) + text.substr(sign) +
         repeat(runtime, format.fill, missing - left);
}

// One field: "name", "name!r", "name:spec".
std::string fill_field(Runtime& runtime, std::string_view whole, const Arguments& arguments, size_t& next) {
  const size_t colon = std::min(whole.find(':'), whole.size());
  const std::string_view spec = whole.substr(std::min(colon + 1, whole.size()));
  std::string_view name = whole.substr(0, colon);
  const size_t mark = name.find('!');
  const std::string_view flag = mark == std::string_view::npos ? "" : name.substr(mark + 1);
  if (spec.find('{') != std::string_view::npos || (mark != std::string_view::npos && flag != "r" && flag != "s")) {
    fail_field(runtime, whole);
  }
  const Value& value = field(runtime, name.substr(0, mark), arguments, next);
  if (flag.empty()) return format_field(runtime, value, spec, whole);
  return format_field(runtime, Value(flag == "r" ? repr(runtime, value) : to_text(runtime, value)), spec, whole);
}

}  // namespace

std::string percent_format(Runtime& runtime, std::string_view pattern, const Value& arguments) {
  const Sequence* tuple = arguments.sequence();
  const bool many = tuple != nullptr && tuple->kind == SequenceKind::tuple;
  const std::vector<Value> values = many ? tuple->items : std::vector<Value>{arguments};
  std::string out;
  size_t used = 0;
  for (size_t i = 0; i < pattern.size();) {
    if (pattern[i] != '%') {
      out += pattern[i++];
      continue;
    }
    const Conversion conversion = read_conversion(runtime, pattern, ++i);
    if (conversion.type == '%') {
      out += '%';
      continue;
    }
    if (conversion.type == '(') runtime.fail(ErrorCode::unsupported, "format '%(name)' is not supported");
    if (used == values.size()) runtime.fail("not enough arguments for format string");
    out += convert(runtime, conversion, values[used++]);
    runtime.spend(static_cast<size_t>(conversion.width));
  }
  if (used < values.size() && arguments.dict() == nullptr) {
    runtime.fail("not all arguments converted during string formatting");
  }
  return out;
}

std::string brace_format(Runtime& runtime, std::string_view pattern, const Arguments& arguments) {
  std::string out;
  size_t next = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c != '{' && c != '}') {
      out += c;
      continue;
    }
    if (i + 1 < pattern.size() && pattern[i + 1] == c) {
      out += c;
      ++i;
      continue;
    }
    const size_t end = pattern.find('}', i);
    if (c == '}' || end == std::string_view::npos) runtime.fail("single '" + std::string(1, c) + "' in format string");
    out += fill_field(runtime, pattern.substr(i + 1, end - i - 1), arguments, next);
    i = end;
  }
  return out;
}

}  // namespace nibble::jinja
