#pragma once
// Arithmetic on sizes that come from files: every product, sum and narrowing is checked, and the error names what was
// being computed. Plain * and + on such sizes are not allowed in the loaders.
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

#include "core/error.h"

namespace nibble {

inline uint64_t checked_mul(uint64_t a, uint64_t b, const std::string& what) {
  uint64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) {
    fail(ErrorCode::format, what + ": size overflows 64 bits (" + std::to_string(a) + " * " + std::to_string(b) + ")");
  }
  return result;
}

inline uint64_t checked_add(uint64_t a, uint64_t b, const std::string& what) {
  uint64_t result = 0;
  if (__builtin_add_overflow(a, b, &result)) {
    fail(ErrorCode::format, what + ": size overflows 64 bits (" + std::to_string(a) + " + " + std::to_string(b) + ")");
  }
  return result;
}

/// The value as To; an error when it does not fit.
template <class To, class From>
To narrow(From value, const std::string& what) {
  static_assert(std::is_integral_v<To> && std::is_integral_v<From>);
  const auto result = static_cast<To>(value);
  if (static_cast<From>(result) != value || (result < To{}) != (value < From{})) {
    fail(ErrorCode::format, what + ": " + std::to_string(value) + " is out of range");
  }
  return result;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace nibble
