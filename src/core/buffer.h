#pragma once
// A block of memory that tensors share.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

namespace nibble {

/// Where the bytes of a tensor are to be: in memory, in memory that stays (Buffer::allocate_lasting), or left in the
/// file and read when touched.
enum class Residency { memory, lasting, mapped };

class Buffer {
 public:
  static constexpr size_t kLarge = size_t{1} << 20;     // from here on a block lies in huge pages
  static constexpr size_t kShareTo = size_t{32} << 20;  // lasting blocks up to here share mappings
  static constexpr size_t kSpareShare = 32;             // a part in so many is kept beyond the most that was in use

  /// Zero-filled memory aligned to 64 bytes; from kLarge up aligned for huge pages (4 KiB pages cost 20 to 46 % of the
  /// read bandwidth of a large matrix). Blocks beyond the smallest that were freed are kept for the next calls, as long
  /// as all of them together with those in use stay below the most that was ever in use and a 32nd of it.
  /// @throws Error{resources} when the system has no more memory.
  static std::shared_ptr<Buffer> allocate(size_t bytes) { return allocate(bytes, true); }
  /// The same, but what it holds is not defined.
  static std::shared_ptr<Buffer> allocate_uninitialized(size_t bytes) { return allocate(bytes, false); }
  /// Memory that a call works in, with what it holds not defined: from 128 KiB up whole huge pages. In small pages the
  /// addresses of a block meet in some sets of the second-level cache and leave others empty, which costs up to a third
  /// of the speed of what works there.
  static std::shared_ptr<Buffer> allocate_scratch(size_t bytes);
  /// Zero-filled memory for what stays, such as weights: blocks share a mapping with their neighbours, so that all of
  /// them lies in huge pages, however little of one their ends fill. A block that is freed gives its memory back, its
  /// place only with the last of the mapping.
  static std::shared_ptr<Buffer> allocate_lasting(size_t bytes);
  /// Gives the kept blocks back to the system.
  static void release_spare();

  /// Bytes of a file, read when they are touched. The memory must not be written.
  /// @throws Error{resources} when the system cannot map it.
  static std::shared_ptr<Buffer> map(int fd, uint64_t offset, size_t bytes, const std::string& path);

  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  std::byte* data() { return memory_.data; }
  const std::byte* data() const { return memory_.data; }
  size_t size() const { return memory_.size; }
  bool is_mapped_file() const { return memory_.is_file; }
  /// Whether it lies beside other lasting blocks.
  bool shares_mapping() const { return memory_.within != nullptr; }
  std::span<std::byte> span() { return {memory_.data, memory_.size}; }

 private:
  struct Memory {
    std::byte* data = nullptr;
    size_t size = 0;
    void* mapping = nullptr;  // null: of the heap, or within another buffer
    size_t mapped_bytes = 0;
    bool is_file = false;
    bool is_shared = false;                    // a mapping that lasting blocks are parts of
    std::shared_ptr<Buffer> within = nullptr;  // whose memory this is a part of
  };

  static std::shared_ptr<Buffer> allocate(size_t bytes, bool zeroed);
  static std::shared_ptr<Buffer> map_shared();

  explicit Buffer(Memory memory) : memory_(std::move(memory)) {}

  Memory memory_;
};

/// The path of the mapped file that an address lies in, or null. Async-signal-safe: for the handler of SIGBUS, which is
/// what reading a mapped file that became shorter ends in.
const char* mapped_file_at(const void* address) noexcept;

}  // namespace nibble
