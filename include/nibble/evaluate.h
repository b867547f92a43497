#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nibble/classify.h"
#include "nibble/model.h"
#include "nibble/progress.h"

namespace nibble {

struct EvaluateOptions {
  int64_t context = 512;   ///< ids per chunk
  int64_t max_tokens = 0;  ///< use only the first so many ids; 0 = all
  ProgressFn progress = {};
};

/// Conditions that a model has to meet.
struct EvaluateGates {
  std::optional<double> max_kl = {};                   ///< of kl_mean, nats
  std::optional<double> max_perplexity_increase = {};  ///< relative: 0.02 = 2 %
  std::optional<double> min_top1 = {};                 ///< of top1_agreement, 0 to 1
  std::optional<double> max_accuracy_drop = {};        ///< of labels, absolute: 0.01 = one text in a hundred
};

struct EvaluateReport {
  int64_t tokens = 0;  ///< scored positions
  int64_t chunks = 0;
  double perplexity = 0;
  bool has_reference = false;
  double reference_perplexity = 0;
  double kl_mean = 0, kl_p50 = 0, kl_p90 = 0, kl_p99 = 0, kl_max = 0;  ///< KL(reference || model), nats
  double top1_agreement = 0;
  uint64_t bytes = 0, reference_bytes = 0;  ///< of the weights in memory
  double tokens_per_second = 0;             ///< ids through the model, the reference not counted

  /// One line per gate that is not met; empty = all are.
  std::vector<std::string> failed_gates(const EvaluateGates& gates) const;
};

/// Chunks of ids for evaluate(): the text in one go, cut into pieces of `context` ids; a last, shorter piece is dropped
/// when there is another. Where the tokenizer begins every text with an id of its own (BOS), each piece does too, and
/// that id counts among the `context`.
std::vector<std::vector<int32_t>> evaluation_chunks(const CausalLM& model, const std::string& text,
                                                    const EvaluateOptions& options);
/// The same for ids that exist already; nothing is put in front.
std::vector<std::vector<int32_t>> evaluation_chunks(const std::vector<int32_t>& ids, const EvaluateOptions& options);

/// Perplexity over the chunks, the first id of each not scored; with a reference also what was lost against it.
/// @throws Error{invalid_argument} when there is nothing to score or the vocabularies differ.
EvaluateReport evaluate(const CausalLM& model, const CausalLM* reference,
                        const std::vector<std::vector<int32_t>>& chunks, const EvaluateOptions& options = {});

struct LabelReport {
  int64_t texts = 0;
  double accuracy = 0, f1 = 0;
  bool has_reference = false;
  double reference_accuracy = 0, reference_f1 = 0;
  int64_t flips = 0;                        ///< texts that get another label than from the reference
  uint64_t bytes = 0, reference_bytes = 0;  ///< of the weights in memory
  double tokens_per_second = 0;             ///< ids through the model, the reference not counted

  /// One line per gate that is not met; empty = all are.
  std::vector<std::string> failed_gates(const EvaluateGates& gates) const;
};

/// How well a classifier labels texts whose labels are known; with a reference also what was lost against it.
/// @throws Error{invalid_argument} when there are no labels or the models have different ones.
LabelReport evaluate_labels(const SequenceClassifier& model, const SequenceClassifier* reference,
                            const LabelledTexts& data, const ClassifyOptions& options = {});

}  // namespace nibble
