// Python's two ways to fill values into a text: "%s: %.2f" % (a, b) and "{}: {name}".format(a, name=b). Conversions
// that no published template uses (repr flags, alignment inside braces) are refused by name.
#include <algorithm>
#include <charconv>
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
      runtime.fail(ErrorCode::unsupported, "format field '{" + std::string(name) + "}' is not supported");
    }
  }
  if (index >= arguments.positional.size()) runtime.fail("format() has too few arguments");
  return arguments.positional[index];
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
    out += to_text(runtime, field(runtime, pattern.substr(i + 1, end - i - 1), arguments, next));
    i = end;
  }
  return out;
}

}  // namespace nibble::jinja
