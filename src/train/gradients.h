#pragma once
// The loss of a batch, and its gradients.
#include <cstdint>
#include <vector>

#include "models/model.h"
#include "ops/tape.h"
#include "train/parameters.h"

namespace nibble {

/// Sequences one after the other, without padding, and what the model should say of them.
struct LabelledBatch {
  std::vector<int32_t> ids = {};
  std::vector<int64_t> lengths = {};  // of the sequences; empty = one
  std::vector<int32_t> token_type_ids = {};
  /// Decoders: for every id the label that its predecessor should predict, kNoLabel = none; the first of a sequence
  /// does not count. Classifiers: one for each sequence.
  std::vector<int32_t> labels = {};
  std::vector<float> targets = {};  // instead of labels, for regression: the logits of each sequence
};

struct Loss {
  double sum = 0;     // of -log p(label), or of squared errors
  int64_t count = 0;  // labels or targets

  double mean() const { return count ? sum / static_cast<double>(count) : 0.0; }
};

/// Labels that count in a batch.
int64_t label_count(const Model& model, const LabelledBatch& batch);

/// So many positions are predicted at a time, which bounds the memory of their logits.
int64_t positions_at_once(int64_t vocab_size);

/// @throws Error{invalid_argument} when labels and sequences do not fit together.
Loss loss_of(const Model& model, const LabelledBatch& batch);

/// The same, and adds to the gradients of everything the tape watches those of sum / total. `total` counts the labels
/// of all batches that one step of the optimizer sums up, so that a label weighs the same in each of them.
Loss add_gradients(const Model& model, const LabelledBatch& batch, int64_t total, Tape& tape);

/// A tape that watches these.
Tape tape_for(const std::vector<TrainedParameter>& parameters);

}  // namespace nibble
