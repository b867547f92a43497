#pragma once
// Reading the members of tokenizer.json's objects, and the tables that map the word in "type" to a parser.
#include <cstddef>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/json.h"

namespace nibble {

inline const Json& required(const Json& object, std::string_view key, const std::string& where) {
  const Json* value = object.find(key);
  if (value == nullptr) fail(ErrorCode::format, where + ": no member '" + std::string(key) + "'");
  return *value;
}

inline bool bool_or(const Json& object, std::string_view key, bool fallback, const std::string& where) {
  const Json* value = object.find_value(key);
  return value == nullptr ? fallback : value->as_bool(where + "." + std::string(key));
}

inline std::string string_or(const Json& object, std::string_view key, std::string fallback, const std::string& where) {
  const Json* value = object.find_value(key);
  return value == nullptr ? std::move(fallback) : value->as_string(where + "." + std::string(key));
}

inline std::string required_string(const Json& object, std::string_view key, const std::string& where) {
  return required(object, key, where).as_string(where + "." + std::string(key));
}

/// One row of a table from the word in "type" to a function.
template <class Parse>
struct TypeRow {
  std::string_view type;
  Parse parse;
};

/// The row's function for json's "type". @throws Error{unsupported} naming the known types.
template <class Parse, size_t N>
Parse find_type(const TypeRow<Parse> (&table)[N], std::string_view type, const std::string& where) {
  std::string known;
  for (const TypeRow<Parse>& row : table) {
    if (row.type == type) return row.parse;
    known += (known.empty() ? "" : ", ") + std::string(row.type);
  }
  fail(ErrorCode::unsupported, where + ": unknown type '" + printable(type, 100) + "'. Known: " + known);
}

}  // namespace nibble
