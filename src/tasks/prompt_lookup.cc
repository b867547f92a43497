#include "tasks/prompt_lookup.h"

#include <algorithm>

namespace nibble {
namespace {

constexpr int64_t kLongestMatch = 3;

}  // namespace

std::vector<int32_t> look_up(std::span<const int32_t> text, int64_t most) {
  if (most <= 0 || text.size() < 2) return {};
  const auto last = text.end() - 1;  // a match ends before it, so that something follows
  for (int64_t n = std::min(kLongestMatch, static_cast<int64_t>(text.size()) - 1); n > 0; --n) {
    const auto found = std::search(text.begin(), last, text.end() - n, text.end());
    if (found == last) continue;
    const auto follows = found + n;
    return {follows, follows + std::min(most, text.end() - follows)};
  }
  return {};
}

bool GuessedDecoding::is_guessed(int32_t id) {
  if (row_ == static_cast<int64_t>(guesses_.size()) || guesses_[static_cast<size_t>(row_)] != id) return false;
  ++row_;
  ++accepted_;
  return true;
}

void GuessedDecoding::forward(std::span<const int32_t> text, int64_t most) {
  cache_.truncate(cache_.length() - (static_cast<int64_t>(guesses_.size()) - row_));
  guesses_ = look_up(text, most);
  std::vector<int32_t> ids = {text.back()};
  ids.insert(ids.end(), guesses_.begin(), guesses_.end());
  logits_ = model_.forward({.ids = ids}, &cache_, nullptr);
  row_ = 0;
  drafted_ += static_cast<int64_t>(guesses_.size());
  ++forwards_;
}

}  // namespace nibble
