#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "nibble/evaluate.h"

namespace nibble {

/// A question with several answers, or a text whose end has to be found.
struct ChoiceQuestion {
  std::string context = {};
  std::vector<std::string> choices = {};  ///< one: it is right when each of its tokens is the likeliest
  int64_t gold = 0;                       ///< index of the right one
};

struct ChoiceTask {
  std::string name = {};  ///< of the file, without its extension
  std::vector<ChoiceQuestion> questions = {};
};

/// Reads a .jsonl file, an object per line: {"query", "choices", "gold"}, or {"context", "continuation"}. A query that
/// begins with "Question:" is followed by a line "Answer:". @param limit  read only the first so many; 0 = all
/// @throws Error{format} naming the line.
ChoiceTask read_choice_task(const std::string& path, int64_t limit = 0);

struct ChoiceOptions {
  DType kv_dtype = DType::f32;  ///< as in EvaluateOptions
  uint64_t seed = 0;            ///< of the resampling behind the intervals
  ProgressFn progress = {};
};

struct ChoiceReport {
  std::string task = {};
  int64_t questions = 0;
  int64_t truncated = 0;  ///< questions whose beginning was cut off to fit the model
  bool has_reference = false;
  double accuracy = 0;  ///< of the choice with the largest sum of log-probabilities
  double reference_accuracy = 0;
  int64_t flips = 0;                  ///< questions that get another answer than from the reference
  std::vector<Figure> figures = {};   ///< accuracy, accuracy_norm or perplexity, and their changes: docs/evaluation.md
  std::string verdict = {};           ///< empty without a reference
  std::vector<int64_t> answers = {};  ///< by question, the model's choice; for a single choice 0 = wrong, 1 = right

  /// One line when max_accuracy_drop is not met; else empty.
  std::vector<std::string> failed_gates(const EvaluateGates& gates) const;
};

/// Answers by log-likelihood, as EleutherAI's lm-evaluation-harness scores them.
/// @throws Error{invalid_argument} without a tokenizer, Error{format} naming the layer when a model predicts NaN.
ChoiceReport evaluate_choices(const CausalLM& model, const CausalLM* reference, const ChoiceTask& task,
                              const ChoiceOptions& options = {});

}  // namespace nibble
