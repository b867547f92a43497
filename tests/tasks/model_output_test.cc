#include "tasks/model_output.h"

#include <gtest/gtest.h>

#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;
namespace fs = std::filesystem;

TEST(ModelOutput, ReplacesModelsAdaptersRunsAndFlatFolders) {
  const TempFolder folder;
  check_replaced(folder / "nothing", {});
  for (const char* file : {"model/model.safetensors", "run/log.jsonl", "run2/checkpoint-2/x", "flat/notes.txt"}) {
    folder.write(file, "");
    check_replaced((folder / file).parent_path(), {folder / "elsewhere"});
  }
  folder.write("repository/.git/config", "");
  folder.write("repository/model-00001-of-00002.safetensors", "");
  check_replaced(folder / "repository/", {});
}

TEST(ModelOutput, DoesNotReplaceFilesOrTrees) {
  const TempFolder folder;
  folder.write("models/a/model.safetensors", "");
  const auto refuse = [&](const fs::path& out, const std::string& what, ErrorCode code = ErrorCode::exists) {
    expect_error(code, what, [&] { model_output(out.string(), Overwrite::yes, {}); });
  };
  refuse(folder / "models", "is no model, adapter or training run");
  refuse(folder / "models/a/model.safetensors", "is no model");
  refuse(fs::path("../" + fs::current_path().filename().string()), "working folder", ErrorCode::invalid_argument);
  EXPECT_TRUE(fs::exists(folder / "models/a/model.safetensors"));
}

TEST(ModelOutput, DoesNotTakeAwayWhatIsRead) {
  const TempFolder folder;
  const fs::path weights = folder.write("a/model.safetensors", ""), model = weights.parent_path();
  fs::create_directory_symlink(model, folder / "link");
  for (const fs::path& out : {model, folder / "link", folder / "a/../a/", folder.path()}) {
    expect_error(ErrorCode::invalid_argument, "a away, which is read", [&] { check_replaced(out, {model}); });
  }
  expect_error(ErrorCode::invalid_argument, "model.safetensors away", [&] { check_replaced(model, {weights}); });
  check_replaced(model, {folder / "b", folder / "nowhere/a", folder / "aa"});
}

}  // namespace
}  // namespace nibble
