#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_set>

#include "core/checked.h"
#include "core/error.h"
#include "core/limits.h"
#include "io/gguf_reader.h"

namespace nibble {
namespace {

constexpr size_t kWindowBytes = size_t{1} << 20;
constexpr uint32_t kUint32 = 4, kArray = 9;
constexpr uint64_t kMinEntryBytes = 8 + 4 + 1;  // length of the key, type, the shortest value

template <class T>
Json read_number(GgufCursor& cursor, const std::string& where) {
  const T value = cursor.number<T>(where);
  if constexpr (std::is_floating_point_v<T>)
    return Json(static_cast<double>(value));
  else if constexpr (std::is_signed_v<T>)
    return Json(static_cast<int64_t>(value));
  else
    return Json(static_cast<uint64_t>(value));
}

Json read_bool(GgufCursor& cursor, const std::string& where) {
  const auto value = cursor.number<uint8_t>(where);
  if (value > 1) fail(ErrorCode::format, where + ": found " + std::to_string(value) + ", expected a boolean, 0 or 1");
  return Json(value == 1);
}

Json read_string(GgufCursor& cursor, const std::string& where) {
  return Json(cursor.text(limits::kMaxStringBytes, where));
}

struct ValueType {
  uint64_t min_bytes;
  Json (*read)(GgufCursor& cursor, const std::string& where);
};

// Indexed by the file's type number. An array may not hold arrays, so 9 has no row here.
constexpr std::array<ValueType, 13> kValueTypes = {{
    {1, read_number<uint8_t>},
    {1, read_number<int8_t>},
    {2, read_number<uint16_t>},
    {2, read_number<int16_t>},
    {4, read_number<uint32_t>},
    {4, read_number<int32_t>},
    {4, read_number<float>},
    {1, read_bool},
    {8, read_string},
    {0, nullptr},
    {8, read_number<uint64_t>},
    {8, read_number<int64_t>},
    {8, read_number<double>},
}};

const ValueType& value_type(uint32_t type, const std::string& where) {
  if (type >= kValueTypes.size() || kValueTypes[type].read == nullptr) {
    fail(ErrorCode::format, where + ": unknown value type " + std::to_string(type));
  }
  return kValueTypes[type];
}

Json read_array(GgufCursor& cursor, const std::string& where) {
  const auto element = cursor.number<uint32_t>(where);
  if (element == kArray) fail(ErrorCode::unsupported, where + ": arrays of arrays are not supported");
  const ValueType& type = value_type(element, where);
  const uint64_t count = cursor.count(type.min_bytes, limits::kMaxVocabulary, where);
  Json::Array items;
  items.reserve(count);
  for (uint64_t i = 0; i < count; ++i) items.push_back(type.read(cursor, where));
  return Json(std::move(items));
}

}  // namespace

const std::byte* GgufCursor::take(size_t bytes, const std::string& where) {
  if (bytes > remaining()) {
    fail(ErrorCode::format, where + ": " + std::to_string(bytes) + " bytes wanted at byte " +
                                std::to_string(position_) + ", the file has " + std::to_string(file_.size()));
  }
  if (position_ < window_begin_ || position_ + bytes > window_begin_ + window_.size()) {
    window_.resize(std::min<uint64_t>(std::max(bytes, kWindowBytes), remaining()));
    file_.read_at(position_, window_);
    window_begin_ = position_;
  }
  const std::byte* data = window_.data() + (position_ - window_begin_);
  position_ += bytes;
  return data;
}

std::string GgufCursor::text(uint64_t max_bytes, const std::string& where) {
  const auto length = number<uint64_t>(where);
  if (length > max_bytes || length > remaining()) {
    fail(ErrorCode::format, where + ": string of " + std::to_string(length) + " bytes, the file has " +
                                std::to_string(remaining()) + " left and at most " + std::to_string(max_bytes) +
                                " are allowed");
  }
  return std::string(reinterpret_cast<const char*>(take(length, where)), length);
}

uint64_t GgufCursor::count(uint64_t min_bytes, uint64_t max_count, const std::string& where) {
  const auto value = number<uint64_t>(where);
  if (value > max_count || value > remaining() / min_bytes) {
    fail(ErrorCode::format, where + ": count " + std::to_string(value) + ", but only " + std::to_string(remaining()) +
                                " bytes are left and at most " + std::to_string(max_count) + " are allowed");
  }
  return value;
}

Json read_gguf_metadata(GgufCursor& cursor, uint64_t count, const std::string& file) {
  if (count > limits::kMaxKeys || count > cursor.remaining() / kMinEntryBytes) {
    fail(ErrorCode::format, file + ": " + std::to_string(count) + " metadata keys do not fit into the file");
  }
  Json::Object members;
  members.reserve(count);  // also keeps the keys in place for the set of views
  std::unordered_set<std::string_view> keys;
  for (uint64_t i = 0; i < count; ++i) {
    std::string key = cursor.text(limits::kMaxNameBytes, file + ": metadata key " + std::to_string(i));
    const std::string where = file + ": metadata '" + printable(key, 200) + "'";
    if (key.empty()) fail(ErrorCode::format, where + ": the key is empty");
    const auto type = cursor.number<uint32_t>(where);
    if (key == "general.alignment" && type != kUint32) {
      fail(ErrorCode::format, where + ": value type " + std::to_string(type) + ", expected u32");
    }
    Json value = type == kArray ? read_array(cursor, where) : value_type(type, where).read(cursor, where);
    members.emplace_back(std::move(key), std::move(value));
    if (!keys.insert(members.back().first).second) fail(ErrorCode::format, where + ": duplicate key");
  }
  return Json(std::move(members));
}

}  // namespace nibble
