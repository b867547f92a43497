#include "core/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/parallel.h"

namespace nibble {
namespace {

constexpr size_t kMapFrom = size_t{64} << 10;   // below, a mapping costs more than it saves
constexpr size_t kReadPiece = size_t{1} << 30;  // Linux transfers at most 2 GiB per call
constexpr int64_t kSharedPiece = int64_t{128} << 10;

}  // namespace

File::File(std::filesystem::path path) : path_(std::move(path)), fd_(-1), size_(0) {
  fd_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) fail(ErrorCode::io, name() + ": cannot be opened: " + std::strerror(errno));
  struct stat info = {};
  if (fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd_);
    fail(ErrorCode::io, name() + ": is not a regular file");
  }
  size_ = static_cast<uint64_t>(info.st_size);
}

File::~File() {
  if (fd_ >= 0) close(fd_);
}

File::File(File&& other) noexcept : path_(std::move(other.path_)), fd_(other.fd_), size_(other.size_) {
  other.fd_ = -1;
}

void File::require_range(uint64_t offset, uint64_t bytes) const {
  if (offset <= size_ && bytes <= size_ - offset) return;
  fail(ErrorCode::format, name() + ": ends early: bytes " + std::to_string(offset) + " to " +
                              std::to_string(offset + bytes) + " wanted, the file has " + std::to_string(size_) +
                              "; download it again?");
}

void File::read_at(uint64_t offset, std::span<std::byte> out) const {
  require_range(offset, out.size());
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got =
        pread(fd_, out.data() + done, std::min(out.size() - done, kReadPiece), static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(ErrorCode::io, name() + ": cannot be read: " + std::strerror(errno));
    if (got == 0) fail(ErrorCode::format, name() + ": became shorter while it was read");
    done += static_cast<size_t>(got);
  }
}

std::shared_ptr<Buffer> File::buffer(uint64_t offset, size_t bytes, Residency residency) const {
  require_range(offset, bytes);
  if (residency == Residency::mapped && bytes >= kMapFrom) return Buffer::map(fd_, offset, bytes, name());
  std::shared_ptr<Buffer> memory =
      residency == Residency::lasting ? Buffer::allocate_lasting(bytes) : Buffer::allocate_uninitialized(bytes);
  // Copying from the page cache, and the faults of fresh memory, take processor time that threads can share.
  parallel_for(static_cast<int64_t>(bytes), kSharedPiece, [&](int64_t begin, int64_t end) {
    read_at(offset + static_cast<uint64_t>(begin),
            memory->span().subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)));
  });
  return memory;
}

std::string read_text_file(const std::filesystem::path& path, uint64_t max_bytes, size_t room) {
  const File file(path);
  if (file.size() > max_bytes) {
    fail(ErrorCode::format,
         file.name() + ": " + std::to_string(file.size()) + " bytes, expected at most " + std::to_string(max_bytes));
  }
  std::string text;
  text.reserve(file.size() + room);
  text.resize(file.size());
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

void require_plain_name(const std::string& name, const std::string& where) {
  const bool bad = name.empty() || name == "." || name == ".." || name.size() > 255 ||
                   name.find_first_of(std::string("/\\\0", 3)) != std::string::npos;
  if (bad) fail(ErrorCode::format, where + ": '" + printable(name, 200) + "' is not a plain file name");
}

}  // namespace nibble
