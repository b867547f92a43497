#include "text/jinja_runtime.h"

#include <algorithm>

namespace nibble::jinja {

void Runtime::spend(size_t bytes) {
  constexpr auto kLimit = static_cast<uint64_t>(kMaxSteps * kBytesPerStep);
  if (bytes > kLimit - spent_bytes_) {
    fail(ErrorCode::resources, "the template needs more than " + std::to_string(kMaxSteps) +
                                   " steps. It may loop without end or build very large values");
  }
  spent_bytes_ += bytes;
}

void Runtime::spend(size_t count, size_t bytes) {
  size_t product = 0;
  spend(__builtin_mul_overflow(count, bytes, &product) ? SIZE_MAX : product);
}

void Runtime::fail(ErrorCode code, const std::string& what) const {
  nibble::fail(code, where_ + ": line " + std::to_string(line) + ": " + what);
}

int Runtime::checked_depth(int depth_of_items) const {
  if (depth_of_items >= kMaxValueDepth) {
    fail(ErrorCode::resources, "values nest deeper than " + std::to_string(kMaxValueDepth) + " levels");
  }
  return depth_of_items + 1;
}

Value Runtime::sequence(std::vector<Value> items, SequenceKind kind) {
  spend(items.size(), sizeof(Value));
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, value_depth(item));
  return Value(std::make_shared<const Sequence>(Sequence{kind, checked_depth(depth), std::move(items)}));
}

Value Runtime::dict(std::vector<std::pair<Value, Value>> items) {
  spend(items.size(), 2 * sizeof(Value));
  int depth = 0;
  for (const auto& [key, value] : items) depth = std::max({depth, value_depth(key), value_depth(value)});
  return Value(std::make_shared<const Dict>(Dict{checked_depth(depth), std::move(items)}));
}

Namespace* Runtime::new_namespace() { return namespaces_.emplace_back(std::make_unique<Namespace>()).get(); }

void insert(Runtime& runtime, std::vector<std::pair<Value, Value>>& items, Value key, Value value) {
  runtime.spend(items.size());
  for (auto& [known, old] : items) {
    if (!equal(runtime, known, key)) continue;
    old = std::move(value);
    return;
  }
  items.emplace_back(std::move(key), std::move(value));
}

}  // namespace nibble::jinja
