#pragma once
// The values of a running chat template, with Python's meaning of truth, equality, order and text.
//
// Lists and dicts never change once made (transformers renders in an immutable sandbox), so values form no cycles and
// each one knows how deep it nests. The only thing with mutable attributes is a namespace; the runtime owns those.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/json.h"

namespace nibble::jinja {

struct Sequence;
struct Dict;
struct Namespace;
struct Callable;
class Runtime;

/// What a missing name, attribute or item evaluates to; `reason` is the error of whoever needs a real value.
struct Undefined {
  std::shared_ptr<const std::string> reason;
};
struct None {};

struct Value {
  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>,
               std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>, Namespace*,
               std::shared_ptr<const Callable>>
      data;
  bool markup = false;  // a string that the filters safe or escape made: what is added to it is escaped first

  Value() = default;
  explicit Value(None none) : data(none) {}
  explicit Value(bool flag) : data(flag) {}
  explicit Value(int64_t number) : data(number) {}
  explicit Value(double number) : data(number) {}
  explicit Value(std::string text) : data(std::make_shared<const std::string>(std::move(text))) {}
  explicit Value(std::string_view text) : Value(std::string(text)) {}
  explicit Value(const char*) = delete;  // would become a bool
  explicit Value(std::shared_ptr<const Sequence> items) : data(std::move(items)) {}
  explicit Value(std::shared_ptr<const Dict> items) : data(std::move(items)) {}
  explicit Value(Namespace* space) : data(space) {}
  explicit Value(std::shared_ptr<const Callable> callable) : data(std::move(callable)) {}

  static Value undefined(std::string reason) {
    Value value;
    value.data = Undefined{std::make_shared<const std::string>(std::move(reason))};
    return value;
  }

  bool is_undefined() const { return std::holds_alternative<Undefined>(data); }
  bool is_none() const { return std::holds_alternative<None>(data); }
  bool is_bool() const { return std::holds_alternative<bool>(data); }
  bool is_float() const { return std::holds_alternative<double>(data); }
  /// Null when the value is of another kind.
  const std::string* string() const { return pointer<std::string>(); }
  const Sequence* sequence() const { return pointer<Sequence>(); }
  const Dict* dict() const { return pointer<Dict>(); }
  const Callable* callable() const { return pointer<Callable>(); }
  Namespace* name_space() const {
    const auto* space = std::get_if<Namespace*>(&data);
    return space == nullptr ? nullptr : *space;
  }
  /// An int, or a bool as 0 or 1.
  std::optional<int64_t> integer() const;
  /// An int, bool or float.
  std::optional<double> number() const;

 private:
  template <class T>
  const T* pointer() const {
    const auto* shared = std::get_if<std::shared_ptr<const T>>(&data);
    return shared == nullptr ? nullptr : shared->get();
  }
};

/// A generator is what filters such as map give: it can be looped over, but has no length, no items and is always true.
/// A view is what dict.items() gives: a length, but no items by index.
enum class SequenceKind { list, tuple, generator, view };

struct Sequence {
  SequenceKind kind = SequenceKind::list;
  int depth = 1;
  std::vector<Value> items;
};

struct Dict {
  int depth = 1;
  std::vector<std::pair<Value, Value>> items;  // in the order of insertion
  /// The member with a text key; null when there is none.
  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
};

/// Python's word for the type: "str", "int", "NoneType", ...
std::string_view type_name(const Value& value);
/// As jinja2 names an object without the attribute: "dict object", "None".
std::string object_name(const Value& value);
int value_depth(const Value& value);
bool is_true(const Value& value);
/// Bytes of the value itself, without what its items refer to.
size_t shallow_bytes(const Value& value);

/// str(value) and repr(value).
std::string to_text(Runtime& runtime, const Value& value);
std::string repr(Runtime& runtime, const Value& value);
std::string float_text(double number);

/// a == b
bool equal(Runtime& runtime, const Value& a, const Value& b);
/// a < b. @throws Error when the two have no order.
bool less(Runtime& runtime, const Value& a, const Value& b);

/// What a loop over the value visits: items, keys, or code points; nothing for an undefined value.
/// @throws Error when the value cannot be looped over.
std::shared_ptr<const Sequence> iterate(Runtime& runtime, const Value& value);

Value from_json(Runtime& runtime, const Json& json);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // per level; nullopt = one line
  std::string item_separator = ", ", key_separator = ": ";
};
/// json.dumps(value). @throws Error for values that JSON has no form for.
std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style);

}  // namespace nibble::jinja
