#include "models/config_reader.h"

#include <cmath>

#include "core/error.h"

namespace nibble {

int64_t ConfigReader::integer(std::string_view key, int64_t low, int64_t high) const {
  const Json* value = config_.find_value(key);
  if (value == nullptr) fail(ErrorCode::format, at(key) + ": is missing");
  const int64_t number = value->as_int(at(key));
  if (number < low || number > high) {
    fail(ErrorCode::format, at(key) + ": found " + std::to_string(number) + ", expected " + std::to_string(low) +
                                " to " + std::to_string(high));
  }
  return number;
}

int64_t ConfigReader::integer_or(std::string_view key, int64_t fallback, int64_t low, int64_t high) const {
  return has(key) ? integer(key, low, high) : fallback;
}

double ConfigReader::number_or(std::string_view key, double fallback) const {
  const Json* value = config_.find_value(key);
  return value ? value->as_double(at(key)) : fallback;
}

double ConfigReader::positive_or(std::string_view key, double fallback) const {
  const double number = number_or(key, fallback);
  if (!(number > 0) || !std::isfinite(number)) {
    fail(ErrorCode::format, at(key) + ": found " + std::to_string(number) + ", expected a number above 0");
  }
  return number;
}

bool ConfigReader::flag_or(std::string_view key, bool fallback) const {
  const Json* value = config_.find_value(key);
  return value ? value->as_bool(at(key)) : fallback;
}

std::string ConfigReader::text_or(std::string_view key, const std::string& fallback) const {
  const Json* value = config_.find_value(key);
  return value ? value->as_string(at(key)) : fallback;
}

}  // namespace nibble
