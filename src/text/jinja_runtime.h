#pragma once
// What one rendering may use up, and how it reports what goes wrong. Templates come with downloaded models, so nothing
// they say is trusted: every node evaluated is a step, and so are every 64 bytes of values made or searched.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "text/jinja_value.h"

namespace nibble::jinja {

inline constexpr size_t kMaxSourceBytes = 1'000'000;
inline constexpr int kMaxSourceDepth = 128;  // of blocks and expressions in the source
inline constexpr int kMaxValueDepth = 100;   // of lists in lists
inline constexpr int kMaxMacroDepth = 64;
inline constexpr int kMaxEvaluationDepth = 1000;  // nodes under evaluation at once, macros included
inline constexpr int64_t kMaxSteps = 5'000'000;
inline constexpr int64_t kBytesPerStep = 64;  // so a rendering makes at most 320 MB of values
inline constexpr size_t kMaxOutputBytes = 16u << 20;

class Runtime {
 public:
  explicit Runtime(std::string where) : where_(std::move(where)) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  int line = 1;  // of the node under evaluation

  /// Counts work on `bytes` bytes; to be called before they are allocated. @throws Error{resources} past the limit.
  void spend(size_t bytes);
  /// As spend, for count elements of `bytes` bytes each.
  void spend(size_t count, size_t bytes);
  void step() { spend(kBytesPerStep); }

  /// Throws Error{format} "WHERE: line N: what".
  [[noreturn]] void fail(const std::string& what) const { fail(ErrorCode::format, what); }
  [[noreturn]] void fail(ErrorCode code, const std::string& what) const;

  Value sequence(std::vector<Value> items, SequenceKind kind = SequenceKind::list);
  Value dict(std::vector<std::pair<Value, Value>> items);  // keys must be distinct
  Namespace* new_namespace();

 private:
  int checked_depth(int depth_of_items) const;

  std::string where_;
  uint64_t spent_bytes_ = 0;
  std::vector<std::unique_ptr<Namespace>> namespaces_;
};

/// Replaces or appends a pair.
void insert(Runtime& runtime, std::vector<std::pair<Value, Value>>& items, Value key, Value value);

}  // namespace nibble::jinja
