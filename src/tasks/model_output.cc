#include "tasks/model_output.h"

#include <algorithm>
#include <system_error>

#include "core/error.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

bool is_within(const fs::path& path, const fs::path& folder) {
  const auto [end_of_folder, rest] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return end_of_folder == folder.end();
}

/// Whether a file of this name shows that nibble, or transformers, wrote the folder.
bool is_of_output(const fs::path& file) {
  const std::string name = file.filename().string();
  return file.extension() == ".safetensors" || name == "log.jsonl" || name.starts_with("checkpoint-");
}

bool may_be_replaced(const fs::path& out) {
  if (!fs::is_directory(out)) return false;
  bool has_folders = false;
  for (const auto& entry : fs::directory_iterator(out)) {
    if (is_of_output(entry.path())) return true;
    has_folders |= entry.is_directory();
  }
  return !has_folders;
}

}  // namespace

void check_replaced(const fs::path& out, const std::vector<fs::path>& inputs) {
  if (!fs::exists(out)) return;
  std::error_code none;  // an input that cannot be resolved is none that could be lost
  const fs::path replaced = fs::canonical(out, none);
  const auto holds = [&](const fs::path& input) { return is_within(fs::weakly_canonical(input, none), replaced); };
  for (const fs::path& input : inputs) {
    if (!holds(input)) continue;
    fail(ErrorCode::invalid_argument,
         out.string() + ": overwriting it would take " + input.string() + " away, which is read; choose another --out");
  }
  if (holds(fs::current_path())) {
    fail(ErrorCode::invalid_argument, out.string() + ": is the working folder or holds it; choose another --out");
  }
  if (may_be_replaced(out)) return;
  fail(ErrorCode::exists, out.string() + ": is no model, adapter or training run, and neither files nor trees of " +
                              "folders that are none are overwritten; choose another --out");
}

OutputFolder model_output(const std::string& out, Overwrite overwrite, const std::vector<fs::path>& inputs) {
  if (overwrite == Overwrite::yes) check_replaced(out, inputs);
  return {out, overwrite};
}

}  // namespace nibble
