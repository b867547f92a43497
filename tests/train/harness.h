#pragma once
// Batches of the reference results: padded there, without padding here.
#include <string>
#include <vector>

#include "models/harness.h"
#include "train/gradients.h"

namespace nibble::test {

/// "PREFIXinput_ids", "PREFIXattention_mask" and "PREFIXlabels" of a file.
inline LabelledBatch read_batch(const SafetensorsFile& file, const std::string& prefix) {
  const Tensor ids = file.load(prefix + "input_ids"), mask = file.load(prefix + "attention_mask");
  const Tensor labels = file.load(prefix + "labels");
  const std::vector<int32_t> all = ids_of(ids), used = ids_of(mask), wanted = ids_of(labels);
  const auto width = static_cast<size_t>(ids.shape.at(1));
  const bool per_token = labels.shape.size() == 2;
  LabelledBatch batch;
  if (!per_token) batch.labels = wanted;
  for (size_t i = 0; i < all.size(); ++i) {
    if (i % width == 0) batch.lengths.push_back(0);
    if (used[i] == 0) continue;
    ++batch.lengths.back();
    batch.ids.push_back(all[i]);
    if (per_token) batch.labels.push_back(wanted[i]);
  }
  return batch;
}

inline std::vector<Tensor> gradients_by(const Tape& tape, const std::vector<TrainedParameter>& parameters) {
  std::vector<Tensor> gradients;
  for (const TrainedParameter& p : parameters) gradients.push_back(tape.gradient(p.value));
  return gradients;
}

}  // namespace nibble::test
