#include "text/jinja_value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "text/jinja_builtins.h"
#include "text/jinja_runtime.h"
#include "text/jinja_strings.h"

namespace nibble::jinja {
namespace {

// What one comparison counts for, so that comparing everything with everything soon meets the limit.
constexpr size_t kComparisonBytes = 16;

// In the order of Value's alternatives; sequences and bools are told apart further in type_name.
constexpr std::array<std::string_view, 10> kTypeNames = {"Undefined", "NoneType", "bool", "int",       "float",
                                                         "str",       "list",     "dict", "Namespace", "function"};

std::string sequence_text(Runtime& runtime, const Sequence& sequence) {
  const bool tuple = sequence.kind == SequenceKind::tuple;
  std::string out = tuple ? "(" : "[";
  for (const Value& item : sequence.items) {
    if (out.size() > 1) out += ", ";
    out += repr(runtime, item);
  }
  if (tuple && sequence.items.size() == 1) out += ",";
  return out + (tuple ? ")" : "]");
}

std::string dict_text(Runtime& runtime, const Dict& dict) {
  std::string out = "{";
  for (const auto& [key, value] : dict.items) {
    if (out.size() > 1) out += ", ";
    out += repr(runtime, key) + ": " + repr(runtime, value);
  }
  return out + "}";
}

std::string any_text(Runtime& runtime, const Value& value) {
  if (value.is_undefined()) return "Undefined";
  if (value.is_none()) return "None";
  if (value.is_bool()) return is_true(value) ? "True" : "False";
  if (const auto number = value.integer()) return std::to_string(*number);
  if (value.is_float()) return float_text(*value.number());
  if (const std::string* text = value.string()) return quoted(*text);
  if (const Dict* dict = value.dict()) return dict_text(runtime, *dict);
  if (const Sequence* sequence = value.sequence()) {
    if (sequence->kind == SequenceKind::generator) return "<generator object>";
    return sequence_text(runtime, *sequence);
  }
  return "<" + std::string(type_name(value)) + ">";
}

bool equal_sequences(Runtime& runtime, const Sequence& a, const Sequence& b) {
  if (a.kind != b.kind || a.items.size() != b.items.size()) return false;
  const auto same = [&](const Value& x, const Value& y) { return equal(runtime, x, y); };
  return std::equal(a.items.begin(), a.items.end(), b.items.begin(), same);
}

bool equal_dicts(Runtime& runtime, const Dict& a, const Dict& b) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, value] : a.items) {
    const auto match = [&, &k = key](const auto& pair) { return equal(runtime, k, pair.first); };
    const auto found = std::find_if(b.items.begin(), b.items.end(), match);
    if (found == b.items.end() || !equal(runtime, value, found->second)) return false;
  }
  return true;
}

bool less_sequences(Runtime& runtime, const Sequence& a, const Sequence& b) {
  const size_t common = std::min(a.items.size(), b.items.size());
  for (size_t i = 0; i < common; ++i) {
    if (!equal(runtime, a.items[i], b.items[i])) return less(runtime, a.items[i], b.items[i]);
  }
  return a.items.size() < b.items.size();
}

}  // namespace

std::optional<int64_t> Value::integer() const {
  if (const bool* flag = std::get_if<bool>(&data)) return *flag ? 1 : 0;
  const int64_t* number = std::get_if<int64_t>(&data);
  return number == nullptr ? std::nullopt : std::optional(*number);
}

std::optional<double> Value::number() const {
  if (const double* number = std::get_if<double>(&data)) return *number;
  const auto whole = integer();
  return whole ? std::optional(static_cast<double>(*whole)) : std::nullopt;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : items) {
    const std::string* text = name.string();
    if (text != nullptr && *text == key) return &value;
  }
  return nullptr;
}

std::string_view type_name(const Value& value) {
  static constexpr std::string_view kSequences[] = {"list", "tuple", "generator", "dict_items"};
  if (const Sequence* sequence = value.sequence()) return kSequences[static_cast<size_t>(sequence->kind)];
  return kTypeNames[value.data.index()];
}

std::string object_name(const Value& value) {
  return value.is_none() ? "None" : std::string(type_name(value)) + " object";
}

int value_depth(const Value& value) {
  if (const Sequence* sequence = value.sequence()) return sequence->depth;
  if (const Dict* dict = value.dict()) return dict->depth;
  if (const Callable* callable = value.callable()) return 1 + value_depth(callable->self);
  return 0;
}

bool is_true(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (const auto number = value.number()) return *number != 0;
  if (const std::string* text = value.string()) return !text->empty();
  if (const Dict* dict = value.dict()) return !dict->items.empty();
  const Sequence* sequence = value.sequence();
  return sequence == nullptr || sequence->kind == SequenceKind::generator || !sequence->items.empty();
}

size_t shallow_bytes(const Value& value) {
  if (const std::string* text = value.string()) return text->size();
  if (const Sequence* sequence = value.sequence()) return sequence->items.size() * sizeof(Value);
  if (const Dict* dict = value.dict()) return dict->items.size() * 2 * sizeof(Value);
  return 0;
}

std::string float_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  // Python writes the shortest digits that read back the same: plain from 1e-4 to 1e16, else with an exponent.
  char buffer[400];
  const double magnitude = std::fabs(number);
  const bool plain = magnitude == 0 || (magnitude >= 1e-4 && magnitude < 1e16);
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), number, format);
  std::string text(buffer, result.ptr);
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string to_text(Runtime& runtime, const Value& value) {
  if (value.is_undefined()) return "";
  const std::string* text = value.string();
  return text != nullptr ? *text : repr(runtime, value);
}

std::string repr(Runtime& runtime, const Value& value) {
  runtime.spend(shallow_bytes(value) + 1);
  std::string out = any_text(runtime, value);
  runtime.spend(out.size());
  return out;
}

bool equal(Runtime& runtime, const Value& a, const Value& b) {
  runtime.spend(std::min(shallow_bytes(a), shallow_bytes(b)) + kComparisonBytes);
  const auto whole_a = a.integer(), whole_b = b.integer();
  if (whole_a && whole_b) return *whole_a == *whole_b;
  const auto number_a = a.number(), number_b = b.number();
  if (number_a && number_b) return *number_a == *number_b;
  if (a.data.index() != b.data.index()) return false;
  if (a.is_undefined() || a.is_none()) return true;
  if (const std::string* text = a.string()) return *text == *b.string();
  if (const Sequence* sequence = a.sequence()) return equal_sequences(runtime, *sequence, *b.sequence());
  if (const Dict* dict = a.dict()) return equal_dicts(runtime, *dict, *b.dict());
  if (a.name_space() != nullptr) return a.name_space() == b.name_space();
  return a.callable() == b.callable();
}

bool less(Runtime& runtime, const Value& a, const Value& b) {
  runtime.spend(std::min(shallow_bytes(a), shallow_bytes(b)) + kComparisonBytes);
  const auto whole_a = a.integer(), whole_b = b.integer();
  if (whole_a && whole_b) return *whole_a < *whole_b;
  const auto number_a = a.number(), number_b = b.number();
  if (number_a && number_b) return *number_a < *number_b;
  if (a.string() != nullptr && b.string() != nullptr) return *a.string() < *b.string();
  const Sequence *list_a = a.sequence(), *list_b = b.sequence();
  if (list_a != nullptr && list_b != nullptr && list_a->kind == list_b->kind) {
    return less_sequences(runtime, *list_a, *list_b);
  }
  runtime.fail("'" + std::string(type_name(a)) + "' and '" + std::string(type_name(b)) + "' have no order");
}

std::shared_ptr<const Sequence> iterate(Runtime& runtime, const Value& value) {
  if (const auto* shared = std::get_if<std::shared_ptr<const Sequence>>(&value.data)) return *shared;
  std::vector<Value> items;
  if (const std::string* text = value.string()) {
    runtime.spend(text->size(), sizeof(Value) + sizeof(std::string));
    for (const std::string_view c : code_points(*text)) items.emplace_back(c);
  } else if (const Dict* dict = value.dict()) {
    runtime.spend(dict->items.size(), sizeof(Value));
    for (const auto& pair : dict->items) items.push_back(pair.first);
  } else if (!value.is_undefined()) {
    runtime.fail("'" + std::string(type_name(value)) + "' object is not iterable");
  }
  return std::make_shared<const Sequence>(Sequence{SequenceKind::list, value_depth(value), std::move(items)});
}

Value from_json(Runtime& runtime, const Json& json) {
  const std::string where = "chat template input";
  if (json.is_bool()) return Value(json.as_bool(where));
  if (json.is_integer()) return Value(json.as_int(where));
  if (json.is_number()) return Value(json.as_double(where));
  if (json.is_string()) return Value(json.as_string(where));
  if (json.is_array()) {
    std::vector<Value> items;
    for (const Json& item : json.as_array(where)) items.push_back(from_json(runtime, item));
    return runtime.sequence(std::move(items));
  }
  if (json.is_object()) {
    std::vector<std::pair<Value, Value>> items;
    for (const auto& [key, item] : json.as_object(where)) items.emplace_back(Value(key), from_json(runtime, item));
    return runtime.dict(std::move(items));
  }
  return Value(None{});
}

}  // namespace nibble::jinja
