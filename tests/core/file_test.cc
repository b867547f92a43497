#include "core/file.h"

#include <sys/stat.h>

#include <vector>

#include "core/error.h"
#include "support/files.h"

namespace nibble {
namespace {

TEST(File, ReadsByPosition) {
  const test::TempFolder folder;
  const File file(folder.write("a", "0123456789"));
  std::vector<std::byte> bytes(3);
  file.read_at(7, bytes);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), 3), "789");
  EXPECT_EQ(file.size(), 10u);
  file.read_at(10, {});
}

TEST(File, ReadingPastTheEndIsAFormatError) {
  const test::TempFolder folder;
  const File file(folder.write("a", "0123456789"));
  std::vector<std::byte> bytes(3);
  test::expect_error(ErrorCode::format, "ends early", [&] { file.read_at(8, bytes); });
  test::expect_error(ErrorCode::format, "ends early", [&] { file.read_at(UINT64_MAX - 1, bytes); });
}

TEST(File, ThatShrinksIsACleanError) {
  const test::TempFolder folder;
  const auto path = folder.write("a", std::string(100, 'x'));
  const File file(path);
  std::filesystem::resize_file(path, 50);
  std::vector<std::byte> bytes(100);
  test::expect_error(ErrorCode::format, "became shorter", [&] { file.read_at(0, bytes); });
}

TEST(File, OpensRegularFilesOnly) {
  const test::TempFolder folder;
  test::expect_error(ErrorCode::io, "cannot be opened", [&] { File(folder / "missing"); });
  test::expect_error(ErrorCode::io, "not a regular file", [&] { File(folder.path()); });
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  test::expect_error(ErrorCode::io, "not a regular file", [&] { File(folder / "pipe"); });
  std::filesystem::create_symlink(folder.write("target", "x"), folder / "link");
  EXPECT_EQ(File(folder / "link").size(), 1u);
}

TEST(File, TextIsLimitedInSize) {
  const test::TempFolder folder;
  const auto path = folder.write("a", "text");
  EXPECT_EQ(read_text_file(path, 4), "text");
  test::expect_error(ErrorCode::format, "at most 3", [&] { read_text_file(path, 3); });
}

TEST(File, PlainNamesHaveOneComponent) {
  for (const char* good : {"model.safetensors", "a b", "..x"}) require_plain_name(good, "index");
  for (const std::string& bad :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("/etc/passwd"),
        std::string("a\\b"), std::string("a\0b", 3), std::string(256, 'x')}) {
    test::expect_error(ErrorCode::format, "index: '", [&] { require_plain_name(bad, "index"); });
  }
}

}  // namespace
}  // namespace nibble
