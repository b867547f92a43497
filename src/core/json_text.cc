#include "core/json_text.h"

#include <simdjson.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/hash_index.h"

namespace nibble {
namespace {

using simdjson::dom::element;
using simdjson::dom::element_type;

void refuse_duplicates(const std::vector<std::string_view>& keys, const std::string& where) {
  HashIndex index(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto is_same = [&](int32_t place) { return keys[static_cast<size_t>(place)] == keys[i]; };
    if (index.put(hash_of(keys[i]), static_cast<int32_t>(i), is_same) >= 0) {
      fail(ErrorCode::format, where + ": duplicate key '" + printable(keys[i], 200) + "'");
    }
  }
}

Json convert(const element& source, const std::string& where);

Json convert_object(const simdjson::dom::object& source, const std::string& where,
                    std::span<const std::string_view> but) {
  Json::Object members;
  members.reserve(source.size());
  std::vector<std::string_view> keys;
  keys.reserve(source.size());
  for (const auto& [key, value] : source) {
    keys.push_back(key);
    if (std::find(but.begin(), but.end(), key) == but.end()) members.emplace_back(key, convert(value, where));
  }
  refuse_duplicates(keys, where);
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
    case element_type::OBJECT: return convert_object(source, where, {});
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

}  // namespace

struct JsonText::Parsed {
  simdjson::dom::parser parser;

  static Value value_of(const element& source) {
    Value value;
    value.element_ = std::bit_cast<decltype(value.element_)>(source);
    return value;
  }
  static element element_of(const Value& value) { return std::bit_cast<element>(value.element_); }
};

bool JsonText::Value::is_null() const { return Parsed::element_of(*this).is_null(); }
bool JsonText::Value::is_array() const { return Parsed::element_of(*this).is_array(); }

std::string_view JsonText::Value::as_string(const std::string& where) const {
  std::string_view text;
  if (Parsed::element_of(*this).get(text)) json(where).as_string(where);  // which throws
  return text;
}

int64_t JsonText::Value::as_int(const std::string& where) const { return json(where).as_int(where); }
double JsonText::Value::as_double(const std::string& where) const { return json(where).as_double(where); }

std::optional<JsonText::Value> JsonText::Value::find(std::string_view key) const {
  element found;
  if (Parsed::element_of(*this).at_key(key).get(found)) return std::nullopt;
  return Parsed::value_of(found);
}

size_t JsonText::Value::size() const {
  const element source = Parsed::element_of(*this);
  if (source.is_object()) return simdjson::dom::object(source).size();
  return source.is_array() ? simdjson::dom::array(source).size() : 0;
}

void JsonText::Value::for_each_member(const std::string& where,
                                      const std::function<void(std::string_view, Value)>& visit) const {
  simdjson::dom::object members;
  if (Parsed::element_of(*this).get(members)) json(where).as_object(where);  // which throws
  for (const auto& [key, value] : members) visit(key, Parsed::value_of(value));
}

void JsonText::Value::for_each_item(const std::string& where, const std::function<void(Value)>& visit) const {
  simdjson::dom::array items;
  if (Parsed::element_of(*this).get(items)) json(where).as_array(where);  // which throws
  for (const element item : items) visit(Parsed::value_of(item));
}

Json JsonText::Value::json(const std::string& where, std::span<const std::string_view> but) const {
  const element source = Parsed::element_of(*this);
  return source.is_object() ? convert_object(source, where, but) : convert(source, where);
}

JsonText::JsonText(std::string text, const std::string& where, int max_depth) {
  const auto parsed = std::make_shared<Parsed>();
  element root;
  const auto parse_text = [&](std::string& source) {
    source.reserve(source.size() + simdjson::SIMDJSON_PADDING);  // which is read, but for nothing
    const auto error = parsed->parser.allocate(std::max<size_t>(source.size(), 64), static_cast<size_t>(max_depth) + 1);
    return error ? error : parsed->parser.parse(source.data(), source.size(), false).get(root);
  };
  auto error = parse_text(text);
  if (error) {
    std::string pointed = with_points(text);
    if (pointed.size() != text.size()) error = parse_text(pointed);
  }
  if (error == simdjson::DEPTH_ERROR) {
    fail(ErrorCode::format, where + ": JSON nested deeper than " + std::to_string(max_depth) + " levels");
  }
  if (error) fail(ErrorCode::format, where + ": not valid JSON: " + simdjson::error_message(error));
  parsed_ = parsed;
  root_ = Parsed::value_of(root);
}

JsonText JsonText::parse(std::string_view text, const std::string& where, int max_depth) {
  std::string copy;
  copy.reserve(text.size() + simdjson::SIMDJSON_PADDING);
  return JsonText(copy.assign(text), where, max_depth);
}

JsonText JsonText::parse_file(const std::string& path, uint64_t max_bytes) {
  return JsonText(read_text_file(path, max_bytes, simdjson::SIMDJSON_PADDING), path, limits::kMaxJsonDepth);
}

}  // namespace nibble
