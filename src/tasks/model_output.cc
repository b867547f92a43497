#include "tasks/model_output.h"

#include <algorithm>
#include <system_error>

#include "core/error.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

/// Whether `path` is what `folder` names, or lies in it. One that cannot be resolved is nowhere.
bool holds(const fs::path& folder, const fs::path& path) {
  std::error_code none;
  const fs::path outer = fs::canonical(folder, none), inner = fs::canonical(path, none);
  if (outer.empty() || inner.empty()) return false;
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
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

void protect_inputs(const fs::path& out, const std::vector<fs::path>& inputs) {
  for (const fs::path& input : inputs) {
    if (!holds(out, input)) continue;
    fail(ErrorCode::invalid_argument,
         out.string() + ": overwriting it would take " + input.string() + " away, which is read; choose another --out");
  }
}

void check_replaced(const fs::path& out, const std::vector<fs::path>& inputs) {
  protect_inputs(out, inputs);
  if (!fs::exists(out)) return;
  if (holds(out, fs::current_path())) {
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
