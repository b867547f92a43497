#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/model.h"
#include "nibble/progress.h"
#include "nibble/text_input.h"

namespace nibble {

/// refuse: a text with more tokens than the model has positions is an error. truncate: texts are cut to these
/// positions, or to the tokenizer's model_max_length if that is less.
enum class LongText { refuse, truncate };

struct ClassifyOptions {
  LongText long_text = LongText::refuse;  ///< what becomes of a text with too many tokens
  ProgressFn progress = {};
};

struct Prediction {
  std::string label = {};
  int64_t label_id = 0;
  /// Of the label: its softmax; for multi-label models and single outputs its sigmoid; for regression the value itself.
  double score = 0;
  std::vector<float> logits = {};  ///< of all labels
};

/// A model that labels texts, with its tokenizer. Copies share the weights. One thread at a time. Texts run in batches;
/// a result does not depend on what shares its batch.
class SequenceClassifier {
 public:
  explicit SequenceClassifier(std::shared_ptr<LoadedModel> model) : model_(std::move(model)) {}

  /// @throws Error{invalid_argument} for a text that is too long, and for ids outside the vocabulary.
  Prediction classify(std::string_view text, const ClassifyOptions& options = {}) const;
  std::vector<Prediction> classify(const std::vector<TextInput>& inputs, const ClassifyOptions& options = {}) const;
  std::vector<Prediction> classify(const std::vector<EncodedText>& inputs, const ClassifyOptions& options = {}) const;

  EncodedText encode(const TextInput& input, const ClassifyOptions& options = {}) const;

  /// By id.
  const std::vector<std::string>& labels() const;
  uint64_t weight_bytes() const;
  const DeviceMap& device_map() const;

  LoadedModel& internal() const { return *model_; }
  std::shared_ptr<LoadedModel> shared() const { return model_; }

 private:
  std::shared_ptr<LoadedModel> model_;
};

struct AutoModelForSequenceClassification {
  ///     auto model = AutoModelForSequenceClassification::from_pretrained("bert-sst2");
  ///     Prediction p = model.classify("a charming and often affecting journey");
  ///
  /// @throws Error{unsupported} for a model without a classifier, else as AutoModelForCausalLM.
  static SequenceClassifier from_pretrained(const std::string& path, const LoadModelOptions& options = {});
};

/// Where texts and labels are in a file: the names of columns (TSV, CSV) or keys (JSONL), or columns by number from 0.
struct LabelledColumns {
  std::string text = {};   ///< "" = the first of text, sentence, sentence1; else the only column without another use
  std::string pair = {};   ///< "" = sentence2, if there is one
  std::string label = {};  ///< "" = the first of label, labels, intent, if there is one
};

struct LabelledTexts {
  std::vector<TextInput> inputs = {};
  std::vector<std::string> labels = {};  ///< as the file spells them; empty = the file has none
  std::vector<std::string> places = {};  ///< "FILE:LINE" of each text, for messages; may be empty
};

/// Reads .csv (quoted fields as RFC 4180 has them), .jsonl (an object per line), and everything else as tab-separated
/// lines. CSV and TSV begin with a line of column names.
/// @throws Error{format} naming the line, Error{invalid_argument} for a column that is not there.
LabelledTexts read_labelled_texts(const std::string& path, const LabelledColumns& columns = {});

/// The ids of labels that are given by name or number.
/// @throws Error{format} naming the place of a label that the model does not have.
std::vector<int64_t> label_ids(const SequenceClassifier& model, const LabelledTexts& data);

struct LabelScores {
  double accuracy = 0;
  double f1 = 0;  ///< with two labels of label 1, else the mean over the labels that occur
};

/// @throws Error{invalid_argument} unless there are as many labels as predictions, and at least one.
LabelScores score_labels(const std::vector<Prediction>& predictions, const std::vector<int64_t>& labels);

}  // namespace nibble
