#pragma once
// JSON that is read where it was parsed, without becoming values first: a tokenizer has 100,000 tokens and as many
// merges, which would be as many strings.
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/json.h"

namespace nibble {

class JsonText {
 public:
  /// One of its values, as long as the text lives.
  class Value {
   public:
    bool is_null() const;
    bool is_array() const;
    /// The value as a type. @throws Error{format} as Json does
    std::string_view as_string(const std::string& where) const;
    int64_t as_int(const std::string& where) const;
    double as_double(const std::string& where) const;
    /// The member of an object; none when there is none, or when this is not an object.
    std::optional<Value> find(std::string_view key) const;
    /// Of an object or array: how many it holds, or 16 million for more; 0 for others.
    size_t size() const;
    /// Calls with each member of an object, or item of an array. @throws Error{format} for another type
    void for_each_member(const std::string& where, const std::function<void(std::string_view, Value)>& visit) const;
    void for_each_item(const std::string& where, const std::function<void(Value)>& visit) const;
    /// Itself; of an object without these members. @throws Error{format} for a duplicate key
    Json json(const std::string& where, std::span<const std::string_view> but = {}) const;

   private:
    friend class JsonText;
    alignas(size_t) std::array<std::byte, 2 * sizeof(size_t)> element_{};  // simdjson's, which stays in the .cc file
  };

  /// As Json::parse and Json::parse_file, but that duplicate keys are found when json() meets them.
  static JsonText parse(std::string_view text, const std::string& where, int max_depth = limits::kMaxJsonDepth);
  static JsonText parse_file(const std::string& path, uint64_t max_bytes = limits::kMaxJsonBytes);

  Value root() const { return root_; }

 private:
  struct Parsed;
  JsonText(std::string text, const std::string& where, int max_depth);

  std::shared_ptr<const Parsed> parsed_;
  Value root_;
};

}  // namespace nibble
