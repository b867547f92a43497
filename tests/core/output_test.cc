#include "core/output.h"

#include "core/error.h"
#include "support/files.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

bool folder_is_empty(const fs::path& path) { return fs::directory_iterator(path) == fs::directory_iterator(); }

TEST(OutputFolder, AppearsOnlyWhenCommitted) {
  const test::TempFolder folder;
  OutputFolder out(folder / "model", Overwrite::no);
  out.write_text("config.json", "{}");
  out.copy(folder.write("source", std::string(5'000'000, 'x')), "copy");
  EXPECT_FALSE(fs::exists(folder / "model"));
  out.commit();
  EXPECT_EQ(test::read_file(folder / "model/config.json"), "{}");
  EXPECT_EQ(test::read_file(folder / "model/copy"), std::string(5'000'000, 'x'));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder / "model"), {}), 2);
  EXPECT_FALSE(fs::exists(folder / ".model.nibble-tmp"));
}

TEST(OutputFolder, CopiesIntoSubFolders) {
  const test::TempFolder folder;
  OutputFolder out(folder / "model", Overwrite::no);
  out.copy(folder.write("source", "{}"), "1_Pooling/config.json");
  out.copy(folder / "source", "1_Pooling/deeper/config.json");
  out.commit();
  EXPECT_EQ(test::read_file(folder / "model/1_Pooling/config.json"), "{}");
  EXPECT_EQ(test::read_file(folder / "model/1_Pooling/deeper/config.json"), "{}");
  OutputFolder blocked(folder / "other", Overwrite::no);
  blocked.write_text("1_Pooling", "a file");
  test::expect_error(ErrorCode::internal, "1_Pooling: cannot be created",
                     [&] { blocked.copy(folder / "source", "1_Pooling/config.json"); });
}

TEST(OutputFolder, LeavesNothingWithoutCommit) {
  const test::TempFolder folder;
  { OutputFolder(folder / "model", Overwrite::no).write_text("a", "x"); }
  EXPECT_TRUE(folder_is_empty(folder.path()));
}

TEST(OutputFolder, DoesNotReplaceUnasked) {
  const test::TempFolder folder;
  folder.write("model/old", "old");
  test::expect_error(ErrorCode::exists, "exists already", [&] { OutputFolder(folder / "model", Overwrite::no); });
  EXPECT_EQ(test::read_file(folder / "model/old"), "old");
}

TEST(OutputFolder, ReplacesAsAWholeAndOnlyAtTheEnd) {
  const test::TempFolder folder;
  folder.write("model/old", "old");
  { OutputFolder(folder / "model", Overwrite::yes).write_text("new", "new"); }
  EXPECT_EQ(test::read_file(folder / "model/old"), "old");
  OutputFolder out(folder / "model/", Overwrite::yes);
  out.write_text("new", "new");
  out.commit();
  EXPECT_EQ(test::read_file(folder / "model/new"), "new");
  EXPECT_FALSE(fs::exists(folder / "model/old"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(OutputFolder, IsNotReplacedWhenItAppearedMeanwhile) {
  const test::TempFolder folder;
  OutputFolder out(folder / "model", Overwrite::no);
  folder.write("model/other", "x");
  test::expect_error(ErrorCode::exists, "meanwhile", [&] { out.commit(); });
  EXPECT_EQ(test::read_file(folder / "model/other"), "x");
}

TEST(OutputFolder, IsLockedWhileItIsWritten) {
  const test::TempFolder folder;
  OutputFolder out(folder / "model", Overwrite::no);
  test::expect_error(ErrorCode::exists, "another process", [&] { OutputFolder(folder / "model", Overwrite::no); });
  out.write_text("a", "x");
  EXPECT_TRUE(fs::exists(out.file("a")));
}

// A second process must not take what the first is about to rename for the remains of a crash.
TEST(OutputFolder, IsLockedUntilItHasItsName) {
  const test::TempFolder folder;
  for (const Overwrite overwrite : {Overwrite::no, Overwrite::yes}) {
    OutputFolder out(folder / "model", overwrite);
    EXPECT_FALSE(fs::exists(out.file(".lock"))) << "a lock in the folder that is renamed";
    EXPECT_TRUE(fs::exists(folder / ".model.nibble-lock"));
    out.commit();
    EXPECT_FALSE(fs::exists(folder / ".model.nibble-lock"));
  }
  EXPECT_NO_THROW(OutputFolder(folder / "model", Overwrite::yes));
}

TEST(OutputFolder, StartsEmptyAfterACrash) {
  const test::TempFolder folder;
  folder.write(".model.nibble-tmp/half-written", "x");
  OutputFolder out(folder / "model", Overwrite::no);
  out.write_text("a", "x");
  out.commit();
  EXPECT_FALSE(fs::exists(folder / "model/half-written"));
}

TEST(OutputFolder, CreatesParentsAndRefusesNamelessPaths) {
  const test::TempFolder folder;
  OutputFolder out(folder / "deep/er/model", Overwrite::no);
  out.commit();
  EXPECT_TRUE(fs::is_directory(folder / "deep/er/model"));
  for (const char* bad : {"", ".", "..", "/"}) {
    test::expect_error(ErrorCode::invalid_argument, "does not name a folder",
                       [&] { OutputFolder(bad, Overwrite::no); });
  }
}

TEST(OutputFolder, AsksForSpaceBeforehand) {
  const test::TempFolder folder;
  const OutputFolder out(folder / "model", Overwrite::no);
  out.require_space(1);
  test::expect_error(ErrorCode::resources, "left", [&] { out.require_space(uint64_t{1} << 60); });
}

TEST(OutputFile, WritesInOrderAndByPosition) {
  const test::TempFolder folder;
  OutputFile out(folder / "a");
  out.write("hello");
  out.write(" world");
  out.write_at(0, std::as_bytes(std::span("J", 1)));
  EXPECT_EQ(out.written(), 11u);
  out.close();
  EXPECT_EQ(test::read_file(folder / "a"), "Jello world");
}

TEST(OutputFile, FailuresNameThePath) {
  const test::TempFolder folder;
  test::expect_error(ErrorCode::internal, "missing/a", [&] { OutputFile(folder / "missing/a"); });
  OutputFile full("/dev/full");
  test::expect_error(ErrorCode::resources, "/dev/full", [&] { full.write("x"); });
}

TEST(AtomicFile, ReplacesAFileOrLeavesIt) {
  const test::TempFolder folder;
  const auto path = folder.write("a", "old");
  write_file_atomically(path, std::as_bytes(std::span("new", 3)));
  EXPECT_EQ(test::read_file(path), "new");
  fs::create_directory(folder / "b");
  EXPECT_THROW(write_file_atomically(folder / "b", {}), Error);
  EXPECT_TRUE(fs::is_directory(folder / "b"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 2);
}

TEST(AtomicFile, KeepsLinksAndDevices) {
  const test::TempFolder folder;
  const auto target = folder.write("target", "old"), link = folder / "link", broken = folder / "broken";
  fs::create_symlink("target", link);
  write_file_atomically(link, std::as_bytes(std::span("new", 3)));
  EXPECT_EQ(test::read_file(target), "new");
  EXPECT_TRUE(fs::is_symlink(link));
  fs::create_symlink("nowhere", broken);
  write_file_atomically(broken, std::as_bytes(std::span("new", 3)));
  EXPECT_EQ(test::read_file(broken), "new");
  test::expect_error(ErrorCode::resources, "/dev/full",
                     [] { write_file_atomically("/dev/full", std::as_bytes(std::span("new", 3))); });
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
}

}  // namespace
}  // namespace nibble
