#pragma once
// Token texts and their ids, both ways. Ids may have gaps.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.h"

namespace nibble {

class Vocabulary {
 public:
  /// When two entries have the same text, or the same id, the later one counts.
  /// @throws Error{format} for an id outside [0, limits::kMaxVocabulary).
  Vocabulary(std::vector<std::pair<std::string, int64_t>> entries, const std::string& where);

  /// From {"token": id, ...}.
  static std::vector<std::pair<std::string, int64_t>> entries_of(const Json& vocab, const std::string& where);

  std::optional<int32_t> id(std::string_view token) const;
  /// Null for an id that no token has.
  const std::string* token(int32_t id) const;
  /// All ids are below.
  int32_t end_id() const { return static_cast<int32_t>(entry_of_id_.size()); }

 private:
  // A hash table with linear probing: loading a large tokenizer is mostly looking up tokens.
  struct Slot {
    uint32_t hash = 0;
    int32_t entry = -1;  // -1: empty
  };
  size_t slot_of(std::string_view token, uint32_t hash) const;

  std::vector<std::pair<std::string, int64_t>> entries_;
  std::vector<Slot> slots_;           // a power of two, at most half full
  std::vector<int32_t> entry_of_id_;  // -1: none
};

}  // namespace nibble
