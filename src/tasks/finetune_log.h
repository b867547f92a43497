#pragma once
// What a run writes while it goes: log.jsonl, and an event file for TensorBoard.
#include <filesystem>
#include <memory>

#include "core/json.h"
#include "core/output.h"
#include "nibble/finetune.h"

namespace nibble {

/// A line of log.jsonl.
Json step_json(const FinetuneStep& step);

class FinetuneLog {
 public:
  /// Keeps the lines of an earlier log up to `step`.
  FinetuneLog(const std::filesystem::path& out, int64_t step, bool tensorboard);

  void add(const FinetuneStep& step);
  void close();

 private:
  std::unique_ptr<OutputFile> lines_, events_;
};

}  // namespace nibble
