#pragma once
// What training needs to go on where it stopped: OUT/checkpoint-STEP with the result so far, state.safetensors (every
// trained value and the optimizer's moments, exactly) and trainer_state.json (where in the run this is).
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/output.h"
#include "train/optimizer.h"
#include "train/qat.h"

namespace nibble {

/// Where a run is, besides the optimizer and its parameters.
struct TrainerState {
  int64_t step = 0, skipped = 0, tokens = 0;
  double last_loss = 0;
  std::optional<double> eval_loss = {}, best_eval_loss = {};
  int64_t evaluations_without_gain = 0;
  std::string eval_checksum = {};  // of the data that these losses are of
  ObservedRanges observed = {};

  /// Losses over other data say nothing of these.
  void forget_evaluations(std::string checksum) {
    eval_loss = best_eval_loss = std::nullopt;
    evaluations_without_gain = 0;
    eval_checksum = std::move(checksum);
  }
};

/// Adds state.safetensors and trainer_state.json to a folder.
/// @param settings  what a run that continues must have in common with this one
void write_checkpoint_state(OutputFolder& folder, const Optimizer& optimizer, const TrainerState& state,
                            const Json& settings);

/// Fills the optimizer and its parameters. @throws Error{invalid_argument} naming a setting that is another one,
/// Error{format} for files that are no checkpoint of these parameters.
TrainerState read_checkpoint_state(const std::filesystem::path& folder, Optimizer& optimizer, const Json& settings);

std::filesystem::path checkpoint_path(const std::filesystem::path& out, int64_t step);
/// Those in a folder, by step.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& out);

}  // namespace nibble
