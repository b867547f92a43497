#include "text/vocabulary.h"

#include <algorithm>

#include "core/error.h"
#include "core/limits.h"

namespace nibble {
Vocabulary::Vocabulary(std::vector<std::pair<std::string, int64_t>> entries, const std::string& where)
    : entries_(std::move(entries)), index_(entries_.size()) {
  int64_t end = 0;
  for (const auto& [token, id] : entries_) {
    if (id < 0 || id >= limits::kMaxVocabulary) {
      fail(ErrorCode::format, where + ": token '" + printable(token, 100) + "' has id " + std::to_string(id) +
                                  ", expected 0 to " + std::to_string(limits::kMaxVocabulary - 1));
    }
    end = std::max(end, id + 1);
  }
  entry_of_id_.assign(static_cast<size_t>(end), -1);
  for (size_t i = 0; i < entries_.size(); ++i) {
    const auto& [token, id] = entries_[i];
    const auto place = static_cast<int32_t>(i);
    if (index_.put(hash_of(token), place, has_text(token)) >= 0) texts_are_unique_ = false;
    entry_of_id_[static_cast<size_t>(id)] = place;
  }
}

std::vector<std::pair<std::string, int64_t>> Vocabulary::entries_of(const Json& vocab, const std::string& where) {
  std::vector<std::pair<std::string, int64_t>> entries;
  entries.reserve(vocab.as_object(where).size());
  for (const auto& [token, id] : vocab.as_object(where)) entries.emplace_back(token, id.as_int(where));
  return entries;
}

std::optional<int32_t> Vocabulary::id(std::string_view token) const {
  const int32_t entry = index_.find(hash_of(token), has_text(token));
  if (entry < 0) return std::nullopt;
  return static_cast<int32_t>(entries_[static_cast<size_t>(entry)].second);
}

std::optional<int32_t> Vocabulary::id(std::string_view token, int32_t guess) const {
  const std::string* text = texts_are_unique_ ? this->token(guess) : nullptr;
  return text != nullptr && *text == token ? guess : id(token);
}

const std::string* Vocabulary::token(int32_t id) const {
  if (id < 0 || id >= end_id()) return nullptr;
  const int32_t entry = entry_of_id_[static_cast<size_t>(id)];
  return entry < 0 ? nullptr : &entries_[static_cast<size_t>(entry)].first;
}

}  // namespace nibble
