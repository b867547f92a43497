#pragma once
// The pieces that gguf.cc is made of: a cursor over the file that compares every length with the bytes that are left
// before it allocates, the metadata values, and the element types.
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "io/gguf.h"

namespace nibble {

class GgufCursor {
 public:
  explicit GgufCursor(const File& file) : file_(file) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return file_.size() - position_; }

  template <class T>
  T number(const std::string& where) {
    static_assert(std::is_arithmetic_v<T>);
    T value;
    std::memcpy(&value, take(sizeof(T), where), sizeof(T));
    return value;
  }
  /// u64 length, then the bytes.
  std::string text(uint64_t max_bytes, const std::string& where);
  /// A u64 count of things that take at least min_bytes each. @throws Error{format} when they cannot all be there.
  uint64_t count(uint64_t min_bytes, uint64_t max_count, const std::string& where);

 private:
  /// The next bytes (at most the window's size), valid until the next call.
  const std::byte* take(size_t bytes, const std::string& where);

  const File& file_;
  uint64_t position_ = 0;
  std::vector<std::byte> window_;
  uint64_t window_begin_ = 0;  // position of window_[0] in the file
};

/// The key-value section as an object. @throws Error{format, unsupported}
Json read_gguf_metadata(GgufCursor& cursor, uint64_t count, const std::string& file);

/// @throws Error{unsupported} listing the known types.
const GgufType& find_gguf_type(uint32_t id, const std::string& where);

}  // namespace nibble
