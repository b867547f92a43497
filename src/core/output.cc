#include "core/output.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/file.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr size_t kCopyPiece = size_t{4} << 20;

[[noreturn]] void fail_errno(const fs::path& path, const std::string& what, int error) {
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG || error == ENOMEM;
  fail(full ? ErrorCode::resources : ErrorCode::internal, path.string() + ": " + what + ": " + std::strerror(error));
}

void sync_folder(const fs::path& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_errno(path, "cannot be opened to sync", errno);
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  if (result != 0 && error != EINVAL) fail_errno(path, "cannot be synced", error);
}

void sync_folders(const fs::path& path) {
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    if (entry.is_directory()) sync_folder(entry.path());
  }
  sync_folder(path);
}

fs::path parent_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

/// `path` without trailing slashes, so that its last component is its name.
fs::path trimmed(const fs::path& path) {
  fs::path p = path.lexically_normal();
  if (!p.has_filename()) p = p.parent_path();
  if (!p.has_filename() || p.filename() == "." || p.filename() == "..") {
    fail(ErrorCode::invalid_argument, "output '" + path.string() + "' does not name a folder to create");
  }
  return p;
}

bool is_there(const fs::path& path) { return fs::symlink_status(path).type() != fs::file_type::not_found; }

fs::path hidden_beside(const fs::path& path, const char* ending) {
  return parent_of(path) / ("." + path.filename().string() + ending);
}

bool is_file_at(int fd, const fs::path& path) {
  struct stat open_file = {}, named = {};
  return fstat(fd, &open_file) == 0 && stat(path.c_str(), &named) == 0 && open_file.st_ino == named.st_ino &&
         open_file.st_dev == named.st_dev;
}

}  // namespace

OutputFile::OutputFile(fs::path path)
    : path_(std::move(path)), fd_(open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
  if (fd_ < 0) fail_errno(path_, "cannot be created", errno);
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

void OutputFile::write(std::span<const std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = ::write(fd_, bytes.data() + done, std::min(bytes.size() - done, size_t{1} << 30));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_errno(path_, "cannot be written", errno);
    done += static_cast<size_t>(put);
  }
  written_ += bytes.size();
}

void OutputFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = ::pwrite(fd_, bytes.data() + done, std::min(bytes.size() - done, size_t{1} << 30),
                                 static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_errno(path_, "cannot be written", errno);
    done += static_cast<size_t>(put);
  }
}

void OutputFile::close() {
  const int fd = std::exchange(fd_, -1);
  const bool synced = fsync(fd) == 0 || errno == EINVAL;
  const int sync_error = errno;
  const bool closed = ::close(fd) == 0;
  if (!synced) fail_errno(path_, "cannot be synced", sync_error);
  if (!closed) fail_errno(path_, "cannot be closed", errno);
}

/// The right to write an output. The file is beside the staging folder, not in it: it has to last until the folder has
/// its final name and the old output is gone, or another process would clean up what is being renamed.
class OutputFolder::Lock {
 public:
  explicit Lock(fs::path path) : path_(std::move(path)) {
    while (true) {
      fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
      if (fd_ < 0) fail_errno(path_, "cannot be created", errno);
      if (flock(fd_, LOCK_EX | LOCK_NB) != 0) refuse();
      if (is_file_at(fd_, path_)) break;
      close(fd_);  // its holder finished and removed it between the two calls
    }
    const std::string pid = std::to_string(getpid()) + "\n";
    if (ftruncate(fd_, 0) != 0 || pwrite(fd_, pid.data(), pid.size(), 0) < 0) { /* only for the other's message */
    }
  }
  ~Lock() {
    unlink(path_.c_str());
    close(fd_);
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  [[noreturn]] void refuse() const {
    std::array<char, 32> pid = {};
    const ssize_t got = pread(fd_, pid.data(), pid.size() - 1, 0);
    close(fd_);
    std::string holder(pid.data(), static_cast<size_t>(std::max<ssize_t>(got, 0)));
    while (!holder.empty() && holder.back() == '\n') holder.pop_back();
    fail(ErrorCode::exists, path_.string() + ": the output is being written by another process (" + holder + ")");
  }

  fs::path path_;
  int fd_ = -1;
};

OutputFolder::OutputFolder(const fs::path& path, Overwrite overwrite) : path_(trimmed(path)), overwrite_(overwrite) {
  const auto refuse_existing = [&] {
    if (overwrite_ == Overwrite::yes || !is_there(path_)) return;
    fail(ErrorCode::exists, path_.string() + ": exists already; choose another --out or give --overwrite");
  };
  refuse_existing();
  staging_ = hidden_beside(path_, ".nibble-tmp");
  std::error_code error;
  fs::create_directories(parent_of(path_), error);
  lock_ = std::make_unique<Lock>(hidden_beside(path_, ".nibble-lock"));
  refuse_existing();  // another process may have finished it just now
  fs::remove_all(staging_, error);
  if (!error) fs::create_directory(staging_, error);
  if (error) fail_errno(staging_, "cannot be created", error.value());
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(staging_, ignored);
}

void OutputFolder::write_text(const std::string& name, std::string_view text) {
  OutputFile out(file(name));
  out.write(text);
  out.close();
}

void OutputFolder::copy(const fs::path& from, const std::string& name) {
  const File in(from);
  std::error_code error;
  fs::create_directories(file(name).parent_path(), error);
  if (error) fail_errno(file(name).parent_path(), "cannot be created", error.value());
  OutputFile out(file(name));
  std::vector<std::byte> piece(std::min<uint64_t>(kCopyPiece, in.size()));
  for (uint64_t offset = 0; offset < in.size(); offset += piece.size()) {
    const std::span<std::byte> part(piece.data(), std::min<uint64_t>(piece.size(), in.size() - offset));
    in.read_at(offset, part);
    out.write(part);
  }
  out.close();
}

void OutputFolder::require_space(uint64_t bytes) const {
  std::error_code error;
  const fs::space_info info = fs::space(staging_, error);
  if (!error && info.available < bytes) {
    fail(ErrorCode::resources, path_.string() + ": needs " + std::to_string(bytes) + " bytes, the disk has " +
                                   std::to_string(info.available) + " left");
  }
}

void OutputFolder::commit() {
  sync_folders(staging_);
  if (is_there(path_)) {
    if (overwrite_ == Overwrite::no) fail(ErrorCode::exists, path_.string() + ": was created meanwhile");
    // Swap the two names in one step, so that at every moment one complete output has the final name.
    if (renameat2(AT_FDCWD, staging_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) != 0) {
      fail_errno(path_, "cannot be replaced", errno);
    }
    fs::remove_all(staging_);
  } else if (rename(staging_.c_str(), path_.c_str()) != 0) {
    fail_errno(path_, "cannot be created", errno);
  }
  committed_ = true;
  sync_folder(parent_of(path_));
  lock_.reset();
}

fs::path final_path(const fs::path& path) {
  std::error_code broken;  // a link to nothing is replaced
  const fs::path target = fs::is_symlink(path) ? fs::canonical(path, broken) : path;
  return broken ? path : target;
}

fs::path staging_path(const fs::path& path) { return hidden_beside(path, ".nibble-tmp"); }

void publish_file(const fs::path& staging, const fs::path& path) {
  if (rename(staging.c_str(), path.c_str()) != 0) fail_errno(path, "cannot be created", errno);
  sync_folder(parent_of(path));
}

StagedFile::StagedFile(const fs::path& path)
    : in_place_(fs::exists(path) && !fs::is_regular_file(path)),
      path_(in_place_ ? path : final_path(path)),
      staging_(in_place_ ? path : staging_path(path_)),
      out_(staging_) {}

StagedFile::~StagedFile() {
  if (!in_place_ && !committed_) unlink(staging_.c_str());
}

void StagedFile::commit() {
  out_.close();
  if (!in_place_) publish_file(staging_, path_);
  committed_ = true;
}

void write_file_atomically(const fs::path& path, std::span<const std::byte> bytes) {
  StagedFile file(path);
  file.write(bytes);
  file.commit();
}

}  // namespace nibble
