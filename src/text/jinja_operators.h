#pragma once
// Operators, attributes and items of template values.
#include <optional>
#include <string>
#include <string_view>

#include "text/jinja_builtins.h"

namespace nibble::jinja {

/// left op right, for + - * / // % **
Value binary(Runtime& runtime, std::string_view op, const Value& left, const Value& right);
Value negative(Runtime& runtime, const Value& value);
Value positive(Runtime& runtime, const Value& value);
/// left op right, for == != < <= > >= in, not in
bool compare(Runtime& runtime, std::string_view op, const Value& left, const Value& right);
bool contains(Runtime& runtime, const Value& container, const Value& item);

/// object.name: a method, else a member; undefined when there is neither.
Value attribute(Runtime& runtime, const Value& object, std::string_view name);
/// object[key]: a member, else a method; undefined when there is neither.
Value item(Runtime& runtime, const Value& object, const Value& key);
/// object[start:stop:step] with Python's clamping.
Value slice(Runtime& runtime, const Value& object, const Value (&bounds)[3]);

/// Python's "..." % arguments and "...".format(arguments).
std::string percent_format(Runtime& runtime, std::string_view pattern, const Value& arguments);
std::string brace_format(Runtime& runtime, std::string_view pattern, const Arguments& arguments);

}  // namespace nibble::jinja
