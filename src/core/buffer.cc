#include "core/buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <deque>
#include <iterator>
#include <mutex>
#include <new>
#include <string>

#include "core/checked.h"
#include "core/error.h"

namespace nibble {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMapFrom = size_t{1} << 20;
constexpr size_t kSpareBytes = size_t{64} << 20;

/// Mappings that were freed a moment ago, for the next allocation of the same size: the operations of a layer ask for
/// the same sizes again and again, and fresh memory costs a fault per page. Kept apart from the heap, where long-lived
/// results between short-lived ones would leave holes (training took a fifth more memory).
class SpareMappings {
 public:
  /// Null when there is none of that size.
  void* take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(spare_.rbegin(), spare_.rend(), [&](const Spare& s) { return s.bytes == bytes; });
    if (found == spare_.rend()) return nullptr;
    void* mapping = found->mapping;
    spare_.erase(std::next(found).base());
    bytes_ -= bytes;
    return mapping;
  }

  /// Takes it over; what has waited longest goes back to the system when there is too much.
  void give(void* mapping, size_t bytes) {
    const std::lock_guard lock(mutex_);
    spare_.push_back({mapping, bytes});
    bytes_ += bytes;
    while (bytes_ > kSpareBytes) {
      munmap(spare_.front().mapping, spare_.front().bytes);
      bytes_ -= spare_.front().bytes;
      spare_.pop_front();
    }
  }

  static SpareMappings& instance() {
    static auto* spare = new SpareMappings;  // outlives buffers of static duration
    return *spare;
  }

 private:
  struct Spare {
    void* mapping;
    size_t bytes;
  };
  std::mutex mutex_;
  std::deque<Spare> spare_;  // oldest first
  size_t bytes_ = 0;
};

/// Mapped files, for mapped_file_at(). Rows are written once and never moved; a free row has no path.
struct MappedRange {
  std::atomic<uintptr_t> begin{0}, end{0};
  char path[256] = {};
};
constexpr size_t kMappedRanges = 64;  // one per file: ranges of the same file share a row
MappedRange mapped_ranges[kMappedRanges];
std::mutex mapped_ranges_mutex;

/// Widens the row of this file to hold the range. Rows are never given back: after an unmapping an address may be named
/// wrongly, but only in the message of a fault that happened anyway.
void remember_mapping(uintptr_t begin, uintptr_t end, const std::string& path) {
  const std::lock_guard lock(mapped_ranges_mutex);
  for (MappedRange& row : mapped_ranges) {
    if (row.path[0] == 0) std::strncpy(row.path, path.c_str(), sizeof row.path - 1);
    if (path.compare(0, sizeof row.path - 1, row.path) != 0) continue;
    row.begin = row.begin == 0 ? begin : std::min(row.begin.load(), begin);
    row.end = std::max(row.end.load(), end);
    return;
  }
}

[[noreturn]] void out_of_memory(size_t bytes) {
  fail(ErrorCode::resources, "out of memory: " + std::to_string(bytes) + " bytes cannot be allocated");
}

}  // namespace

std::shared_ptr<Buffer> Buffer::allocate(size_t bytes) {
  if (bytes < kMapFrom) {
    void* memory = ::operator new (bytes, std::align_val_t{kAlignment}, std::nothrow);
    if (memory == nullptr) out_of_memory(bytes);
    std::memset(memory, 0, bytes);
    return std::shared_ptr<Buffer>(new Buffer(static_cast<std::byte*>(memory), bytes, nullptr, 0));
  }
  const size_t wanted = checked_add(bytes, kHugePage, "allocation");
  void* mapping = SpareMappings::instance().take(wanted);
  const bool is_fresh = mapping == nullptr;
  if (is_fresh) mapping = mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) out_of_memory(bytes);
  const uintptr_t address = (reinterpret_cast<uintptr_t>(mapping) + kHugePage - 1) / kHugePage * kHugePage;
  auto* start = reinterpret_cast<std::byte*>(address);
  if (is_fresh) {
    madvise(start, bytes, MADV_HUGEPAGE);  // a wish: without it everything still works
  } else {
    std::memset(start, 0, bytes);
  }
  return std::shared_ptr<Buffer>(new Buffer(start, bytes, mapping, wanted));
}

std::shared_ptr<Buffer> Buffer::map(int fd, uint64_t offset, size_t bytes, const std::string& path) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t start = offset / page * page;
  const size_t lead = static_cast<size_t>(offset - start), length = bytes + lead;
  void* mapping = mmap(nullptr, length, PROT_READ, MAP_PRIVATE, fd, static_cast<off_t>(start));
  if (mapping == MAP_FAILED) {
    fail(ErrorCode::resources,
         path + ": " + std::to_string(bytes) + " bytes cannot be mapped: " + std::strerror(errno));
  }
  const auto address = reinterpret_cast<uintptr_t>(mapping);
  remember_mapping(address, address + length, path);
  std::shared_ptr<Buffer> buffer(new Buffer(static_cast<std::byte*>(mapping) + lead, bytes, mapping, length));
  buffer->is_file_ = true;
  return buffer;
}

const char* mapped_file_at(const void* address) noexcept {
  const auto at = reinterpret_cast<uintptr_t>(address);
  for (const MappedRange& row : mapped_ranges) {
    if (row.begin <= at && at < row.end) return row.path;
  }
  return nullptr;
}

Buffer::~Buffer() {
  if (is_file_) {
    munmap(mapping_, mapped_bytes_);
  } else if (mapping_ != nullptr) {
    SpareMappings::instance().give(mapping_, mapped_bytes_);
  } else {
    ::operator delete (data_, std::align_val_t{kAlignment});
  }
}

}  // namespace nibble
