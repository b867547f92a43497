#pragma once
// The filters, tests, methods and global functions of templates: tables of named functions, one file per table.
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_runtime.h"

namespace nibble::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  /// The argument; undefined when it was not given.
  const Value& operator[](size_t i) const;
};

struct Builtin {
  std::string_view name;
  std::string_view parameters;  // "old new count": named arguments become positional; "*": passed on as they are
  size_t required;              // how many of them must be given
  Value (*call)(Runtime& runtime, const Value& self, const Arguments& arguments);
};

struct Scope;

/// What a template can call: a function with the value it is bound to, or a macro with the scope that it sees.
struct Callable {
  const Builtin* builtin = nullptr;
  Value self;
  const Node* macro = nullptr;
  Scope* scope = nullptr;
};

/// Null for an unknown name.
const Builtin* find_filter(std::string_view name);
const Builtin* find_test(std::string_view name);
const Builtin* find_global(std::string_view name);
const Builtin* find_method(const Value& object, std::string_view name);

/// @throws Error when arguments are missing or unknown.
Value call_builtin(Runtime& runtime, const Builtin& builtin, const Value& self, Arguments arguments);

/// The tables.
std::span<const Builtin> filters();
std::span<const Builtin> sequence_filters();
std::span<const Builtin> tests();
std::span<const Builtin> string_methods();

/// The argument as a type, for the message the name of the function. @throws Error when it is of another type.
const std::string& text_argument(Runtime& runtime, const Value& value, std::string_view function);
int64_t integer_argument(Runtime& runtime, const Value& value, std::string_view function);
/// The argument, or `fallback` when it was not given.
int64_t integer_or(Runtime& runtime, const Value& value, int64_t fallback, std::string_view function);

/// A string made of `text`, `count` times. @throws Error{resources} before allocating too much.
std::string repeat(Runtime& runtime, std::string_view text, int64_t count);
std::string replace_checked(Runtime& runtime, std::string_view text, const Arguments& arguments);
Value join(Runtime& runtime, std::string_view separator, const Value& items, bool only_strings);

}  // namespace nibble::jinja
