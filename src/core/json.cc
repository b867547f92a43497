#include "core/json.h"

#include <cmath>

#include "core/error.h"
#include "core/json_text.h"

namespace nibble {
namespace {

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
  return JsonText::parse(text, where, max_depth).root().json(where);
}

Json Json::parse_file(const std::string& path, uint64_t max_bytes) {
  return JsonText::parse_file(path, max_bytes).root().json(path);
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
