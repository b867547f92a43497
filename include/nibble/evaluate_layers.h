#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "nibble/classify.h"
#include "nibble/model.h"
#include "nibble/progress.h"

namespace nibble {

/// What one Linear layer lost. Errors are relative: ||ours - reference|| / ||reference||; SQNR = -20 log10 of that, in
/// dB, infinite when nothing was lost.
struct LayerError {
  std::string name = {};    ///< "model.layers.0.self_attn.q_proj"
  std::string format = {};  ///< of the model's weight: "nf4"
  uint64_t bytes = 0;       ///< of the model's weight
  double weight_error = 0, weight_sqnr_db = 0;
  /// Of its output on real text, both given what the reference's layer is given: what the layer itself adds.
  double output_error = 0, output_sqnr_db = 0;
};

/// What one block (a numbered layer of the model, or a Linear outside of them) does to the whole.
struct BlockError {
  std::string name = {};  ///< "model.layers.0", "lm_head"
  /// Of the hidden states behind it, each model given its own: what has added up so far. 0 for the head.
  double hidden_error = 0;
  /// KL(reference || reference with this block alone taken from the model), mean over the tokens, nats.
  double kl = 0;
};

struct LayersReport {
  int64_t tokens = 0;  ///< that the errors were measured on
  std::vector<LayerError> layers = {};
  std::vector<BlockError> blocks = {};
};

struct LayersOptions {
  int64_t tokens = 256;  ///< of the text; one pass of the reference per block is needed
  ProgressFn progress = {};
};

/// Which layers lost how much, on the first tokens of `ids`.
/// @throws Error{invalid_argument} when the models do not have the same layers.
LayersReport evaluate_layers(const CausalLM& model, const CausalLM& reference, const std::vector<int32_t>& ids,
                             const LayersOptions& options = {});
/// The same for classifiers, on the first of the texts; the KL is that of the labels.
LayersReport evaluate_layers(const SequenceClassifier& model, const SequenceClassifier& reference,
                             const std::vector<TextInput>& texts, const LayersOptions& options = {});

}  // namespace nibble
