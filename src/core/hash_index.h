#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace nibble {

/// Finds the entries of a list by a hash of their key: a table with linear probing that holds hashes and places, while
/// the keys stay with the entries.
class HashIndex {
 public:
  HashIndex() : HashIndex(0) {}
  /// With room for `entries`; no more may be put in.
  explicit HashIndex(size_t entries) : slots_(std::bit_ceil(2 * entries + 1)) {}

  /// The place in the list of the entry with this hash for which is_same(place) holds; -1 when there is none.
  template <class IsSame>
  int32_t find(uint32_t hash, IsSame is_same) const {
    return slots_[slot_of(hash, is_same)].place;
  }

  /// Puts an entry in, in the stead of one that is the same. Returns the place of that one; -1 when there was none.
  template <class IsSame>
  int32_t put(uint32_t hash, int32_t place, IsSame is_same) {
    Slot& slot = slots_[slot_of(hash, is_same)];
    const int32_t earlier = slot.place;
    slot = {hash, place};
    return earlier;
  }

 private:
  struct Slot {
    uint32_t hash = 0;
    int32_t place = -1;  // empty
  };

  template <class IsSame>
  size_t slot_of(uint32_t hash, IsSame is_same) const {
    const size_t mask = slots_.size() - 1;
    size_t at = hash & mask;
    while (slots_[at].place >= 0 && (slots_[at].hash != hash || !is_same(slots_[at].place))) at = (at + 1) & mask;
    return at;
  }

  std::vector<Slot> slots_;  // a power of two, at most half full
};

inline uint32_t hash_of(std::string_view text) { return static_cast<uint32_t>(std::hash<std::string_view>()(text)); }

inline uint32_t hash_of(uint64_t number) { return static_cast<uint32_t>((number * 0x9e3779b97f4a7c15) >> 32); }

}  // namespace nibble
