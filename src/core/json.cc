#include "core/json.h"

#include <simdjson.h>

#include <cmath>

#include "core/error.h"
#include "core/file.h"
#include "core/hash_index.h"

namespace nibble {
namespace {

using simdjson::dom::element;
using simdjson::dom::element_type;

Json convert(const element& source, const std::string& where);

void refuse_duplicates(const Json::Object& members, const std::string& where) {
  HashIndex index(members.size());
  for (size_t i = 0; i < members.size(); ++i) {
    const std::string& key = members[i].first;
    const auto is_same = [&](int32_t place) { return members[static_cast<size_t>(place)].first == key; };
    if (index.put(hash_of(key), static_cast<int32_t>(i), is_same) >= 0) {
      fail(ErrorCode::format, where + ": duplicate key '" + printable(key, 200) + "'");
    }
  }
}

Json convert_object(const simdjson::dom::object& source, const std::string& where) {
  Json::Object members;
  members.reserve(source.size());
  for (const auto& field : source) members.emplace_back(std::string(field.key), convert(field.value, where));
  refuse_duplicates(members, where);
  return Json(std::move(members));
}

// Recursion is bounded by the depth limit given to the parser.
Json convert(const element& source, const std::string& where) {
  switch (source.type()) {
    case element_type::NULL_VALUE: return Json();
    case element_type::BOOL: return Json(bool(source));
    case element_type::INT64: return Json(int64_t(source));
    case element_type::UINT64: return Json(uint64_t(source));
    case element_type::DOUBLE: return Json(double(source));
    case element_type::STRING: return Json(std::string_view(source));
    case element_type::ARRAY: {
      const simdjson::dom::array source_items = source;
      Json::Array items;
      items.reserve(source_items.size());
      for (const element item : source_items) items.push_back(convert(item, where));
      return Json(std::move(items));
    }
    case element_type::OBJECT: return convert_object(source, where);
  }
  return Json();
}

/// Where the JSON string that begins at `begin` ends.
size_t string_end(std::string_view text, size_t begin) {
  for (size_t at = begin + 1; at < text.size(); ++at) {
    if (text[at] == '"') return at + 1;
    if (text[at] == '\\') ++at;
  }
  return text.size();
}

/// The text with ".0" behind every integer that may not fit 64 bits: simdjson refuses those, but reads the same number
/// with a point. transformers writes one as the length of tokenizers that have no limit, 10^30.
std::string with_points(std::string_view text) {
  constexpr size_t kSafeDigits = 19, kSafeNegativeDigits = 18;
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t end =
        text[at] == '"' ? string_end(text, at) : std::min(text.find_first_of("\",:[]{} \t\r\n", at), text.size());
    const std::string_view token = text.substr(at, std::max<size_t>(end - at, 1));
    const bool negative = token.front() == '-';
    const std::string_view digits = token.substr(negative ? 1 : 0);
    const bool is_integer = digits.find_first_not_of("0123456789") == std::string_view::npos;
    out += token;
    if (is_integer && digits.size() > (negative ? kSafeNegativeDigits : kSafeDigits)) out += ".0";
    at += token.size();
  }
  return out;
}

[[noreturn]] void wrong_type(const Json& value, const std::string& where, const char* expected) {
  fail(ErrorCode::format, where + ": found " + std::string(value.type_name()) + ", expected " + expected);
}

}  // namespace

Json::Json(uint64_t value) {
  if (value <= static_cast<uint64_t>(INT64_MAX)) {
    value_ = static_cast<int64_t>(value);
  } else {
    value_ = static_cast<double>(value);
  }
}

Json Json::parse(std::string_view text, const std::string& where, int max_depth) {
  simdjson::dom::parser parser;
  element root;
  const auto parse_text = [&](std::string_view source) {
    const auto error = parser.allocate(std::max<size_t>(source.size(), 64), static_cast<size_t>(max_depth) + 1);
    return error ? error : parser.parse(simdjson::padded_string(source)).get(root);
  };
  auto error = parse_text(text);
  if (error) {
    const std::string pointed = with_points(text);
    if (pointed.size() != text.size()) error = parse_text(pointed);
  }
  if (error == simdjson::DEPTH_ERROR) {
    fail(ErrorCode::format, where + ": JSON nested deeper than " + std::to_string(max_depth) + " levels");
  }
  if (error) fail(ErrorCode::format, where + ": not valid JSON: " + simdjson::error_message(error));
  return convert(root, where);
}

Json Json::parse_file(const std::string& path, uint64_t max_bytes) {
  return parse(read_text_file(path, max_bytes), path);
}

std::string_view Json::type_name() const {
  static constexpr std::string_view kNames[] = {"null",     "a boolean", "an integer", "a number",
                                                "a string", "an array",  "an object"};
  return kNames[value_.index()];
}

bool Json::as_bool(const std::string& where) const {
  if (const auto* value = std::get_if<bool>(&value_)) return *value;
  wrong_type(*this, where, "a boolean");
}

int64_t Json::as_int(const std::string& where) const {
  if (const auto* value = std::get_if<int64_t>(&value_)) return *value;
  if (const auto* value = std::get_if<double>(&value_)) {
    if (std::trunc(*value) == *value && std::abs(*value) < 0x1p53) return static_cast<int64_t>(*value);
  }
  wrong_type(*this, where, "an integer");
}

double Json::as_double(const std::string& where) const {
  if (const auto* value = std::get_if<double>(&value_)) return *value;
  if (const auto* value = std::get_if<int64_t>(&value_)) return static_cast<double>(*value);
  wrong_type(*this, where, "a number");
}

const std::string& Json::as_string(const std::string& where) const {
  if (const auto* value = std::get_if<std::string>(&value_)) return *value;
  wrong_type(*this, where, "a string");
}

const Json::Array& Json::as_array(const std::string& where) const {
  if (const auto* value = std::get_if<Array>(&value_)) return *value;
  wrong_type(*this, where, "an array");
}

const Json::Object& Json::as_object(const std::string& where) const {
  if (const auto* value = std::get_if<Object>(&value_)) return *value;
  wrong_type(*this, where, "an object");
}

const Json* Json::find(std::string_view key) const {
  const auto* members = std::get_if<Object>(&value_);
  if (members == nullptr) return nullptr;
  for (const auto& [name, value] : *members) {
    if (name == key) return &value;
  }
  return nullptr;
}

const Json* Json::find_value(std::string_view key) const {
  const Json* value = find(key);
  return value != nullptr && value->is_null() ? nullptr : value;
}

void Json::set(std::string_view key, Json value) {
  if (is_null()) value_ = Object();
  auto& members = std::get<Object>(value_);
  for (auto& [name, old] : members) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  members.emplace_back(std::string(key), std::move(value));
}

void Json::erase(std::string_view key) {
  if (auto* members = std::get_if<Object>(&value_)) {
    std::erase_if(*members, [&](const auto& member) { return member.first == key; });
  }
}

void Json::push_back(Json value) {
  if (is_null()) value_ = Array();
  std::get<Array>(value_).push_back(std::move(value));
}

}  // namespace nibble
