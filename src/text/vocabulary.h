#pragma once
// Token texts and their ids, both ways. Ids may have gaps.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/hash_index.h"
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
  /// The same, and faster where the guess is right; -1: no guess.
  std::optional<int32_t> id(std::string_view token, int32_t guess) const;
  /// Null for an id that no token has.
  const std::string* token(int32_t id) const;
  /// All ids are below.
  int32_t end_id() const { return static_cast<int32_t>(entry_of_id_.size()); }

 private:
  auto has_text(std::string_view token) const {
    return [this, token](int32_t entry) { return entries_[static_cast<size_t>(entry)].first == token; };
  }

  std::vector<std::pair<std::string, int64_t>> entries_;
  HashIndex index_;
  std::vector<int32_t> entry_of_id_;  // -1: none
  bool texts_are_unique_ = true;
};

}  // namespace nibble
