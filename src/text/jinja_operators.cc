#include "text/jinja_operators.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "text/jinja_strings.h"
#include "text/unicode.h"

namespace nibble::jinja {
namespace {

struct Operands {
  Runtime& runtime;
  const Value& left;
  const Value& right;
};

[[noreturn]] void unsupported_types(const Operands& at, std::string_view op) {
  for (const Value* side : {&at.left, &at.right}) {
    if (const auto* undefined = std::get_if<Undefined>(&side->data)) {
      at.runtime.fail(undefined->reason == nullptr ? "the value is undefined" : *undefined->reason);
    }
  }
  at.runtime.fail("unsupported operand types for " + std::string(op) + ": '" + std::string(type_name(at.left)) +
                  "' and '" + std::string(type_name(at.right)) + "'");
}

[[noreturn]] void overflow(Runtime& runtime) { runtime.fail("integer overflow (integers have 64 bits here)"); }

Value concatenated(Runtime& runtime, const Sequence& left, const Sequence& right) {
  runtime.spend(left.items.size() + right.items.size(), sizeof(Value));
  std::vector<Value> items = left.items;
  items.insert(items.end(), right.items.begin(), right.items.end());
  return runtime.sequence(std::move(items), left.kind);
}

// A sum with markup is markup: its other half is escaped.
Value added(Runtime& runtime, const Value& left, const Value& right) {
  const bool markup = left.markup || right.markup;
  const auto half = [markup](const Value& value) {
    return markup && !value.markup ? escape(*value.string()) : *value.string();
  };
  runtime.spend(left.string()->size() + right.string()->size());
  Value sum(half(left) + half(right));
  sum.markup = markup;
  return sum;
}

Value add(const Operands& at, int64_t a, int64_t b) {
  int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) overflow(at.runtime);
  return Value(sum);
}

Value subtract(const Operands& at, int64_t a, int64_t b) {
  int64_t difference = 0;
  if (__builtin_sub_overflow(a, b, &difference)) overflow(at.runtime);
  return Value(difference);
}

Value multiply(const Operands& at, int64_t a, int64_t b) {
  int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) overflow(at.runtime);
  return Value(product);
}

// Quotients round down and remainders have the divisor's sign, unlike those of C.
Value floor_divide(const Operands& at, int64_t a, int64_t b) {
  if (b == 0) at.runtime.fail("division by zero");
  if (b == -1) return subtract(at, 0, a);
  return Value(a / b - (a % b != 0 && (a % b < 0) != (b < 0) ? 1 : 0));
}

Value modulo(const Operands& at, int64_t a, int64_t b) {
  if (b == 0) at.runtime.fail("division by zero");
  if (b == -1) return Value(int64_t{0});
  const int64_t rest = a % b;
  return Value(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
}

Value power(const Operands& at, int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) at.runtime.fail("0 cannot be raised to a negative power");
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) overflow(at.runtime);
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) overflow(at.runtime);
  }
  return Value(result);
}

Value divide(const Operands& at, int64_t a, int64_t b) {
  if (b == 0) at.runtime.fail("division by zero");
  return Value(static_cast<double>(a) / static_cast<double>(b));
}

double divided(double a, double b) { return a / b; }
double floor_divided(double a, double b) { return std::floor(a / b); }
double plus(double a, double b) { return a + b; }
double minus(double a, double b) { return a - b; }
double times(double a, double b) { return a * b; }
double raised(double a, double b) { return std::pow(a, b); }

double remainder_of(double a, double b) {
  const double rest = std::fmod(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

struct Arithmetic {
  std::string_view op;
  Value (*integers)(const Operands&, int64_t, int64_t);
  double (*floats)(double, double);
  bool divides;
};

constexpr std::array<Arithmetic, 7> kArithmetic = {{{"+", add, plus, false},
                                                    {"-", subtract, minus, false},
                                                    {"*", multiply, times, false},
                                                    {"/", divide, divided, true},
                                                    {"//", floor_divide, floor_divided, true},
                                                    {"%", modulo, remainder_of, true},
                                                    {"**", power, raised, false}}};

std::optional<Value> number_operation(const Operands& at, std::string_view op) {
  const auto row = std::find_if(kArithmetic.begin(), kArithmetic.end(), [op](const auto& r) { return r.op == op; });
  const auto whole_left = at.left.integer(), whole_right = at.right.integer();
  if (whole_left && whole_right) return row->integers(at, *whole_left, *whole_right);
  const auto left = at.left.number(), right = at.right.number();
  if (!left || !right) return std::nullopt;
  if (row->divides && *right == 0) at.runtime.fail("division by zero");
  return Value(row->floats(*left, *right));
}

Value repeated(Runtime& runtime, const Value& value, int64_t times_wanted) {
  if (const std::string* text = value.string()) return Value(repeat(runtime, *text, times_wanted));
  const Sequence& sequence = *value.sequence();
  const auto times_made = static_cast<size_t>(std::max<int64_t>(times_wanted, 0));
  runtime.spend(times_made, sequence.items.size() * sizeof(Value));
  std::vector<Value> items;
  if (sequence.items.empty()) return runtime.sequence({}, sequence.kind);
  for (size_t i = 0; i < times_made; ++i) items.insert(items.end(), sequence.items.begin(), sequence.items.end());
  return runtime.sequence(std::move(items), sequence.kind);
}

bool is_list_or_tuple(const Value& value) {
  const Sequence* sequence = value.sequence();
  return sequence != nullptr && (sequence->kind == SequenceKind::list || sequence->kind == SequenceKind::tuple);
}

Value bound_method(const Value& object, const Builtin* method) {
  return Value(std::make_shared<const Callable>(Callable{method, object, nullptr, nullptr}));
}

Value missing(const Value& object, const std::string& what) {
  return Value::undefined("'" + object_name(object) + "' has no " + what);
}

const Value* find_attribute(const Namespace& space, std::string_view name) {
  for (const auto& [key, value] : space.attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

// The names of groupby's pairs. Any other pair has them too.
const Value* part_of_group(const Value& object, std::string_view name) {
  const Sequence* pair = object.sequence();
  if (pair == nullptr || pair->kind != SequenceKind::tuple || pair->items.size() != 2) return nullptr;
  return name == "grouper" ? &pair->items[0] : name == "list" ? &pair->items[1] : nullptr;
}

void require_defined(Runtime& runtime, const Value& object) {
  const auto* undefined = std::get_if<Undefined>(&object.data);
  if (undefined == nullptr) return;
  runtime.fail(undefined->reason == nullptr ? "the value is undefined" : *undefined->reason);
}

Value indexed(Runtime& runtime, const Value& object, int64_t index) {
  const std::string* text = object.string();
  if (text != nullptr) runtime.spend(text->size());
  const int64_t size =
      text != nullptr ? code_point_count(*text) : static_cast<int64_t>(object.sequence()->items.size());
  const int64_t position = index < 0 ? index + size : index;
  if (position < 0 || position >= size) return missing(object, "element " + std::to_string(index));
  if (text == nullptr) return object.sequence()->items[static_cast<size_t>(position)];
  size_t byte = 0;
  for (int64_t i = 0; i < position; ++i) next_char(*text, byte);
  const size_t start = byte;
  next_char(*text, byte);
  return Value(std::string_view(*text).substr(start, byte - start));
}

int64_t slice_bound(Runtime& runtime, const Value& bound, int64_t fallback, int64_t size, int64_t step) {
  if (bound.is_none()) return fallback;
  int64_t position = integer_argument(runtime, bound, "slice");
  if (position < 0) position = std::max<int64_t>(position, -size - 1) + size;
  return step > 0 ? std::clamp<int64_t>(position, 0, size) : std::clamp<int64_t>(position, -1, size - 1);
}

struct Range {
  int64_t start, stop, step;
};

template <class Visit>
void visit(const Range& range, Visit&& visit_position) {
  for (int64_t i = range.start; range.step > 0 ? i < range.stop : i > range.stop;) {
    visit_position(static_cast<size_t>(i));
    if (__builtin_add_overflow(i, range.step, &i)) return;
  }
}

std::string text_slice(Runtime& runtime, std::string_view text, const Range& range) {
  std::string out;
  if (range.step == 1) {
    size_t begin = 0;
    for (int64_t i = 0; i < range.start; ++i) next_char(text, begin);
    size_t end = begin;
    for (int64_t i = range.start; i < range.stop; ++i) next_char(text, end);
    return out.append(text.substr(begin, end - begin));
  }
  runtime.spend(text.size(), sizeof(std::string_view));
  const std::vector<std::string_view> points = code_points(text);
  visit(range, [&](size_t i) { out.append(points[i]); });
  return out;
}

}  // namespace

Value binary(Runtime& runtime, std::string_view op, const Value& left, const Value& right) {
  const Operands at{runtime, left, right};
  if (op == "%" && left.string() != nullptr) return Value(percent_format(runtime, *left.string(), right));
  if (op == "+" && left.string() != nullptr && right.string() != nullptr) {
    return added(runtime, left, right);
  }
  if (op == "+" && is_list_or_tuple(left) && type_name(left) == type_name(right)) {
    return concatenated(runtime, *left.sequence(), *right.sequence());
  }
  const auto repeatable = [](const Value& value) { return value.string() != nullptr || is_list_or_tuple(value); };
  if (op == "*" && repeatable(left) && right.integer()) return repeated(runtime, left, *right.integer());
  if (op == "*" && repeatable(right) && left.integer()) return repeated(runtime, right, *left.integer());
  if (auto result = number_operation(at, op)) return *result;
  unsupported_types(at, op);
}

Value negative(Runtime& runtime, const Value& value) {
  if (const auto number = value.integer()) return subtract({runtime, value, value}, 0, *number);
  if (value.is_float()) return Value(-*value.number());
  unsupported_types({runtime, value, value}, "-");
}

Value positive(Runtime& runtime, const Value& value) {
  if (const auto number = value.integer()) return Value(*number);
  if (value.is_float()) return value;
  unsupported_types({runtime, value, value}, "+");
}

bool compare(Runtime& runtime, std::string_view op, const Value& left, const Value& right) {
  if (op == "in") return contains(runtime, right, left);
  if (op == "not in") return !contains(runtime, right, left);
  if (op == "==") return equal(runtime, left, right);
  if (op == "!=") return !equal(runtime, left, right);
  if (left.is_undefined() || right.is_undefined()) unsupported_types({runtime, left, right}, op);
  if (op == "<") return less(runtime, left, right);
  if (op == ">") return less(runtime, right, left);
  if (op == "<=") return less(runtime, left, right) || equal(runtime, left, right);
  return less(runtime, right, left) || equal(runtime, left, right);
}

bool contains(Runtime& runtime, const Value& container, const Value& wanted) {
  if (const std::string* text = container.string()) {
    if (wanted.string() == nullptr) {
      runtime.fail("'in <string>' requires string as left operand, not " + std::string(type_name(wanted)));
    }
    runtime.spend(text->size());
    return find_text(*text, *wanted.string()) != std::string_view::npos;
  }
  const auto items = iterate(runtime, container);
  const auto is_wanted = [&](const Value& candidate) { return equal(runtime, candidate, wanted); };
  return std::any_of(items->items.begin(), items->items.end(), is_wanted);
}

Value attribute(Runtime& runtime, const Value& object, std::string_view name) {
  require_defined(runtime, object);
  if (const Builtin* method = find_method(object, name)) return bound_method(object, method);
  if (const Value* part = part_of_group(object, name)) return *part;
  const Dict* dict = object.dict();
  if (dict != nullptr) runtime.spend(dict->items.size());
  const Namespace* space = object.name_space();
  const Value* found = dict != nullptr ? dict->find(name) : space != nullptr ? find_attribute(*space, name) : nullptr;
  return found != nullptr ? *found : missing(object, "attribute '" + std::string(name) + "'");
}

Value item(Runtime& runtime, const Value& object, const Value& key) {
  require_defined(runtime, object);
  if (const Dict* dict = object.dict()) {
    runtime.spend(dict->items.size());
    for (const auto& [name, value] : dict->items) {
      if (equal(runtime, name, key)) return value;
    }
  }
  const bool has_items = object.string() != nullptr || is_list_or_tuple(object);
  if (has_items && key.integer()) return indexed(runtime, object, *key.integer());
  if (key.string() != nullptr && object.dict() == nullptr) return attribute(runtime, object, *key.string());
  const Builtin* method = key.string() != nullptr ? find_method(object, *key.string()) : nullptr;
  if (method != nullptr) return bound_method(object, method);
  return missing(object, "element " + repr(runtime, key));
}

Value slice(Runtime& runtime, const Value& object, const Value (&bounds)[3]) {
  require_defined(runtime, object);
  const std::string* text = object.string();
  if (text == nullptr && !is_list_or_tuple(object)) return missing(object, "slices");
  const int64_t step = bounds[2].is_none() ? 1 : integer_argument(runtime, bounds[2], "slice");
  if (step == 0) runtime.fail("slice step cannot be zero");
  if (text != nullptr) runtime.spend(text->size());
  const auto size = text != nullptr ? code_point_count(*text) : static_cast<int64_t>(object.sequence()->items.size());
  const int64_t start = slice_bound(runtime, bounds[0], step > 0 ? 0 : size - 1, size, step);
  const int64_t stop = slice_bound(runtime, bounds[1], step > 0 ? size : -1, size, step);
  if (text != nullptr) return Value(text_slice(runtime, *text, {start, stop, step}));
  std::vector<Value> items;
  visit({start, stop, step}, [&](size_t i) { items.push_back(object.sequence()->items[i]); });
  return runtime.sequence(std::move(items), object.sequence()->kind);
}

}  // namespace nibble::jinja
