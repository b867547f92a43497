#pragma once
// Reading untrusted files: regular files only (opened without blocking on a pipe), read by position into owned memory,
// so that a file which shrinks meanwhile gives a clean error and never a signal.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "core/buffer.h"

namespace nibble {

class File {
 public:
  /// @throws Error{io} when the file is missing, unreadable or not a regular file (links to one are fine).
  explicit File(std::filesystem::path path);
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string name() const { return path_.string(); }
  uint64_t size() const { return size_; }

  /// Bytes [offset, offset + bytes) as memory: read into it, or mapped. @throws Error{format} as read_at
  std::shared_ptr<Buffer> buffer(uint64_t offset, size_t bytes, Residency residency) const;

  /// Fills `out` from byte `offset` on. @throws Error{format} when the range ends beyond the file's size.
  void read_at(uint64_t offset, std::span<std::byte> out) const;

 private:
  void require_range(uint64_t offset, uint64_t bytes) const;

  std::filesystem::path path_;
  int fd_;
  uint64_t size_;
};

/// The whole file as text. @param room  bytes of memory that the string has beyond it
/// @throws Error{format} when it is larger than max_bytes.
std::string read_text_file(const std::filesystem::path& path, uint64_t max_bytes, size_t room = 0);

/// Checks that a file name found inside a file is one plain component (no slash, "..", NUL or leading dot-dot).
/// `where` names the file and field for the message. @throws Error{format}
void require_plain_name(const std::string& name, const std::string& where);

}  // namespace nibble
