// The filters of lists and dicts.
#include <algorithm>
#include <array>
#include <charconv>

#include "text/jinja_operators.h"
#include "text/jinja_strings.h"
#include "text/unicode.h"

namespace nibble::jinja {
namespace {

using Items = std::vector<Value>;

// The member of `object` that a dotted path names: "function.name", "0.id". An undefined path is the object itself.
Value member(Runtime& runtime, const Value& object, const Value& path) {
  if (path.is_undefined() || path.is_none()) return object;
  if (path.string() == nullptr) return item(runtime, object, path);
  Value found = object;
  for (const std::string_view part : split(*path.string(), ".", -1, Side::left)) {
    int64_t index = 0;
    const auto result = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool number = result.ec == std::errc() && result.ptr == part.data() + part.size() && index >= 0;
    found = item(runtime, found, number ? Value(index) : Value(part));
  }
  return found;
}

Value named(const Arguments& arguments, std::string_view name) {
  const auto is_wanted = [name](const auto& pair) { return pair.first == name; };
  const auto found = std::find_if(arguments.named.begin(), arguments.named.end(), is_wanted);
  return found == arguments.named.end() ? Value() : found->second;
}

// Text without its case, so that sorting ignores it.
Value folded(const Value& value, bool case_sensitive) {
  return case_sensitive || value.string() == nullptr ? value : Value(lowercase(*value.string()));
}

// What map and select go through: nothing for all that is false, none included.
std::shared_ptr<const Sequence> iterate_if_true(Runtime& runtime, const Value& value) {
  return iterate(runtime, is_true(value) ? value : Value());
}

Value generator(Runtime& runtime, Items items) { return runtime.sequence(std::move(items), SequenceKind::generator); }

Value length_filter(Runtime& runtime, const Value& self, const Arguments&) {
  if (const std::string* text = self.string()) return Value(code_point_count(*text));
  const Sequence* sequence = self.sequence();
  const bool counted = sequence == nullptr || sequence->kind != SequenceKind::generator;
  if (counted && (sequence != nullptr || self.dict() != nullptr || self.is_undefined())) {
    return Value(static_cast<int64_t>(iterate(runtime, self)->items.size()));
  }
  runtime.fail("object of type '" + std::string(type_name(self)) + "' has no length");
}

Value first_filter(Runtime& runtime, const Value& self, const Arguments&) {
  const auto items = iterate(runtime, self);
  return items->items.empty() ? Value::undefined("no first item, the sequence is empty") : items->items.front();
}

Value last_filter(Runtime& runtime, const Value& self, const Arguments&) {
  const auto items = iterate(runtime, self);
  if (items->kind == SequenceKind::generator) runtime.fail("'generator' object is not reversible");
  return items->items.empty() ? Value::undefined("no last item, the sequence is empty") : items->items.back();
}

Value list_filter(Runtime& runtime, const Value& self, const Arguments&) {
  return runtime.sequence(iterate(runtime, self)->items);
}

Value reverse_filter(Runtime& runtime, const Value& self, const Arguments&) {
  if (const std::string* text = self.string()) {
    std::string out;
    const auto points = code_points(*text);
    std::for_each(points.rbegin(), points.rend(), [&](std::string_view point) { out += point; });
    return Value(std::move(out));
  }
  Items items = iterate(runtime, self)->items;
  std::reverse(items.begin(), items.end());
  return generator(runtime, std::move(items));
}

Value items_filter(Runtime& runtime, const Value& self, const Arguments&) {
  if (self.is_undefined()) return generator(runtime, {});
  if (self.dict() == nullptr)
    runtime.fail("items filter needs a mapping, found '" + std::string(type_name(self)) + "'");
  return generator(runtime, call_builtin(runtime, *find_method(self, "items"), self, {}).sequence()->items);
}

Value join_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string separator = to_text(runtime, arguments[0]);
  if (arguments[1].is_undefined()) return join(runtime, separator, self, false);
  Items items;
  const auto source = iterate(runtime, self);
  for (const Value& value : source->items) items.push_back(member(runtime, value, arguments[1]));
  return join(runtime, separator, runtime.sequence(std::move(items)), false);
}

Value map_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  Items items;
  const auto source = iterate_if_true(runtime, self);
  if (arguments.positional.empty()) {
    const Value path = named(arguments, "attribute"), fallback = named(arguments, "default");
    if (path.is_undefined()) runtime.fail("map filter needs a filter's name or attribute=");
    for (const Value& value : source->items) {
      Value found = member(runtime, value, path);
      items.push_back(found.is_undefined() && !fallback.is_undefined() ? fallback : std::move(found));
    }
    return generator(runtime, std::move(items));
  }
  const std::string& name = text_argument(runtime, arguments[0], "map");
  const Builtin* filter = find_filter(name);
  if (filter == nullptr) runtime.fail(ErrorCode::unsupported, "filter '" + name + "' is not supported");
  const Arguments rest{{arguments.positional.begin() + 1, arguments.positional.end()}, arguments.named};
  for (const Value& value : source->items) items.push_back(call_builtin(runtime, *filter, value, rest));
  return generator(runtime, std::move(items));
}

enum class Subject { item, attribute };

// The items that pass (or fail) a test: `select`, or `selectattr`, whose first argument is the attribute tested.
template <Subject subject, bool wanted>
Value choose_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  constexpr size_t kTest = subject == Subject::attribute ? 1 : 0;
  if (arguments.positional.size() < kTest) runtime.fail("the name of the attribute is missing");
  const Builtin* test = nullptr;
  Arguments rest{{}, arguments.named};
  if (arguments.positional.size() > kTest) {
    const std::string& name = text_argument(runtime, arguments[kTest], "select");
    test = find_test(name);
    if (test == nullptr) runtime.fail(ErrorCode::unsupported, "test '" + name + "' is not supported");
    rest.positional.assign(arguments.positional.begin() + kTest + 1, arguments.positional.end());
  }
  Items items;
  const auto source = iterate_if_true(runtime, self);
  for (const Value& value : source->items) {
    runtime.step();
    const Value tested = subject == Subject::attribute ? member(runtime, value, arguments[0]) : value;
    const bool passes = is_true(test == nullptr ? tested : call_builtin(runtime, *test, tested, rest));
    if (passes == wanted) items.push_back(value);
  }
  return generator(runtime, std::move(items));
}

// The items by key, those with equal keys in their old order.
Value sorted(Runtime& runtime, const Items& items, const std::vector<Items>& keys, bool reverse) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto before = [&](size_t a, size_t b) {
    const Items &left = keys[reverse ? b : a], &right = keys[reverse ? a : b];
    for (size_t i = 0; i < left.size(); ++i) {
      if (!equal(runtime, left[i], right[i])) return less(runtime, left[i], right[i]);
    }
    return false;
  };
  std::stable_sort(order.begin(), order.end(), before);
  Items result;
  for (const size_t i : order) result.push_back(items[i]);
  return runtime.sequence(std::move(result));
}

Value sort_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto source = iterate(runtime, self);
  Items paths = {arguments[2]};
  if (const std::string* several = arguments[2].string()) {
    paths.clear();
    for (const std::string_view path : split(*several, ",", -1, Side::left)) paths.emplace_back(path);
  }
  std::vector<Items> keys;
  runtime.spend(source->items.size(), paths.size() * sizeof(Value) + sizeof(Items));
  for (const Value& value : source->items) {
    Items& key = keys.emplace_back();
    for (const Value& path : paths) key.push_back(folded(member(runtime, value, path), is_true(arguments[1])));
  }
  return sorted(runtime, source->items, keys, is_true(arguments[0]));
}

Value dictsort_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (self.dict() == nullptr) runtime.fail("dictsort needs a mapping, found '" + std::string(type_name(self)) + "'");
  const std::string by = arguments[1].is_undefined() ? "key" : text_argument(runtime, arguments[1], "dictsort");
  if (by != "key" && by != "value") runtime.fail("dictsort sorts by 'key' or 'value'");
  const Value pairs = call_builtin(runtime, *find_method(self, "items"), self, {});
  std::vector<Items> keys;
  for (const auto& [key, value] : self.dict()->items) {
    keys.push_back({folded(by == "key" ? key : value, is_true(arguments[0]))});
  }
  return sorted(runtime, pairs.sequence()->items, keys, is_true(arguments[2]));
}

Value unique_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  Items items, seen;
  const auto source = iterate(runtime, self);
  for (const Value& value : source->items) {
    const Value key = folded(member(runtime, value, arguments[1]), is_true(arguments[0]));
    const auto is_key = [&](const Value& other) { return equal(runtime, key, other); };
    if (std::any_of(seen.begin(), seen.end(), is_key)) continue;
    seen.push_back(key);
    items.push_back(value);
  }
  return generator(runtime, std::move(items));
}

enum class Extreme { least, greatest };

template <Extreme extreme>
Value extreme_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto source = iterate(runtime, self);
  if (source->items.empty()) return Value::undefined("no aggregated item, the sequence is empty");
  const auto key = [&](const Value& value) {
    return folded(member(runtime, value, arguments[1]), is_true(arguments[0]));
  };
  const Value* best = &source->items.front();
  for (const Value& value : source->items) {
    const Value ours = key(value), theirs = key(*best);
    if (extreme == Extreme::least ? less(runtime, ours, theirs) : less(runtime, theirs, ours)) best = &value;
  }
  return *best;
}

Value sum_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  Value total = arguments[1].is_undefined() ? Value(int64_t{0}) : arguments[1];
  const auto source = iterate(runtime, self);
  for (const Value& value : source->items) {
    total = binary(runtime, "+", total, member(runtime, value, arguments[0]));
  }
  return total;
}

Value batch_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const int64_t size = integer_argument(runtime, arguments[0], "batch");
  if (size < 1) runtime.fail("batch() needs a positive size");
  const auto source = iterate(runtime, self);
  Items batches, batch;
  for (const Value& value : source->items) {
    batch.push_back(value);
    if (static_cast<int64_t>(batch.size()) == size) batches.push_back(runtime.sequence(std::exchange(batch, {})));
  }
  if (batch.empty()) return generator(runtime, std::move(batches));
  if (!arguments[1].is_undefined() && !arguments[1].is_none()) {
    runtime.spend(static_cast<size_t>(size), sizeof(Value));
    batch.resize(static_cast<size_t>(size), arguments[1]);
  }
  batches.push_back(runtime.sequence(std::move(batch)));
  return generator(runtime, std::move(batches));
}

// Pairs of a value of the attribute and the items that have it; attribute() gives their parts names.
Value groupby_filter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto source = iterate(runtime, self);
  const auto value_of = [&](const Value& item) {
    Value found = member(runtime, item, arguments[0]);
    return found.is_undefined() && !arguments[1].is_undefined() ? arguments[1] : found;
  };
  const auto key_of = [&](const Value& item) { return folded(value_of(item), is_true(arguments[2])); };
  std::vector<Items> keys;
  for (const Value& item : source->items) keys.push_back({key_of(item)});
  const Value ordered = sorted(runtime, source->items, keys, false);
  const Items& items = ordered.sequence()->items;
  Items groups;
  for (size_t begin = 0, end = 0; begin < items.size(); begin = end) {
    Items group;
    const Value key = key_of(items[begin]);
    for (; end < items.size() && equal(runtime, key, key_of(items[end])); ++end) group.push_back(items[end]);
    if (group.empty()) runtime.fail("groupby: a value does not equal itself");  // NaN
    groups.push_back(runtime.sequence({value_of(group[0]), runtime.sequence(group)}, SequenceKind::tuple));
  }
  return runtime.sequence(std::move(groups));
}

constexpr std::array<Builtin, 21> kSequenceFilters = {{
    {"length", "", 0, length_filter},
    {"count", "", 0, length_filter},
    {"first", "", 0, first_filter},
    {"last", "", 0, last_filter},
    {"list", "", 0, list_filter},
    {"reverse", "", 0, reverse_filter},
    {"items", "", 0, items_filter},
    {"join", "d attribute", 0, join_filter},
    {"map", "*", 0, map_filter},
    {"select", "*", 0, choose_filter<Subject::item, true>},
    {"reject", "*", 0, choose_filter<Subject::item, false>},
    {"selectattr", "*", 1, choose_filter<Subject::attribute, true>},
    {"rejectattr", "*", 1, choose_filter<Subject::attribute, false>},
    {"sort", "reverse case_sensitive attribute", 0, sort_filter},
    {"dictsort", "case_sensitive by reverse", 0, dictsort_filter},
    {"unique", "case_sensitive attribute", 0, unique_filter},
    {"min", "case_sensitive attribute", 0, extreme_filter<Extreme::least>},
    {"max", "case_sensitive attribute", 0, extreme_filter<Extreme::greatest>},
    {"sum", "attribute start", 0, sum_filter},
    {"batch", "linecount fill_with", 1, batch_filter},
    {"groupby", "attribute default case_sensitive", 1, groupby_filter},
}};

}  // namespace

std::span<const Builtin> sequence_filters() { return kSequenceFilters; }

Value join(Runtime& runtime, std::string_view separator, const Value& items, bool only_strings) {
  std::string out;
  bool first = true;
  const auto source = iterate(runtime, items);
  for (const Value& value : source->items) {
    const std::string text = only_strings ? text_argument(runtime, value, "join") : to_text(runtime, value);
    runtime.spend(separator.size() + text.size() + 1);
    if (!first) out += separator;
    first = false;
    out += text;
  }
  return Value(std::move(out));
}

}  // namespace nibble::jinja
