#include "text/jinja_builtins.h"

#include <algorithm>
#include <array>
#include <ctime>

#include "text/jinja_operators.h"
#include "text/jinja_strings.h"

namespace nibble::jinja {
namespace {

Value range(Runtime& runtime, const Value&, const Arguments& arguments) {
  const int64_t first = integer_argument(runtime, arguments[0], "range");
  const bool one = arguments[1].is_undefined();
  const int64_t start = one ? 0 : first;
  const int64_t stop = one ? first : integer_argument(runtime, arguments[1], "range");
  const int64_t step = integer_or(runtime, arguments[2], 1, "range");
  if (step == 0) runtime.fail("range() step must not be zero");
  constexpr int64_t kMaxRange = 100'000;  // as jinja2's sandbox
  const auto distance = step > 0 ? static_cast<double>(stop) - static_cast<double>(start)
                                 : static_cast<double>(start) - static_cast<double>(stop);
  if (distance > static_cast<double>(kMaxRange) * std::abs(static_cast<double>(step))) {
    runtime.fail(ErrorCode::resources, "range() of more than " + std::to_string(kMaxRange) + " numbers");
  }
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return runtime.sequence(std::move(items));
}

// The pairs of a dict, or of a sequence of pairs, followed by named arguments.
std::vector<std::pair<Value, Value>> pairs(Runtime& runtime, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  if (arguments.positional.size() > 1) runtime.fail("dict() and namespace() take at most one positional argument");
  const Dict* dict = arguments[0].dict();
  if (dict != nullptr) items = dict->items;
  if (dict == nullptr && !arguments.positional.empty()) {
    const auto source = iterate(runtime, arguments[0]);
    for (const Value& pair : source->items) {
      const auto parts = iterate(runtime, pair);
      if (parts->items.size() != 2) runtime.fail("dict() needs pairs");
      insert(runtime, items, parts->items[0], parts->items[1]);
    }
  }
  for (const auto& [name, value] : arguments.named) insert(runtime, items, Value(name), value);
  return items;
}

Value make_dict(Runtime& runtime, const Value&, const Arguments& arguments) {
  return runtime.dict(pairs(runtime, arguments));
}

Value make_namespace(Runtime& runtime, const Value&, const Arguments& arguments) {
  Namespace* space = runtime.new_namespace();
  runtime.spend(sizeof(Namespace));
  for (const auto& [key, value] : pairs(runtime, arguments)) {
    space->attributes.emplace_back(text_argument(runtime, key, "namespace"), value);
  }
  return Value(space);
}

Value raise_exception(Runtime& runtime, const Value&, const Arguments& arguments) {
  runtime.fail(ErrorCode::invalid_argument, "the template refuses the input: " + to_text(runtime, arguments[0]));
}

Value strftime_now(Runtime& runtime, const Value&, const Arguments& arguments) {
  const std::string& format = text_argument(runtime, arguments[0], "strftime_now");
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 1024> buffer;
  const size_t length = std::strftime(buffer.data(), buffer.size(), format.c_str(), &local);
  if (length == 0 && !format.empty()) runtime.fail("strftime_now() gives nothing, or more than 1000 bytes");
  return Value(std::string_view(buffer.data(), length));
}

// cycler() and joiner() remember what they gave last: in attributes of a namespace that templates cannot assign to.
Value& remembered(const Value& self, size_t i) { return self.name_space()->attributes[i].second; }

Value cycler_move(const Value& self, int64_t position) {
  const Sequence& items = *remembered(self, 0).sequence();
  const auto place = static_cast<size_t>(position) % items.items.size();
  remembered(self, 1) = Value(static_cast<int64_t>(place));
  remembered(self, 2) = items.items[place];
  return items.items[place];
}

Value cycler_next(Runtime&, const Value& self, const Arguments&) {
  Value current = remembered(self, 2);
  cycler_move(self, *remembered(self, 1).integer() + 1);
  return current;
}

Value cycler_reset(Runtime&, const Value& self, const Arguments&) {
  cycler_move(self, 0);
  return Value(None{});
}

Value joiner_call(Runtime&, const Value& self, const Arguments&) {
  return std::exchange(remembered(self, 1), remembered(self, 0));
}

Value bound(const Builtin& builtin, Namespace* space) {
  return Value(std::make_shared<const Callable>(Callable{&builtin, Value(space), nullptr, nullptr}));
}

Value make_cycler(Runtime& runtime, const Value&, const Arguments& arguments) {
  static constexpr Builtin kNext = {"next", "", 0, cycler_next}, kReset = {"reset", "", 0, cycler_reset};
  if (arguments.positional.empty() || !arguments.named.empty()) runtime.fail("cycler() needs items");
  Namespace* space = runtime.new_namespace();
  runtime.spend(sizeof(Namespace));
  space->attributes = {{"_items", runtime.sequence(arguments.positional)},
                       {"_position", Value(int64_t{0})},
                       {"current", arguments.positional[0]},
                       {"next", bound(kNext, space)},
                       {"reset", bound(kReset, space)}};
  return Value(space);
}

Value make_joiner(Runtime& runtime, const Value&, const Arguments& arguments) {
  static constexpr Builtin kJoin = {"joiner", "", 0, joiner_call};
  Namespace* space = runtime.new_namespace();
  runtime.spend(sizeof(Namespace));
  const Value separator = arguments[0].is_undefined() ? Value(std::string_view(", ")) : arguments[0];
  space->attributes = {{"_separator", separator}, {"_next", Value(std::string_view())}};
  return bound(kJoin, space);
}

constexpr std::array<Builtin, 7> kGlobals = {{{"range", "start stop step", 1, range},
                                              {"dict", "*", 0, make_dict},
                                              {"namespace", "*", 0, make_namespace},
                                              {"raise_exception", "message", 1, raise_exception},
                                              {"strftime_now", "format", 1, strftime_now},
                                              {"cycler", "*", 0, make_cycler},
                                              {"joiner", "sep", 0, make_joiner}}};

Value dict_get(Runtime& runtime, const Value& self, const Arguments& arguments) {
  for (const auto& [key, value] : self.dict()->items) {
    if (equal(runtime, key, arguments[0])) return value;
  }
  return arguments[1].is_undefined() ? Value(None{}) : arguments[1];
}

Value dict_items(Runtime& runtime, const Value& self, const Arguments&) {
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict()->items) {
    items.push_back(runtime.sequence({key, value}, SequenceKind::tuple));
  }
  return runtime.sequence(std::move(items), SequenceKind::view);
}

Value dict_keys(Runtime& runtime, const Value& self, const Arguments&) {
  return runtime.sequence(iterate(runtime, self)->items, SequenceKind::view);
}

Value dict_values(Runtime& runtime, const Value& self, const Arguments&) {
  std::vector<Value> items;
  for (const auto& pair : self.dict()->items) items.push_back(pair.second);
  return runtime.sequence(std::move(items), SequenceKind::view);
}

Value dict_copy(Runtime&, const Value& self, const Arguments&) { return self; }

// What would change a dict or list; jinja2's immutable sandbox refuses it in these words.
Value unsafe_change(Runtime& runtime, const Value& self, const Arguments&) {
  runtime.fail("changing a '" + object_name(self) + "' is unsafe; lists and dicts cannot be changed in templates");
}

constexpr std::array<Builtin, 10> kDictMethods = {{{"get", "key default", 1, dict_get},
                                                   {"items", "", 0, dict_items},
                                                   {"keys", "", 0, dict_keys},
                                                   {"values", "", 0, dict_values},
                                                   {"copy", "", 0, dict_copy},
                                                   {"clear", "*", 0, unsafe_change},
                                                   {"pop", "*", 0, unsafe_change},
                                                   {"popitem", "*", 0, unsafe_change},
                                                   {"setdefault", "*", 0, unsafe_change},
                                                   {"update", "*", 0, unsafe_change}}};

Value list_index(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::vector<Value>& items = self.sequence()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (equal(runtime, items[i], arguments[0])) return Value(static_cast<int64_t>(i));
  }
  runtime.fail(repr(runtime, arguments[0]) + " is not in the list");
}

Value list_count(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::vector<Value>& items = self.sequence()->items;
  const auto is_wanted = [&](const Value& value) { return equal(runtime, value, arguments[0]); };
  return Value(int64_t{std::count_if(items.begin(), items.end(), is_wanted)});
}

constexpr std::array<Builtin, 9> kListMethods = {{{"index", "value", 1, list_index},
                                                  {"count", "value", 1, list_count},
                                                  {"append", "*", 0, unsafe_change},
                                                  {"clear", "*", 0, unsafe_change},
                                                  {"extend", "*", 0, unsafe_change},
                                                  {"insert", "*", 0, unsafe_change},
                                                  {"pop", "*", 0, unsafe_change},
                                                  {"remove", "*", 0, unsafe_change},
                                                  {"reverse", "*", 0, unsafe_change}}};

const Builtin* find_in(std::span<const Builtin> table, std::string_view name) {
  const auto row = std::find_if(table.begin(), table.end(), [name](const Builtin& b) { return b.name == name; });
  return row == table.end() ? nullptr : &*row;
}

std::string label(const Builtin& builtin) { return std::string(builtin.name) + "()"; }

}  // namespace

const Value& Arguments::operator[](size_t i) const {
  static const Value kNotGiven;
  return i < positional.size() ? positional[i] : kNotGiven;
}

const Builtin* find_filter(std::string_view name) {
  const Builtin* filter = find_in(filters(), name);
  return filter != nullptr ? filter : find_in(sequence_filters(), name);
}
const Builtin* find_test(std::string_view name) { return find_in(tests(), name); }
const Builtin* find_global(std::string_view name) { return find_in(kGlobals, name); }

const Builtin* find_method(const Value& object, std::string_view name) {
  if (object.string() != nullptr) return find_in(string_methods(), name);
  if (object.dict() != nullptr) return find_in(kDictMethods, name);
  const Sequence* sequence = object.sequence();
  if (sequence == nullptr) return nullptr;
  const bool list = sequence->kind == SequenceKind::list, tuple = sequence->kind == SequenceKind::tuple;
  return list || tuple ? find_in(std::span(kListMethods).first(list ? kListMethods.size() : 2), name) : nullptr;
}

Value call_builtin(Runtime& runtime, const Builtin& builtin, const Value& self, Arguments arguments) {
  runtime.spend(shallow_bytes(self));
  if (builtin.parameters != "*") {
    const auto names = split(builtin.parameters, std::nullopt, -1, Side::left);
    size_t given = arguments.positional.size();
    if (given > names.size()) runtime.fail(label(builtin) + " has too many arguments");
    arguments.positional.resize(names.size());
    for (auto& [name, value] : arguments.named) {
      const auto place = std::find(names.begin() + static_cast<std::ptrdiff_t>(given), names.end(), name);
      if (place == names.end()) runtime.fail(label(builtin) + " has no argument '" + name + "'");
      const auto index = static_cast<size_t>(place - names.begin());
      arguments.positional[index] = std::move(value);
      if (index == given) ++given;
    }
    if (given < builtin.required) runtime.fail(label(builtin) + " has too few arguments");
  }
  Value result = builtin.call(runtime, self, arguments);
  if (result.string() != nullptr) runtime.spend(result.string()->size());
  return result;
}

const std::string& text_argument(Runtime& runtime, const Value& value, std::string_view function) {
  if (value.string() != nullptr) return *value.string();
  runtime.fail(std::string(function) + "() needs a string, found '" + std::string(type_name(value)) + "'");
}

int64_t integer_argument(Runtime& runtime, const Value& value, std::string_view function) {
  if (const auto number = value.integer()) return *number;
  runtime.fail(std::string(function) + "() needs an integer, found '" + std::string(type_name(value)) + "'");
}

int64_t integer_or(Runtime& runtime, const Value& value, int64_t fallback, std::string_view function) {
  return value.is_undefined() || value.is_none() ? fallback : integer_argument(runtime, value, function);
}

std::string repeat(Runtime& runtime, std::string_view text, int64_t count) {
  const auto times = static_cast<size_t>(std::max<int64_t>(count, 0));
  runtime.spend(times, text.size());
  std::string out;
  if (text.empty()) return out;
  out.reserve(times * text.size());
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

}  // namespace nibble::jinja
