#include "core/buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <string>

#include "core/checked.h"
#include "core/error.h"

namespace nibble {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMapFrom = size_t{4} << 20;

[[noreturn]] void out_of_memory(size_t bytes) {
  fail(ErrorCode::resources, "out of memory: " + std::to_string(bytes) + " bytes cannot be allocated");
}

}  // namespace

std::shared_ptr<Buffer> Buffer::allocate(size_t bytes) {
  if (bytes < kMapFrom) {
    void* memory = ::operator new(bytes, std::align_val_t{kAlignment}, std::nothrow);
    if (memory == nullptr) out_of_memory(bytes);
    std::memset(memory, 0, bytes);
    return std::shared_ptr<Buffer>(new Buffer(static_cast<std::byte*>(memory), bytes, nullptr, 0));
  }
  const size_t wanted = checked_add(bytes, kHugePage, "allocation");
  void* mapping = mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) out_of_memory(bytes);
  const uintptr_t start = (reinterpret_cast<uintptr_t>(mapping) + kHugePage - 1) / kHugePage * kHugePage;
  madvise(reinterpret_cast<void*>(start), bytes, MADV_HUGEPAGE);  // a wish: without it everything still works
  return std::shared_ptr<Buffer>(new Buffer(reinterpret_cast<std::byte*>(start), bytes, mapping, wanted));
}

Buffer::~Buffer() {
  if (mapping_ != nullptr) {
    munmap(mapping_, mapped_bytes_);
  } else {
    ::operator delete(data_, std::align_val_t{kAlignment});
  }
}

}  // namespace nibble
