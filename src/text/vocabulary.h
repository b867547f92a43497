#pragma once
// Token texts and their ids, both ways. Ids may have gaps.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/hash_index.h"
#include "text/token_lists.h"

namespace nibble {

class Vocabulary {
 public:
  /// When two entries have the same text, or the same id, the later one counts.
  /// @throws Error{format} for an id outside [0, limits::kMaxVocabulary).
  Vocabulary(std::span<const TokenEntry> entries, const std::string& where);

  std::optional<int32_t> id(std::string_view token) const;
  /// The same, and faster where the guess is right; -1: no guess.
  std::optional<int32_t> id(std::string_view token, int32_t guess) const;
  /// None for an id that no token has.
  std::optional<std::string_view> token(int32_t id) const;
  /// All ids are below.
  int32_t end_id() const { return static_cast<int32_t>(entry_of_id_.size()); }
  /// A text that two entries have.
  std::optional<std::string_view> repeated() const;

 private:
  struct Entry {
    uint32_t begin, end;  // in texts_
    int32_t id;
  };

  std::string_view text(int32_t entry) const {
    const Entry& e = entries_[static_cast<size_t>(entry)];
    return std::string_view(texts_).substr(e.begin, e.end - e.begin);
  }
  auto has_text(std::string_view token) const {
    return [this, token](int32_t entry) { return text(entry) == token; };
  }

  std::string texts_;  // of all, one behind the other
  std::vector<Entry> entries_;
  HashIndex index_;
  std::vector<int32_t> entry_of_id_;  // -1: none
  int32_t repeated_ = -1;             // an entry whose text was there before
};

}  // namespace nibble
