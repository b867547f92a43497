#pragma once
// JSON values. Parsing is simdjson's (json_text.cc), writing nlohmann's (json_write.cc); neither is seen outside.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/limits.h"

namespace nibble {

class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;  // in the order of the file

  Json() = default;
  Json(std::nullptr_t) {}
  Json(bool value) : value_(value) {}
  Json(int value) : value_(int64_t{value}) {}
  Json(int64_t value) : value_(value) {}
  Json(uint64_t value);  // beyond the range of int64_t: a double
  Json(double value) : value_(value) {}
  Json(float value) : value_(static_cast<double>(value)) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(Array value) : value_(std::move(value)) {}
  Json(Object value) : value_(std::move(value)) {}

  static Json object(Object members = {}) { return Json(std::move(members)); }
  static Json array(Array items = {}) { return Json(std::move(items)); }

  /// Parses UTF-8 JSON. `where` names the file for messages.
  /// @throws Error{format} on malformed text, a nesting deeper than max_depth, or a duplicate key.
  static Json parse(std::string_view text, const std::string& where, int max_depth = limits::kMaxJsonDepth);
  static Json parse_file(const std::string& path, uint64_t max_bytes = limits::kMaxJsonBytes);

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(value_); }
  bool is_number() const { return is_integer() || std::holds_alternative<double>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }

  /// The value as a type; `where` is put in front of the message when it is another type.
  /// @throws Error{format} "WHERE: found a string, expected an integer"
  bool as_bool(const std::string& where) const;
  int64_t as_int(const std::string& where) const;  // integers, and doubles with an integral value
  double as_double(const std::string& where) const;
  const std::string& as_string(const std::string& where) const;
  const Array& as_array(const std::string& where) const;
  const Object& as_object(const std::string& where) const;

  /// The member of an object; null when there is none, or when this is not an object.
  const Json* find(std::string_view key) const;
  /// As find, but a member whose value is null counts as absent too.
  const Json* find_value(std::string_view key) const;
  /// Replaces or appends a member (this must be an object or null, which becomes one).
  void set(std::string_view key, Json value);
  void erase(std::string_view key);
  /// Appends to an array (or null, which becomes one).
  void push_back(Json value);

  /// indent < 0: one line. Strings that are not UTF-8 get U+FFFD in place of the bad bytes; a number that is not
  /// finite becomes null.
  std::string dump(int indent = -1) const;

  std::string_view type_name() const;

 private:
  std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object> value_ = nullptr;
};

}  // namespace nibble
