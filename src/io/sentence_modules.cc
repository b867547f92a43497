#include "io/sentence_modules.h"

#include <algorithm>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxBytes = 1u << 20;

bool is_inside(const fs::path& folder, const fs::path& file) {
  return std::mismatch(folder.begin(), folder.end(), file.begin(), file.end()).first == folder.end();
}

/// In the Hub's cache a model is NAME/snapshots/COMMIT, and each of its files a link into NAME/blobs.
void require_inside(const fs::path& folder, const fs::path& file, const std::string& where) {
  const fs::path root = fs::canonical(folder), real = fs::canonical(file);
  if (is_inside(root, real) || is_inside(root.parent_path().parent_path() / "blobs", real)) return;
  fail(ErrorCode::format, where + ": " + file.string() + " is a link to " + real.string() + ", outside the folder");
}

std::vector<std::string> files_of(const fs::path& folder, const std::string& path, const std::string& where) {
  std::vector<std::string> files;
  if (path.empty() || !fs::is_directory(folder / path)) return files;
  require_inside(folder, folder / path, where);
  for (const auto& entry : fs::directory_iterator(folder / path)) {
    if (!entry.is_regular_file()) continue;
    require_inside(folder, entry.path(), where);
    files.push_back((fs::path(path) / entry.path().filename()).string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string text_of(const Json& module, const char* key, const std::string& where) {
  const Json* value = module.find_value(key);
  if (value == nullptr) fail(ErrorCode::format, where + ": has no " + key);
  return value->as_string(where + ": " + key);
}

}  // namespace

std::vector<SentenceModule> read_sentence_modules(const fs::path& folder) {
  std::vector<SentenceModule> modules;
  if (!fs::is_regular_file(folder / "modules.json")) return modules;
  const std::string file = (folder / "modules.json").string();
  const Json parsed = Json::parse_file(file, kMaxBytes);
  for (const Json& module : parsed.as_array(file)) {
    const std::string where = file + ": module " + std::to_string(modules.size());
    SentenceModule read = {.type = text_of(module, "type", where), .path = text_of(module, "path", where), .files = {}};
    if (!read.path.empty()) require_plain_name(read.path, where + ": path");
    read.files = files_of(folder, read.path, where + ": path");
    modules.push_back(std::move(read));
  }
  if (modules.empty()) fail(ErrorCode::format, file + ": names no module");
  return modules;
}

}  // namespace nibble
