// What a classifier is worth on texts whose labels are known.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <optional>

#include "core/error.h"
#include "nibble/evaluate.h"
#include "tasks/loaded_model.h"

namespace nibble {
namespace {

int64_t label_id(const std::vector<std::string>& names, const std::string& label, const std::string& where) {
  const auto named = std::find(names.begin(), names.end(), label);
  if (named != names.end()) return named - names.begin();
  int64_t id = -1;
  const auto [end, error] = std::from_chars(label.data(), label.data() + label.size(), id);
  const bool number = error == std::errc() && end == label.data() + label.size();
  if (number && id >= 0 && id < static_cast<int64_t>(names.size())) return id;
  std::string known;
  for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
  fail(ErrorCode::format, where + ": the model has no label '" + printable(label, 100) + "' (it has " +
                              printable(known, 400) + ", or their numbers)");
}

/// 2 TP / (2 TP + FP + FN) of one label; nothing when the label occurs on neither side.
std::optional<double> f1_of(const std::vector<Prediction>& predictions, const std::vector<int64_t>& labels,
                            int64_t label) {
  int64_t both = 0, either = 0;  // either: predicted plus true
  for (size_t i = 0; i < labels.size(); ++i) {
    const bool predicted = predictions[i].label_id == label, real = labels[i] == label;
    both += predicted && real;
    either += predicted + real;
  }
  if (either == 0) return std::nullopt;
  return 2.0 * static_cast<double>(both) / static_cast<double>(either);
}

double mean_f1(const std::vector<Prediction>& predictions, const std::vector<int64_t>& labels) {
  const auto count = static_cast<int64_t>(predictions[0].logits.size());
  if (count == 2) return f1_of(predictions, labels, 1).value_or(0.0);
  double sum = 0, occurring = 0;
  for (int64_t label = 0; label < count; ++label) {
    const std::optional<double> f1 = f1_of(predictions, labels, label);
    sum += f1.value_or(0.0);
    occurring += f1 ? 1 : 0;
  }
  return sum / occurring;
}

std::vector<EncodedText> encode_all(const SequenceClassifier& model, const LabelledTexts& data,
                                    const ClassifyOptions& options) {
  std::vector<EncodedText> encoded;
  encoded.reserve(data.inputs.size());
  for (const TextInput& input : data.inputs) encoded.push_back(model.encode(input, options));
  return encoded;
}

}  // namespace

std::vector<int64_t> label_ids(const SequenceClassifier& model, const std::vector<std::string>& labels,
                               const std::string& where) {
  const Json* problem = model.internal().config.find_value("problem_type");
  const bool one_label = problem == nullptr || problem->as_string("problem_type") == "single_label_classification";
  if (!one_label) {
    fail(ErrorCode::unsupported, where + ": the model's problem_type is " +
                                     printable(problem->as_string("problem_type"), 100) +
                                     "; only predictions of one label can be scored");
  }
  std::vector<int64_t> ids;
  for (size_t i = 0; i < labels.size(); ++i) {
    ids.push_back(label_id(model.labels(), labels[i], where + ": text " + std::to_string(i + 1)));
  }
  return ids;
}

LabelScores score_labels(const std::vector<Prediction>& predictions, const std::vector<int64_t>& labels) {
  if (predictions.empty() || predictions.size() != labels.size()) {
    fail(ErrorCode::invalid_argument, "there are " + std::to_string(labels.size()) + " labels for " +
                                          std::to_string(predictions.size()) + " predictions");
  }
  int64_t right = 0;
  for (size_t i = 0; i < labels.size(); ++i) right += predictions[i].label_id == labels[i];
  return {.accuracy = static_cast<double>(right) / static_cast<double>(labels.size()),
          .f1 = mean_f1(predictions, labels)};
}

LabelReport evaluate_labels(const SequenceClassifier& model, const SequenceClassifier* reference,
                            const LabelledTexts& data, const ClassifyOptions& options) {
  if (data.labels.empty()) fail(ErrorCode::invalid_argument, "the texts have no labels to compare with");
  if (reference && reference->labels() != model.labels()) {
    fail(ErrorCode::invalid_argument, "the model and its reference have different labels");
  }
  const std::vector<int64_t> labels = label_ids(model, data.labels, "labels");
  const std::vector<EncodedText> encoded = encode_all(model, data, options);
  int64_t tokens = 0;
  for (const EncodedText& text : encoded) tokens += static_cast<int64_t>(text.ids.size());

  LabelReport report;
  report.texts = static_cast<int64_t>(encoded.size());
  report.bytes = model.weight_bytes();
  const auto start = std::chrono::steady_clock::now();
  const std::vector<Prediction> predictions = model.classify(encoded, options);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.tokens_per_second = static_cast<double>(tokens) / std::max(seconds, 1e-9);
  const LabelScores scores = score_labels(predictions, labels);
  report.accuracy = scores.accuracy;
  report.f1 = scores.f1;
  if (reference == nullptr) return report;

  report.has_reference = true;
  report.reference_bytes = reference->weight_bytes();
  const std::vector<Prediction> original = reference->classify(encode_all(*reference, data, options), options);
  const LabelScores reference_scores = score_labels(original, labels);
  report.reference_accuracy = reference_scores.accuracy;
  report.reference_f1 = reference_scores.f1;
  for (size_t i = 0; i < labels.size(); ++i) report.flips += predictions[i].label_id != original[i].label_id;
  return report;
}

std::vector<std::string> LabelReport::failed_gates(const EvaluateGates& gates) const {
  const double drop = reference_accuracy - accuracy;
  if (!gates.max_accuracy_drop || drop <= *gates.max_accuracy_drop) return {};
  return {fmt::format("accuracy fell by {:.6g}, above max_accuracy_drop {:.6g}", drop, *gates.max_accuracy_drop)};
}

}  // namespace nibble
