#pragma once
// The folder that a training run writes: log and checkpoints while it goes, the result at the end.
#include <cstdint>
#include <filesystem>
#include <string>

#include "core/output.h"
#include "nibble/finetune.h"

namespace nibble {

/// Holds the folder for this process as long as it lives. What an older run resulted in is there until this one has its
/// own; its checkpoints and log are not, or they would be continued with those of this one.
class RunFolder {
 public:
  /// The path, checked before the work of loading. @throws Error{exists} when there is something that the options do
  /// not allow to continue or replace, Error{invalid_argument} when that is the model, Error{io} when there is nothing
  /// to continue.
  static std::filesystem::path checked(const std::string& out, const std::string& model,
                                       const FinetuneOptions& options);
  static std::filesystem::path checkpoint_to_resume(const std::filesystem::path& out, const FinetuneOptions& options);

  /// Creates the folder.
  RunFolder(std::filesystem::path path, const FinetuneOptions& options);

  const std::filesystem::path& path() const { return path_; }
  /// Where the best result so far is.
  std::filesystem::path best() const;
  /// Copies that of the run in another folder which this one continues.
  void take_best(const std::filesystem::path& other);
  /// Where the result is written.
  OutputFolder& result() { return result_; }
  /// That the best result is of this run now.
  void has_new_best() { has_old_best_ = false; }
  /// Removes that of an older run.
  void remove_old_best();
  /// Removes the oldest checkpoints beyond the limit.
  void prune() const;
  /// Moves the result to where users look for it.
  void publish();

 private:
  std::filesystem::path path_;
  int64_t save_limit_;
  OutputFolder result_;
  bool has_old_best_ = false;  // of an older run
};

}  // namespace nibble
