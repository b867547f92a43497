// Labels for texts: encoder, classifier, and what the logits mean.
#include "nibble/classify.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "tasks/loaded_model.h"
#include "tasks/sequence_batches.h"

namespace nibble {
namespace {

double softmax_of(const std::vector<float>& logits, size_t at) {
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - logits[at]);
  return 1.0 / sum;
}

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

/// As transformers' text-classification pipeline chooses.
double score_of(const Json& config, const std::vector<float>& logits, size_t at) {
  const Json* type = config.find_value("problem_type");
  const std::string problem = type && type->is_string() ? type->as_string("problem_type") : "";
  if (problem == "regression") return logits[at];
  if (problem == "multi_label_classification" || logits.size() == 1) return sigmoid(logits[at]);
  return softmax_of(logits, at);
}

Prediction predict(const LoadedModel& loaded, const float* row, int64_t count) {
  Prediction p;
  p.logits.assign(row, row + count);
  const auto best = static_cast<size_t>(std::max_element(p.logits.begin(), p.logits.end()) - p.logits.begin());
  p.label_id = static_cast<int64_t>(best);
  p.label = loaded.model->info().labels[best];
  p.score = score_of(loaded.config, p.logits, best);
  return p;
}

/// The row of each sequence that the classifier reads: [sequences, hidden_size].
Tensor classified_rows(const ModelInfo& info, const SequenceBatch& batch) {
  const int64_t width = batch.hidden.cols();
  Tensor rows(DType::f32, {static_cast<int64_t>(batch.lengths.size()), width});
  int64_t from = 0;
  float* to = rows.f32();
  for (const int64_t length : batch.lengths) {
    const float* row = batch.hidden.f32() + (from + info.classified_row(length)) * width;
    std::memcpy(to, row, static_cast<size_t>(width) * sizeof(float));
    from += length;
    to += width;
  }
  return rows;
}

}  // namespace

SequenceClassifier AutoModelForSequenceClassification::from_pretrained(const std::string& path,
                                                                       const LoadModelOptions& options) {
  std::shared_ptr<LoadedModel> loaded = load_model(path, exact_by_default(options));
  const ModelInfo& info = loaded->model->info();
  if (info.predicts_text()) {
    fail(ErrorCode::unsupported, path + ": " + info.model_type + " without a classifier predicts text; use generate");
  }
  if (info.labels.empty()) {
    fail(ErrorCode::unsupported, path + ": " + info.architecture + " has no classifier, only vectors; use embed");
  }
  require_known_ids(*loaded);
  return SequenceClassifier(std::move(loaded));
}

EncodedText SequenceClassifier::encode(const TextInput& input, const ClassifyOptions& options) const {
  const Tokenizer& tokenizer = model_->require_tokenizer();
  const bool cut = options.long_text == LongText::truncate;
  const TokenizeOptions how = {.max_length = cut ? longest_text(*model_) : 0};
  if (!input.pair) return {.ids = tokenizer.encode(input.text, how)};
  PairEncoding both = tokenizer.encode_pair(input.text, *input.pair, how);
  // RoBERTa has one segment; its tokenizer may number the texts all the same, which transformers leaves out.
  if (model_->model->info().model_type != "bert") both.type_ids.clear();
  return {.ids = std::move(both.ids), .token_type_ids = std::move(both.type_ids)};
}

Prediction SequenceClassifier::classify(std::string_view text, const ClassifyOptions& options) const {
  return classify(std::vector<TextInput>{{.text = std::string(text)}}, options).front();
}

std::vector<Prediction> SequenceClassifier::classify(const std::vector<TextInput>& inputs,
                                                     const ClassifyOptions& options) const {
  std::vector<EncodedText> encoded;
  encoded.reserve(inputs.size());
  for (const TextInput& input : inputs) encoded.push_back(encode(input, options));
  return classify(encoded, options);
}

std::vector<Prediction> SequenceClassifier::classify(const std::vector<EncodedText>& inputs,
                                                     const ClassifyOptions& options) const {
  std::vector<Prediction> predictions(inputs.size());
  run_sequences(*model_, inputs, options.progress, [&](const SequenceBatch& batch) {
    const Tensor logits = model_->model->logits(classified_rows(model_->model->info(), batch));
    for (size_t i = 0; i < batch.members.size(); ++i) {
      const float* row = logits.f32() + static_cast<int64_t>(i) * logits.cols();
      predictions[batch.members[i]] = predict(*model_, row, logits.cols());
    }
  });
  return predictions;
}

const std::vector<std::string>& SequenceClassifier::labels() const { return model_->model->info().labels; }
uint64_t SequenceClassifier::weight_bytes() const { return model_->weight_bytes; }
const DeviceMap& SequenceClassifier::device_map() const { return model_->device_map; }

}  // namespace nibble
