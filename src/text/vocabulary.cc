#include "text/vocabulary.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/limits.h"

namespace nibble {

Vocabulary::Vocabulary(std::span<const TokenEntry> entries, const std::string& where) : index_(entries.size()) {
  int64_t end = 0;
  size_t bytes = 0;
  for (const TokenEntry& entry : entries) {
    if (entry.id < 0 || entry.id >= limits::kMaxVocabulary) {
      fail(ErrorCode::format, where + ": token '" + printable(entry.text, 100) + "' has id " +
                                  std::to_string(entry.id) + ", expected 0 to " +
                                  std::to_string(limits::kMaxVocabulary - 1));
    }
    end = std::max(end, entry.id + 1);
    bytes += entry.text.size();
  }
  if (bytes > std::numeric_limits<uint32_t>::max()) {
    fail(ErrorCode::format, where + ": " + std::to_string(bytes) + " bytes of tokens, expected less than 4 GiB");
  }
  texts_.reserve(bytes);
  entries_.reserve(entries.size());
  entry_of_id_.assign(static_cast<size_t>(end), -1);
  for (const auto& [token, id, score] : entries) {
    const auto place = static_cast<int32_t>(entries_.size());
    const auto begin = static_cast<uint32_t>(texts_.size());
    texts_ += token;
    entries_.push_back({begin, static_cast<uint32_t>(texts_.size()), static_cast<int32_t>(id)});
    if (index_.put(hash_of(token), place, has_text(token)) >= 0) repeated_ = place;
    entry_of_id_[static_cast<size_t>(id)] = place;
  }
}

std::optional<int32_t> Vocabulary::id(std::string_view token) const {
  const int32_t entry = index_.find(hash_of(token), has_text(token));
  if (entry < 0) return std::nullopt;
  return entries_[static_cast<size_t>(entry)].id;
}

std::optional<int32_t> Vocabulary::id(std::string_view token, int32_t guess) const {
  const std::optional<std::string_view> text = repeated_ < 0 ? this->token(guess) : std::nullopt;
  return text == token ? guess : id(token);
}

std::optional<std::string_view> Vocabulary::token(int32_t id) const {
  if (id < 0 || id >= end_id()) return std::nullopt;
  const int32_t entry = entry_of_id_[static_cast<size_t>(id)];
  return entry < 0 ? std::nullopt : std::optional(text(entry));
}

std::optional<std::string_view> Vocabulary::repeated() const {
  return repeated_ < 0 ? std::nullopt : std::optional(text(repeated_));
}

}  // namespace nibble
