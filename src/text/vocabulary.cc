#include "text/vocabulary.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "core/error.h"
#include "core/limits.h"

namespace nibble {
namespace {

uint32_t hash_of(std::string_view token) { return static_cast<uint32_t>(std::hash<std::string_view>()(token)); }

}  // namespace

Vocabulary::Vocabulary(std::vector<std::pair<std::string, int64_t>> entries, const std::string& where)
    : entries_(std::move(entries)) {
  int64_t end = 0;
  for (const auto& [token, id] : entries_) {
    if (id < 0 || id >= limits::kMaxVocabulary) {
      fail(ErrorCode::format, where + ": token '" + printable(token, 100) + "' has id " + std::to_string(id) +
                                  ", expected 0 to " + std::to_string(limits::kMaxVocabulary - 1));
    }
    end = std::max(end, id + 1);
  }
  entry_of_id_.assign(static_cast<size_t>(end), -1);
  slots_.assign(std::bit_ceil(2 * entries_.size() + 1), Slot{});
  for (size_t i = 0; i < entries_.size(); ++i) {
    const auto& [token, id] = entries_[i];
    const uint32_t hash = hash_of(token);
    slots_[slot_of(token, hash)] = {hash, static_cast<int32_t>(i)};
    entry_of_id_[static_cast<size_t>(id)] = static_cast<int32_t>(i);
  }
}

std::vector<std::pair<std::string, int64_t>> Vocabulary::entries_of(const Json& vocab, const std::string& where) {
  std::vector<std::pair<std::string, int64_t>> entries;
  for (const auto& [token, id] : vocab.as_object(where)) entries.emplace_back(token, id.as_int(where));
  return entries;
}

size_t Vocabulary::slot_of(std::string_view token, uint32_t hash) const {
  for (size_t at = hash & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
    const Slot& slot = slots_[at];
    if (slot.entry < 0) return at;
    if (slot.hash == hash && entries_[static_cast<size_t>(slot.entry)].first == token) return at;
  }
}

std::optional<int32_t> Vocabulary::id(std::string_view token) const {
  const Slot& slot = slots_[slot_of(token, hash_of(token))];
  if (slot.entry < 0) return std::nullopt;
  return static_cast<int32_t>(entries_[static_cast<size_t>(slot.entry)].second);
}

const std::string* Vocabulary::token(int32_t id) const {
  if (id < 0 || id >= end_id()) return nullptr;
  const int32_t entry = entry_of_id_[static_cast<size_t>(id)];
  return entry < 0 ? nullptr : &entries_[static_cast<size_t>(entry)].first;
}

}  // namespace nibble
