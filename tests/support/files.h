#pragma once
// What tests with files share: a folder that disappears, the folder of reference results, and expected errors.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

#include "core/error.h"

namespace nibble::test {

class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "nibble-test-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

  std::filesystem::path write(const std::string& name, const std::string& bytes) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

/// A regular file in memory, for tests that open thousands of them.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("nibble-test", 0)) {}
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(fd_); }
  void set(std::string_view bytes) const {
    const bool good =
        ftruncate(fd_, 0) == 0 && pwrite(fd_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size());
    if (!good) throw std::runtime_error("memory file cannot be written");
  }

 private:
  int fd_;
};

inline std::string read_file(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

/// The folder of reference results: $NIBBLE_SHARED, or "shared" beside the source tree.
inline std::filesystem::path shared_folder() {
  const char* value = std::getenv("NIBBLE_SHARED");
  return value != nullptr ? std::filesystem::path(value) : std::filesystem::path(NIBBLE_SOURCE_DIR) / ".." / "shared";
}

/// Expects an Error of this code whose message holds `fragment`.
template <class Action>
void expect_error(ErrorCode code, const std::string& fragment, Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error_code_name(error.code()), error_code_name(code)) << error.what();
    EXPECT_NE(std::string(error.what()).find(fragment), std::string::npos)
        << "message: " << error.what() << "\nexpected in it: " << fragment;
    return;
  }
  ADD_FAILURE() << "no error; expected one with: " << fragment;
}

}  // namespace nibble::test

/// Skips the test when the folder of reference results does not hold `relative`.
#define NIBBLE_NEED_SHARED(relative)                                                                       \
  if (!std::filesystem::exists(nibble::test::shared_folder() / (relative))) {                              \
    GTEST_SKIP() << "reference results " << (relative) << " are not in " << nibble::test::shared_folder(); \
  }                                                                                                        \
  static_assert(true)
