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
constexpr size_t kMapped = size_t{128} << 10;        // from here on a block has a mapping of its own
constexpr size_t kSharedMapping = size_t{64} << 20;  // of lasting blocks; memory is taken where it is touched
constexpr size_t kShareFrom = size_t{16} << 10;

[[noreturn]] void out_of_memory(size_t bytes) {
  fail(ErrorCode::resources, "out of memory: " + std::to_string(bytes) + " bytes cannot be allocated");
}

/// Mappings of memory: those in use are counted, those that were freed are kept for the next allocation of the same
/// size. The operations of a layer ask for the same sizes again and again, and fresh memory costs a fault per page. All
/// this apart from the heap, where long-lived results between short-lived ones would leave holes: training took a fifth
/// more memory.
class Mappings {
 public:
  struct Mapping {
    void* start;
    bool is_fresh;  // zeros
  };

  /// Parts of shared mappings are in use like others, but are not kept.
  void count_part(size_t bytes) {
    const std::lock_guard lock(mutex_);
    use(bytes);
  }
  void uncount_part(size_t bytes) noexcept {
    const std::lock_guard lock(mutex_);
    used_ -= bytes;
  }

  /// For parts: null when the system has no more memory, even with all that was kept.
  void* map_uncounted(size_t bytes) {
    const std::lock_guard lock(mutex_);
    return map(bytes);
  }

  /// start: null as above.
  Mapping take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(spare_.rbegin(), spare_.rend(), [&](const Spare& s) { return s.bytes == bytes; });
    Mapping mapping = {nullptr, found == spare_.rend()};
    if (mapping.is_fresh) {
      mapping.start = map(bytes);
    } else {
      mapping.start = found->start;
      spare_bytes_ -= found->kept;
      spare_.erase(std::next(found).base());
    }
    if (mapping.start != nullptr) use(bytes);
    return mapping;
  }

  void give(void* start, size_t bytes) noexcept {
    const std::lock_guard lock(mutex_);
    used_ -= bytes;
    try {
      spare_.push_back({start, bytes, bytes});
    } catch (const std::bad_alloc&) {
      munmap(start, bytes);
      return;
    }
    spare_bytes_ += bytes;
    shrink(limit());
  }

  void release() {
    const std::lock_guard lock(mutex_);
    most_used_ = used_;
    shrink(most_used_);
  }

  static Mappings& instance() {
    static auto* mappings = new Mappings;  // outlives buffers of static duration
    return *mappings;
  }

 private:
  struct Spare {
    void* start;
    size_t bytes, kept;  // kept: of its memory, from the start on
  };

  void* map(size_t bytes) {
    for (int attempt = 0; attempt < 2; ++attempt) {
      void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (start != MAP_FAILED) return start;
      shrink(0);
    }
    return nullptr;
  }

  void use(size_t bytes) {
    used_ += bytes;
    most_used_ = std::max(most_used_, used_);
    shrink(limit());
  }

  /// Without the share on top, a layer whose steps need blocks of several sizes, each at its time, would get fresh
  /// memory for one of them in every layer.
  size_t limit() const { return most_used_ + most_used_ / Buffer::kSpareShare; }

  /// What has waited longest goes back to the system, until no more than `most` is used and kept: of a large block only
  /// as much as it takes, or the logits of a training step would be fresh memory for a few gradients' sake.
  void shrink(size_t most) {
    while (!spare_.empty() && used_ + spare_bytes_ > most) {
      Spare& oldest = spare_.front();
      const auto start = reinterpret_cast<uintptr_t>(oldest.start);
      const size_t excess = used_ + spare_bytes_ - most, kept = oldest.kept < excess ? 0 : oldest.kept - excess;
      const uintptr_t from = (start + kept) / kHugePage * kHugePage;
      if (from <= start) {
        munmap(oldest.start, oldest.bytes);
        spare_bytes_ -= oldest.kept;
        spare_.pop_front();
      } else {
        madvise(reinterpret_cast<void*>(from), start + oldest.kept - from, MADV_DONTNEED);
        spare_bytes_ -= start + oldest.kept - from;
        oldest.kept = from - start;
      }
    }
  }

  std::mutex mutex_;
  std::deque<Spare> spare_;  // oldest first
  size_t used_ = 0, most_used_ = 0, spare_bytes_ = 0;
};

thread_local bool thread_ends = false;  // buffers of static duration outlive what follows

/// Small blocks that this thread has freed, for the next of the same size: a step of decoding asks for hundreds, always
/// the same, and the heap has no quick way to aligned ones.
class SmallBlocks {
 public:
  /// null: there is none
  void* take(size_t bytes) noexcept {
    if (thread_ends) return nullptr;
    for (size_t i = count_; i-- > 0;) {
      if (blocks_[i].bytes != bytes) continue;
      void* start = blocks_[i].start;
      blocks_[i] = blocks_[--count_];
      return start;
    }
    return nullptr;
  }

  void give(void* start, size_t bytes) noexcept {
    if (thread_ends || bytes > kLargest || count_ == kMost) return free(start);
    blocks_[count_++] = {start, bytes};
  }

  ~SmallBlocks() {
    while (count_ > 0) free(blocks_[--count_].start);
    thread_ends = true;
  }

  static SmallBlocks& instance() {
    static thread_local SmallBlocks blocks;
    return blocks;
  }

 private:
  static constexpr size_t kMost = 32, kLargest = size_t{64} << 10;
  struct Block {
    void* start;
    size_t bytes;
  };

  static void free(void* start) noexcept { ::operator delete (start, std::align_val_t{kAlignment}); }

  Block blocks_[kMost];
  size_t count_ = 0;
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

/// Gives the pages back that lie in a block alone.
void release_pages_within(std::byte* data, size_t bytes) noexcept {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace

std::shared_ptr<Buffer> Buffer::allocate(size_t bytes, bool zeroed) {
  if (bytes < kMapped) {
    void* memory = SmallBlocks::instance().take(bytes);
    if (memory == nullptr) memory = ::operator new (bytes, std::align_val_t{kAlignment}, std::nothrow);
    if (memory == nullptr) out_of_memory(bytes);
    if (zeroed) std::memset(memory, 0, bytes);
    return std::shared_ptr<Buffer>(new Buffer({.data = static_cast<std::byte*>(memory), .size = bytes}));
  }
  const size_t alignment = bytes < kLarge ? 1 : kHugePage;  // beyond that of pages
  const size_t wanted = checked_add(bytes, alignment - 1, "allocation");
  const Mappings::Mapping mapping = Mappings::instance().take(wanted);
  if (mapping.start == nullptr) out_of_memory(bytes);
  const uintptr_t address = (reinterpret_cast<uintptr_t>(mapping.start) + alignment - 1) / alignment * alignment;
  auto* start = reinterpret_cast<std::byte*>(address);
  if (mapping.is_fresh) {
    if (bytes >= kLarge) madvise(start, bytes, MADV_HUGEPAGE);  // a wish: without it everything still works
  } else if (zeroed) {
    std::memset(start, 0, bytes);
  }
  return std::shared_ptr<Buffer>(
      new Buffer({.data = start, .size = bytes, .mapping = mapping.start, .mapped_bytes = wanted}));
}

std::shared_ptr<Buffer> Buffer::allocate_scratch(size_t bytes) {
  if (bytes < kMapped) return allocate(bytes, false);
  return allocate(checked_add(bytes, kHugePage - 1, "allocation") / kHugePage * kHugePage, false);
}

std::shared_ptr<Buffer> Buffer::map_shared() {
  constexpr size_t kBytes = kSharedMapping + kHugePage - 1;
  void* mapping = Mappings::instance().map_uncounted(kBytes);
  if (mapping == nullptr) out_of_memory(kSharedMapping);
  auto* start =
      reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(mapping) + kHugePage - 1) / kHugePage * kHugePage);
  madvise(start, kSharedMapping, MADV_HUGEPAGE);  // a wish: without it everything still works
  return std::shared_ptr<Buffer>(new Buffer(
      {.data = start, .size = kSharedMapping, .mapping = mapping, .mapped_bytes = kBytes, .is_shared = true}));
}

std::shared_ptr<Buffer> Buffer::allocate_lasting(size_t bytes) {
  if (bytes < kShareFrom || bytes > kShareTo) return allocate(bytes);
  static std::mutex mutex;
  static std::weak_ptr<Buffer> last;  // its parts keep it
  static size_t taken = 0;
  const std::lock_guard lock(mutex);
  std::shared_ptr<Buffer> shared = last.lock();
  if (!shared || shared->size() - taken < bytes) {
    shared = map_shared();
    last = shared;
    taken = 0;
  }
  std::byte* data = shared->data() + taken;
  taken += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  std::shared_ptr<Buffer> part(new Buffer({.data = data, .size = bytes, .within = std::move(shared)}));
  Mappings::instance().count_part(bytes);
  return part;
}

void Buffer::release_spare() { Mappings::instance().release(); }

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
  return std::shared_ptr<Buffer>(new Buffer({.data = static_cast<std::byte*>(mapping) + lead,
                                             .size = bytes,
                                             .mapping = mapping,
                                             .mapped_bytes = length,
                                             .is_file = true}));
}

const char* mapped_file_at(const void* address) noexcept {
  const auto at = reinterpret_cast<uintptr_t>(address);
  for (const MappedRange& row : mapped_ranges) {
    if (row.begin <= at && at < row.end) return row.path;
  }
  return nullptr;
}

Buffer::~Buffer() {
  if (memory_.is_file || memory_.is_shared) {
    munmap(memory_.mapping, memory_.mapped_bytes);
  } else if (memory_.within) {
    release_pages_within(memory_.data, memory_.size);
    Mappings::instance().uncount_part(memory_.size);
  } else if (memory_.mapping != nullptr) {
    Mappings::instance().give(memory_.mapping, memory_.mapped_bytes);
  } else {
    SmallBlocks::instance().give(memory_.data, memory_.size);
  }
}

}  // namespace nibble
