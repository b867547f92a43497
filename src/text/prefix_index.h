#pragma once
// A sorted list of keys used as a trie: the keys that share their first d bytes are neighbours, so one more byte
// narrows the range by two binary searches.
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble {

class PrefixIndex {
 public:
  using Entry = std::pair<std::string, int32_t>;  // key, value

  PrefixIndex() { first_.fill(0); }
  /// Empty keys are left out; of equal keys the last one counts.
  explicit PrefixIndex(std::vector<Entry> entries) {
    std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.first < b.first; });
    for (Entry& entry : entries) {
      if (entry.first.empty()) continue;
      if (!entries_.empty() && entries_.back().first == entry.first) entries_.pop_back();
      entries_.push_back(std::move(entry));
    }
    size_t at = 0;
    for (size_t byte = 0; byte < 256; ++byte) {
      first_[byte] = at;
      while (at < entries_.size() && byte_of(entries_[at], 0) == byte) ++at;
    }
    first_[256] = at;
  }

  /// Calls visit(length, value) for every key that stands at `position`, shortest first.
  template <class Visit>
  void for_each_at(std::string_view text, size_t position, const Visit& visit) const {
    const auto lead = static_cast<unsigned char>(text[position]);
    auto low = entries_.begin() + static_cast<ptrdiff_t>(first_[lead]);
    auto high = entries_.begin() + static_cast<ptrdiff_t>(first_[lead + 1u]);
    for (size_t depth = 1; low != high; ++depth) {  // all of [low, high) share `depth` bytes with the text
      if (low->first.size() == depth) {
        visit(depth, low->second);
        ++low;
      }
      if (position + depth >= text.size()) return;
      const auto next = static_cast<unsigned char>(text[position + depth]);
      low = std::partition_point(low, high, [&](const Entry& entry) { return byte_of(entry, depth) < next; });
      high = std::partition_point(low, high, [&](const Entry& entry) { return byte_of(entry, depth) == next; });
    }
  }

 private:
  static unsigned char byte_of(const Entry& entry, size_t i) { return static_cast<unsigned char>(entry.first[i]); }

  std::vector<Entry> entries_;
  std::array<size_t, 257> first_{};  // where the keys with this first byte begin
};

}  // namespace nibble
