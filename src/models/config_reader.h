#pragma once
// Typed, range-checked access to config.json; every error names the file and the key.
#include <cstdint>
#include <string>
#include <string_view>

#include "core/json.h"

namespace nibble {

class ConfigReader {
 public:
  ConfigReader(const Json& config, std::string where) : config_(config), where_(std::move(where)) {}

  const Json& json() const { return config_; }
  const std::string& where() const { return where_; }
  bool has(std::string_view key) const { return config_.find_value(key) != nullptr; }
  std::string at(std::string_view key) const { return where_ + ": " + std::string(key); }

  /// @throws Error{format} when the key is absent, not an integer, or outside [low, high].
  int64_t integer(std::string_view key, int64_t low, int64_t high) const;
  int64_t integer_or(std::string_view key, int64_t fallback, int64_t low, int64_t high) const;
  double number_or(std::string_view key, double fallback) const;
  /// A finite number above zero.
  double positive_or(std::string_view key, double fallback) const;
  bool flag_or(std::string_view key, bool fallback) const;
  std::string text_or(std::string_view key, const std::string& fallback) const;

 private:
  const Json& config_;
  std::string where_;
};

}  // namespace nibble
