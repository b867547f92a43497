#pragma once
// The folder that a training run writes: log and checkpoints while it goes, the result at the end.
#include <cstdint>
#include <filesystem>
#include <string>

#include "core/output.h"
#include "nibble/finetune.h"

namespace nibble {

/// Holds the folder for this process as long as it lives.
class RunFolder {
 public:
  /// The path, checked before the work of loading. @throws Error{exists} when there is something that the options do
  /// not allow to continue or replace, Error{io} when there is nothing to continue.
  static std::filesystem::path checked(const std::string& out, const FinetuneOptions& options);
  static std::filesystem::path checkpoint_to_resume(const std::filesystem::path& out, const FinetuneOptions& options);

  /// Creates the folder; of a run that begins anew the checkpoints of an older one go.
  RunFolder(std::filesystem::path path, const FinetuneOptions& options);

  const std::filesystem::path& path() const { return path_; }
  /// Where the best result so far is.
  std::filesystem::path best() const;
  /// Copies that of the run in another folder which this one continues.
  void take_best(const std::filesystem::path& other) const;
  /// Where the result is written.
  OutputFolder& result() { return result_; }
  /// Removes the oldest checkpoints beyond the limit.
  void prune() const;
  /// Moves the result to where users look for it.
  void publish();

 private:
  std::filesystem::path path_;
  int64_t save_limit_;
  OutputFolder result_;
};

}  // namespace nibble
