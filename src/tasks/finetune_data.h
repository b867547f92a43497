#pragma once
// The samples that training runs over, and what was found out about them.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nibble/finetune.h"
#include "tasks/loaded_model.h"
#include "train/gradients.h"

namespace nibble {

struct TrainingSample {
  std::vector<int32_t> ids = {};
  std::vector<int32_t> labels = {};  // of every id, kNoLabel = not trained; of a classifier one
  std::vector<int32_t> token_type_ids = {};
  std::vector<float> targets = {};  // of a regression
};

struct TrainingData {
  std::vector<TrainingSample> samples;
  FinetuneData report;
};

struct DataOptions {
  bool classify = false;
  int64_t max_length = 0;
};

/// @throws Error{format} naming file and line, also when nothing is left to train on.
TrainingData read_training_data(const std::shared_ptr<LoadedModel>& model, const std::string& path,
                                const DataOptions& options);

/// Samples by their numbers: those that go through the model in one row. With packing as few rows of max_length tokens
/// as best-fit-decreasing finds, else one sample each.
std::vector<std::vector<size_t>> rows_of(const std::vector<TrainingSample>& samples, bool packing, int64_t max_length);

/// The rows of an epoch in the order in which it goes through them.
std::vector<size_t> epoch_order(size_t rows, bool shuffle, uint64_t seed, int64_t epoch);

/// One batch of rows.
LabelledBatch batch_of(const std::vector<TrainingSample>& samples, const std::vector<std::vector<size_t>>& rows,
                       const std::vector<size_t>& chosen);

}  // namespace nibble
