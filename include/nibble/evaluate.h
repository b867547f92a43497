#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nibble/classify.h"
#include "nibble/model.h"
#include "nibble/progress.h"

namespace nibble {

/// Which ids of a chunk are scored: all but the first, or, as llama.cpp does it, those of the second half.
enum class ScoredPart { all, second_half };

struct EvaluateOptions {
  int64_t context = 512;   ///< ids per chunk
  int64_t max_tokens = 0;  ///< use only the first so many ids; 0 = all
  int64_t stride = 0;      ///< chunks overlap and begin so many ids apart; each id is scored once; 0 = none
  ScoredPart scored = ScoredPart::all;  ///< not together with a stride
  DType kv_dtype = DType::f32;          ///< of the model's keys and values: f32, f16, bf16 or i8; not the reference's
  /// Of a model that was loaded with another head (LoadModelOptions::head): also what that costs against the head that
  /// its files have, which is opened for it. Figures head_perplexity_increase, head_kl_mean and head_top1_agreement.
  bool head_cost = false;
  uint64_t seed = 0;                ///< of the resampling behind the intervals
  std::string save_reference = {};  ///< file that keeps the reference's predictions (without one the model's)
  ProgressFn progress = {};
};

/// Conditions that a model has to meet.
struct EvaluateGates {
  std::optional<double> max_kl = {};                   ///< of kl_mean, nats
  std::optional<double> max_perplexity_increase = {};  ///< relative: 0.02 = 2 %
  std::optional<double> min_top1 = {};                 ///< of top1_agreement, 0 to 1
  std::optional<double> max_accuracy_drop = {};        ///< absolute: 0.01 = one text in a hundred
};

/// A measured number and its 95 % interval by bootstrap. NaN where an interval means nothing (sizes, extremes) or the
/// data are too few for one.
struct Figure {
  std::string name = {};  ///< as in the JSON: "kl_mean"
  double value = 0, low = 0, high = 0;
};

/// The figure of that name, or null.
const Figure* find_figure(const std::vector<Figure>& figures, const std::string& name);

struct EvaluateReport {
  std::string convention = {};  ///< how the text was cut: "chunks", "stride 256", "second half"
  int64_t context = 0;          ///< ids of the longest chunk
  int64_t tokens = 0;           ///< scored positions
  int64_t chunks = 0;
  int64_t blocks = 0;  ///< stretches of text that the bootstrap draws
  double perplexity = 0;
  bool has_reference = false;
  double reference_perplexity = 0;
  double kl_mean = 0, kl_p50 = 0, kl_p90 = 0, kl_p99 = 0, kl_max = 0;  ///< KL(reference || model), nats
  double top1_agreement = 0;
  uint64_t bytes = 0, reference_bytes = 0;  ///< of the weights in memory
  double tokens_per_second = 0;             ///< ids through the model, the reference not counted

  /// All of the above that were measured, and more: docs/evaluation.md explains each.
  std::vector<Figure> figures = {};
  /// One sentence: what was lost, or that these data cannot tell. Empty without a reference.
  std::string verdict = {};

  /// Means over the scored positions that lie so many ids behind the beginning of their chunk.
  struct Stretch {
    int64_t first = 0, last = 0;
    double perplexity = 0, reference_perplexity = 0, kl_mean = 0;
  };
  std::vector<Stretch> by_position = {};

  /// One line per gate that is not met; empty = all are.
  std::vector<std::string> failed_gates(const EvaluateGates& gates) const;
};

/// Chunks of ids for evaluate(): the text in one go, cut into pieces of `context` ids; a last, shorter piece is dropped
/// when there is another. Where the tokenizer begins every text with an id of its own (BOS), each piece does too, and
/// that id counts among the `context`. With a stride the pieces begin `stride` ids apart and the last one stays.
std::vector<std::vector<int32_t>> evaluation_chunks(const CausalLM& model, const std::string& text,
                                                    const EvaluateOptions& options);
/// The same for ids that exist already; nothing is put in front.
std::vector<std::vector<int32_t>> evaluation_chunks(const std::vector<int32_t>& ids, const EvaluateOptions& options);

/// Perplexity over the chunks; with a reference also what was lost against it. The options must be those that the
/// chunks were made with. Memory: a few rows of logits and the hidden states of one chunk.
/// @throws Error{invalid_argument} when there is nothing to score or the vocabularies differ, Error{format} naming the
///         layer when a model predicts NaN.
EvaluateReport evaluate(const CausalLM& model, const CausalLM* reference,
                        const std::vector<std::vector<int32_t>>& chunks, const EvaluateOptions& options = {});

/// The predictions of a reference for certain chunks, in a file that evaluate() wrote (save_reference). It holds the
/// last hidden states and the output head, from which the logits come out as the reference itself computes them.
class SavedReference {
 public:
  /// @throws Error{io, format}
  static SavedReference open(const std::string& path);

  struct Contents;
  const Contents& internal() const { return *contents_; }

 private:
  explicit SavedReference(std::shared_ptr<const Contents> contents) : contents_(std::move(contents)) {}
  std::shared_ptr<const Contents> contents_;
};

/// As above, the reference's predictions from the file.
/// @throws Error{invalid_argument} when the file is for another vocabulary, text or way of cutting it.
EvaluateReport evaluate(const CausalLM& model, const SavedReference& reference,
                        const std::vector<std::vector<int32_t>>& chunks, const EvaluateOptions& options = {});

struct LabelReport {
  int64_t texts = 0;
  double accuracy = 0, f1 = 0;
  bool has_reference = false;
  double reference_accuracy = 0, reference_f1 = 0;
  int64_t flips = 0;                        ///< texts that get another label than from the reference
  uint64_t bytes = 0, reference_bytes = 0;  ///< of the weights in memory
  double tokens_per_second = 0;             ///< ids through the model, the reference not counted
  std::vector<Figure> figures = {};
  std::string verdict = {};  ///< empty without a reference

  /// One line per gate that is not met; empty = all are.
  std::vector<std::string> failed_gates(const EvaluateGates& gates) const;
};

/// How well a classifier labels texts whose labels are known; with a reference also what was lost against it.
/// @throws Error{invalid_argument} when there are no labels or the models have different ones, Error{format} naming the
///         layer when a model predicts NaN.
LabelReport evaluate_labels(const SequenceClassifier& model, const SequenceClassifier* reference,
                            const LabelledTexts& data, const ClassifyOptions& options = {}, uint64_t seed = 0);

}  // namespace nibble
