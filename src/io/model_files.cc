#include "io/model_files.h"

#include "core/error.h"
#include "io/gguf_source.h"
#include "io/hub_cache.h"
#include "io/quantization_config.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "config.json";
constexpr const char* kGenerationConfig = "generation_config.json";

[[noreturn]] void fail_unreadable(const fs::path& path, const std::error_code& error) {
  fail(ErrorCode::io, printable(path.string(), 1000) + ": cannot be opened: " + error.message());
}

/// @throws Error{io} when that cannot be known, for example below a folder that may not be read.
bool is_there(const fs::path& path) {
  std::error_code error;
  const bool found = fs::exists(path, error);
  if (error) fail_unreadable(path, error);
  return found;
}

[[noreturn]] void fail_no_config(const fs::path& folder) {
  std::string hint;
  if (fs::exists(folder / "adapter_config.json")) hint = "; it is an adapter: open the model that it was made for";
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".gguf") hint = "; open one of its GGUF files, like " + entry.path().string();
  }
  fail(ErrorCode::io, folder.string() + ": has no " + kConfig + hint);
}

ModelFiles open_folder(const fs::path& folder) {
  if (!is_there(folder / kConfig)) fail_no_config(folder);
  ModelFiles model;
  model.path = folder;
  const std::string config_file = (folder / kConfig).string();
  model.config = Json::parse_file(config_file);
  model.config.as_object(config_file);
  parse_quantization_config(model.config, config_file);  // refuses methods that nibble does not read
  if (fs::exists(folder / kGenerationConfig)) {
    model.generation_config = Json::parse_file((folder / kGenerationConfig).string());
  }
  model.modules = read_sentence_modules(folder);
  model.weights = open_folder_weights(folder);
  return model;
}

ModelFiles open_gguf_file(const fs::path& path) {
  GgufModel gguf = open_gguf(path);
  ModelFiles model;
  model.path = path;
  model.config = std::move(gguf.config);
  model.gguf_metadata = std::move(gguf.metadata);
  model.weights = std::move(gguf.weights);
  return model;
}

}  // namespace

fs::path find_model(const std::string& path) {
  std::error_code unreadable;  // such as a working folder that may not be read; then it may be an id all the same
  if (fs::exists(path, unreadable)) return path;
  const std::optional<HubId> id = parse_hub_id(path);
  if (id) {
    if (const std::optional<fs::path> snapshot = find_in_hub_cache(*id)) return *snapshot;
  }
  if (unreadable) fail_unreadable(path, unreadable);
  if (!id) fail(ErrorCode::io, printable(path, 1000) + ": no such folder or .gguf file");
  fail(ErrorCode::io, path + ": no such folder or .gguf file, and no model of that name (revision " + id->revision +
                          ") in the cache " + hub_cache_folder().string() + ". Download it first: hf download " +
                          id->model);
}

ModelFiles open_model(const std::string& path) {
  const fs::path found = find_model(path);
  return fs::is_directory(found) ? open_folder(found) : open_gguf_file(found);
}

}  // namespace nibble
