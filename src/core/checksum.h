#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace nibble {

/// FNV-1a, 64 bits: the same number for the same bytes everywhere. To tell what differs, not against forgery.
class Checksum {
 public:
  void add(std::string_view bytes) {
    for (const char c : bytes) add_byte(static_cast<uint8_t>(c));
  }
  /// As eight bytes, the lowest first.
  void add(uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) add_byte(static_cast<uint8_t>(value >> shift));
  }
  /// Many bytes, eight at a time, which gives another number than one at a time and takes an eighth of its time.
  void add(std::span<const std::byte> bytes) {
    size_t at = 0;
    for (uint64_t word = 0; at + sizeof word <= bytes.size(); at += sizeof word) {
      std::memcpy(&word, bytes.data() + at, sizeof word);
      value_ = (value_ ^ word) * kPrime;
    }
    for (; at < bytes.size(); ++at) add_byte(static_cast<uint8_t>(bytes[at]));
  }
  uint64_t value() const { return value_; }

 private:
  void add_byte(uint8_t byte) { value_ = (value_ ^ byte) * kPrime; }

  static constexpr uint64_t kPrime = 0x100000001b3u;

  uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace nibble
