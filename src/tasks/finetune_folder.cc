#include "tasks/finetune_folder.h"

#include "core/error.h"
#include "io/model_files.h"
#include "tasks/finetune_checkpoint.h"
#include "tasks/model_output.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLast = "last";
constexpr const char* kBest = "best";
constexpr const char* kResult = "result";

/// Whether the run goes on in the folder in which it stopped.
bool goes_on_there(const fs::path& out, const FinetuneOptions& options) {
  if (options.resume.empty() || options.resume == kLast) return !options.resume.empty();
  std::error_code none;  // that one of the two is not there
  return fs::equivalent(out, RunFolder::checkpoint_to_resume(out, options).parent_path(), none);
}

/// Whether a file of this name is part of what a run results in.
bool is_result_of_run(const fs::path& file) {
  const std::string name = file.filename().string();
  return name == "adapter_config.json" || name == "merge_aware.json" || name == "config.json" ||
         file.extension() == ".safetensors" || name.ends_with(".safetensors.index.json");
}

/// Or what a run writes while it goes: two of them make no curve, and no run that could be continued.
bool is_log(const fs::path& file) {
  const std::string name = file.filename().string();
  return name == "log.jsonl" || name.starts_with("events.out.tfevents.");
}

void remove_files(const fs::path& folder, bool (*matches)(const fs::path& file)) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file() && matches(entry.path())) found.push_back(entry.path());
  }
  for (const fs::path& file : found) fs::remove(file);
}

}  // namespace

fs::path RunFolder::checked(const std::string& out, const std::string& model, const FinetuneOptions& options) {
  const bool there = fs::symlink_status(out).type() != fs::file_type::not_found;
  if (goes_on_there(out, options)) {
    protect_inputs(out, {find_model(model)});
  } else if (there && !options.overwrite) {
    fail(ErrorCode::exists, out + ": exists already; choose another --out, or give " +
                                (options.resume.empty() ? "--resume or " : "") + "--overwrite");
  } else {
    check_replaced(out, {find_model(model)});
  }
  if (options.resume == kLast && list_checkpoints(out).empty()) {
    fail(ErrorCode::io, out + ": has no checkpoint to continue from");
  }
  return out;
}

fs::path RunFolder::checkpoint_to_resume(const fs::path& out, const FinetuneOptions& options) {
  if (options.resume == kLast) return list_checkpoints(out).back();
  const fs::path given = fs::absolute(options.resume).lexically_normal();
  return given.has_filename() ? given : given.parent_path();  // a slash behind it means nothing
}

RunFolder::RunFolder(fs::path path, const FinetuneOptions& options)
    : path_(std::move(path)), save_limit_(options.save_limit), result_(path_ / kResult, Overwrite::yes) {
  if (goes_on_there(path_, options)) return;
  for (const fs::path& old : list_checkpoints(path_)) fs::remove_all(old);
  remove_files(path_, is_log);
  has_old_best_ = fs::exists(best());
}

fs::path RunFolder::best() const { return path_ / kBest; }

void RunFolder::remove_old_best() {
  if (has_old_best_) fs::remove_all(best());
  has_old_best_ = false;
}

void RunFolder::take_best(const fs::path& other) {
  std::error_code none;  // that one of the two is not there
  if (fs::equivalent(path_, other, none) || !fs::is_directory(other / kBest)) return;
  OutputFolder copy(best(), Overwrite::yes);
  for (const auto& entry : fs::recursive_directory_iterator(other / kBest)) {
    if (entry.is_regular_file()) copy.copy(entry.path(), entry.path().lexically_relative(other / kBest).string());
  }
  copy.commit();
  has_new_best();
}

void RunFolder::prune() const {
  const std::vector<fs::path> found = list_checkpoints(path_);
  for (size_t i = 0; save_limit_ > 0 && i + static_cast<size_t>(save_limit_) < found.size(); ++i) {
    fs::remove_all(found[i]);
  }
}

// The configurations come last: a folder that has them is complete. File by file, because the sub-folders may be there
// from an earlier run.
void RunFolder::publish() {
  result_.commit();
  remove_old_best();
  remove_files(path_, is_result_of_run);
  for (const bool configurations : {false, true}) {
    std::vector<fs::path> files;
    for (const auto& entry : fs::recursive_directory_iterator(path_ / kResult)) {
      const bool matches = (entry.path().extension() == ".json") == configurations;
      if (entry.is_regular_file() && matches) files.push_back(entry.path().lexically_relative(path_ / kResult));
    }
    for (const fs::path& file : files) {
      fs::create_directories((path_ / file).parent_path());
      fs::rename(path_ / kResult / file, path_ / file);
    }
  }
  fs::remove_all(path_ / kResult);
}

}  // namespace nibble
