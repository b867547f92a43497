// modules.json of sentence-transformers: what it names is found, and nothing outside the folder is.
#include "io/sentence_modules.h"

#include "support/files.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::TempFolder;

std::string naming(const std::string& path) { return R"([{"type": "x.Pooling", "path": ")" + path + "\"}]"; }

TEST(SentenceModules, ComeInOrderWithTheFilesOfTheirFolders) {
  const TempFolder folder;
  EXPECT_TRUE(read_sentence_modules(folder.path()).empty());
  folder.write("2_Dense/model.safetensors", "weights");
  folder.write("2_Dense/config.json", "{}");
  folder.write("2_Dense/deeper/file", "x");
  folder.write("other/config.json", "{}");
  folder.write("modules.json", R"([{"idx": 0, "path": "", "type": "a.Transformer"},
    {"idx": 1, "path": "2_Dense", "type": "a.Dense"}, {"idx": 2, "path": "3_Normalize", "type": "a.Normalize"}])");
  const std::vector<SentenceModule> modules = read_sentence_modules(folder.path());
  ASSERT_EQ(modules.size(), 3u);
  EXPECT_EQ(modules[0].type, "a.Transformer");
  EXPECT_TRUE(modules[0].files.empty());
  EXPECT_EQ(modules[1].path, "2_Dense");
  EXPECT_EQ(modules[1].files, (std::vector<std::string>{"2_Dense/config.json", "2_Dense/model.safetensors"}));
  EXPECT_EQ(modules[2].path, "3_Normalize");
  EXPECT_TRUE(modules[2].files.empty());
}

TEST(SentenceModules, BrokenFiles) {
  const std::vector<std::pair<std::string, std::string>> rows = {
      {"{}", "modules.json: found an object, expected an array"},
      {"[]", "modules.json: names no module"},
      {"[1]", "modules.json: module 0: has no type"},
      {R"([{"type": "x.Pooling"}])", "modules.json: module 0: has no path"},
      {R"([{"type": 1, "path": ""}])", "modules.json: module 0: type: found an integer, expected a string"},
      {R"([{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": ".."}])",
       "modules.json: module 1: path: '..' is not a plain file name"},
      {naming("../outside"), "path: '../outside' is not a plain file name"},
      {naming("/etc"), "path: '/etc' is not a plain file name"},
      {naming("."), "path: '.' is not a plain file name"},
      {naming("a/../../outside"), "is not a plain file name"},
      {naming("a\\u0000"), "is not a plain file name"}};
  for (const auto& [text, fragment] : rows) {
    SCOPED_TRACE(text);
    const TempFolder folder;
    folder.write("outside/config.json", "{}");
    folder.write("model/modules.json", text);
    expect_error(ErrorCode::format, fragment, [&] { read_sentence_modules(folder / "model"); });
  }
}

TEST(SentenceModules, LinksStayInsideTheFolder) {
  const TempFolder folder;
  const fs::path model = folder / "model";
  folder.write("secret/config.json", "{}");
  folder.write("model2/config.json", "{}");  // begins like the folder, but is not it
  folder.write("model/modules.json", naming("1_Pooling"));
  folder.write("model/shared.json", "{}");
  const auto refused = [&](const std::string& to) {
    expect_error(ErrorCode::format, "modules.json: module 0: path: " + (model / "1_Pooling").string(),
                 [&] { read_sentence_modules(model); });
    expect_error(ErrorCode::format, "is a link to " + (folder / to).string() + ", outside the folder",
                 [&] { read_sentence_modules(model); });
  };
  fs::create_directory_symlink("../secret", model / "1_Pooling");
  refused("secret");
  fs::remove(model / "1_Pooling");
  fs::create_directory(model / "1_Pooling");
  fs::create_symlink(folder / "model2/config.json", model / "1_Pooling/config.json");
  refused("model2/config.json");
  fs::remove(model / "1_Pooling/config.json");
  fs::create_symlink("../shared.json", model / "1_Pooling/config.json");
  EXPECT_EQ(read_sentence_modules(model)[0].files, std::vector<std::string>{"1_Pooling/config.json"});
}

TEST(SentenceModules, SnapshotsOfTheHubsCacheLinkToItsBlobs) {
  const TempFolder cache;
  cache.write("models--a--b/blobs/1", naming("1_Pooling"));
  cache.write("models--a--b/blobs/2", "{}");
  cache.write("models--a--other/blobs/3", "{}");
  const fs::path snapshot = cache / "models--a--b/snapshots/c0ffee";
  fs::create_directories(snapshot / "1_Pooling");
  fs::create_symlink("../../blobs/1", snapshot / "modules.json");
  fs::create_symlink("../../../blobs/2", snapshot / "1_Pooling/config.json");
  EXPECT_EQ(read_sentence_modules(snapshot)[0].files, std::vector<std::string>{"1_Pooling/config.json"});
  fs::create_symlink("../../../../models--a--other/blobs/3", snapshot / "1_Pooling/more.json");
  expect_error(ErrorCode::format, "outside the folder", [&] { read_sentence_modules(snapshot); });
}

}  // namespace
}  // namespace nibble
