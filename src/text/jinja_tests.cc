// The tests: what may stand behind `is`.
#include <array>

#include "text/jinja_operators.h"
#include "text/jinja_strings.h"

namespace nibble::jinja {
namespace {

template <bool (*holds)(const Value&)>
Value kind_test(Runtime&, const Value& self, const Arguments&) {
  return Value(holds(self));
}

bool is_defined(const Value& value) { return !value.is_undefined(); }
bool is_undefined(const Value& value) { return value.is_undefined(); }
bool is_none(const Value& value) { return value.is_none(); }
bool is_boolean(const Value& value) { return value.is_bool(); }
bool is_true_itself(const Value& value) { return value.is_bool() && is_true(value); }
bool is_false_itself(const Value& value) { return value.is_bool() && !is_true(value); }
bool is_integer(const Value& value) { return value.integer() && !value.is_bool(); }
bool is_float(const Value& value) { return value.is_float(); }
bool is_number(const Value& value) { return value.number().has_value(); }
bool is_string(const Value& value) { return value.string() != nullptr; }
bool is_mapping(const Value& value) { return value.dict() != nullptr; }
// jinja2's undefined object has methods for being called, looped over and indexed, though all but the loop fail.
bool is_callable(const Value& value) { return value.is_undefined() || value.callable() != nullptr; }

bool is_iterable(const Value& value) {
  return value.is_undefined() || is_string(value) || is_mapping(value) || value.sequence() != nullptr;
}

bool is_sequence(const Value& value) {
  const Sequence* sequence = value.sequence();
  return value.is_undefined() || is_string(value) || is_mapping(value) ||
         (sequence != nullptr && sequence->kind <= SequenceKind::tuple);
}

Value upper_test(Runtime& runtime, const Value& self, const Arguments&) {
  return Value(is_upper(to_text(runtime, self)));
}
Value lower_test(Runtime& runtime, const Value& self, const Arguments&) {
  return Value(is_lower(to_text(runtime, self)));
}

Value remainder_is(Runtime& runtime, const Value& self, int64_t divisor, int64_t wanted) {
  return Value(equal(runtime, binary(runtime, "%", self, Value(divisor)), Value(wanted)));
}
Value odd_test(Runtime& runtime, const Value& self, const Arguments&) { return remainder_is(runtime, self, 2, 1); }
Value even_test(Runtime& runtime, const Value& self, const Arguments&) { return remainder_is(runtime, self, 2, 0); }
Value divisible_test(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return remainder_is(runtime, self, integer_argument(runtime, arguments[0], "divisibleby"), 0);
}

Value equal_test(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return Value(equal(runtime, self, arguments[0]));
}
Value unequal_test(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return Value(!equal(runtime, self, arguments[0]));
}
Value same_test(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return Value(self.data.index() == arguments[0].data.index() && equal(runtime, self, arguments[0]));
}
Value in_test(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return Value(contains(runtime, arguments[0], self));
}
Value less_test(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return Value(compare(runtime, "<", self, arguments[0]));
}
Value less_equal_test(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return Value(compare(runtime, "<=", self, arguments[0]));
}
Value greater_test(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return Value(compare(runtime, ">", self, arguments[0]));
}
Value greater_equal_test(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return Value(compare(runtime, ">=", self, arguments[0]));
}

constexpr std::array<Builtin, 36> kTests = {{
    {"defined", "", 0, kind_test<is_defined>},
    {"undefined", "", 0, kind_test<is_undefined>},
    {"none", "", 0, kind_test<is_none>},
    {"boolean", "", 0, kind_test<is_boolean>},
    {"true", "", 0, kind_test<is_true_itself>},
    {"false", "", 0, kind_test<is_false_itself>},
    {"integer", "", 0, kind_test<is_integer>},
    {"float", "", 0, kind_test<is_float>},
    {"number", "", 0, kind_test<is_number>},
    {"string", "", 0, kind_test<is_string>},
    {"mapping", "", 0, kind_test<is_mapping>},
    {"sequence", "", 0, kind_test<is_sequence>},
    {"iterable", "", 0, kind_test<is_iterable>},
    {"callable", "", 0, kind_test<is_callable>},
    {"upper", "", 0, upper_test},
    {"lower", "", 0, lower_test},
    {"odd", "", 0, odd_test},
    {"even", "", 0, even_test},
    {"divisibleby", "num", 1, divisible_test},
    {"in", "seq", 1, in_test},
    {"equalto", "other", 1, equal_test},
    {"eq", "other", 1, equal_test},
    {"==", "other", 1, equal_test},
    {"ne", "other", 1, unequal_test},
    {"!=", "other", 1, unequal_test},
    {"lt", "other", 1, less_test},
    {"<", "other", 1, less_test},
    {"lessthan", "other", 1, less_test},
    {"le", "other", 1, less_equal_test},
    {"<=", "other", 1, less_equal_test},
    {"gt", "other", 1, greater_test},
    {">", "other", 1, greater_test},
    {"greaterthan", "other", 1, greater_test},
    {"ge", "other", 1, greater_equal_test},
    {">=", "other", 1, greater_equal_test},
    {"sameas", "other", 1, same_test},
}};

}  // namespace

std::span<const Builtin> tests() { return kTests; }

}  // namespace nibble::jinja
