// What a classifier is worth on texts whose labels are known.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <span>

#include "core/error.h"
#include "nibble/evaluate.h"
#include "tasks/evaluate_scoring.h"
#include "tasks/evaluate_statistics.h"
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

/// How often a label was right, predicted, and true.
struct LabelCounts {
  double both = 0, either = 0;  // either: predicted plus true
};

/// Accuracy and F1 where text i counts weights[i] times; no weights = once each.
LabelScores weighted_scores(const std::vector<Prediction>& predictions, const std::vector<int64_t>& labels,
                            std::span<const int32_t> weights) {
  std::vector<LabelCounts> counts(predictions[0].logits.size());
  double right = 0, texts = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    const double weight = weights.empty() ? 1 : weights[i];
    const bool is_right = predictions[i].label_id == labels[i];
    texts += weight;
    right += is_right ? weight : 0;
    counts[static_cast<size_t>(labels[i])].both += is_right ? weight : 0;
    counts[static_cast<size_t>(labels[i])].either += weight;
    counts[static_cast<size_t>(predictions[i].label_id)].either += weight;
  }
  const auto f1 = [](const LabelCounts& c) { return c.either > 0 ? 2 * c.both / c.either : 0.0; };
  LabelScores scores = {.accuracy = right / texts, .f1 = 0};
  if (counts.size() == 2) {
    scores.f1 = f1(counts[1]);
    return scores;
  }
  double sum = 0, occurring = 0;
  for (const LabelCounts& c : counts) {
    sum += f1(c);
    occurring += c.either > 0 ? 1 : 0;
  }
  scores.f1 = sum / occurring;
  return scores;
}

std::vector<EncodedText> encode_all(const SequenceClassifier& model, const LabelledTexts& data,
                                    const ClassifyOptions& options) {
  std::vector<EncodedText> encoded;
  encoded.reserve(data.inputs.size());
  for (const TextInput& input : data.inputs) encoded.push_back(model.encode(input, options));
  return encoded;
}

}  // namespace

std::vector<int64_t> label_ids(const SequenceClassifier& model, const LabelledTexts& data) {
  const Json* problem = model.internal().config.find_value("problem_type");
  const bool one_label = problem == nullptr || problem->as_string("problem_type") == "single_label_classification";
  if (!one_label) {
    fail(ErrorCode::unsupported, model.internal().path + ": the model's problem_type is " +
                                     printable(problem->as_string("problem_type"), 100) +
                                     "; only predictions of one label can be scored");
  }
  std::vector<int64_t> ids;
  for (size_t i = 0; i < data.labels.size(); ++i) {
    const std::string place = i < data.places.size() ? data.places[i] : "text " + std::to_string(i + 1);
    ids.push_back(label_id(model.labels(), data.labels[i], place));
  }
  return ids;
}

LabelScores score_labels(const std::vector<Prediction>& predictions, const std::vector<int64_t>& labels) {
  if (predictions.empty() || predictions.size() != labels.size()) {
    fail(ErrorCode::invalid_argument, "there are " + std::to_string(labels.size()) + " labels for " +
                                          std::to_string(predictions.size()) + " predictions");
  }
  return weighted_scores(predictions, labels, {});
}

namespace {

/// @throws Error{format} naming the text and the layer where a prediction stops being a number.
void require_finite(const SequenceClassifier& model, const std::vector<EncodedText>& encoded,
                    const std::vector<Prediction>& predictions) {
  for (size_t i = 0; i < predictions.size(); ++i) {
    const std::vector<float>& logits = predictions[i].logits;
    if (std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); })) continue;
    const std::string place = find_nonfinite([&] { model.classify(std::vector<EncodedText>{encoded[i]}); });
    fail(ErrorCode::format, model.internal().path + ": text " + std::to_string(i + 1) +
                                ": the logits are not finite; NaN or infinity appears first " + place);
  }
}

std::vector<Prediction> predict(const SequenceClassifier& model, const std::vector<EncodedText>& encoded,
                                const ClassifyOptions& options) {
  std::vector<Prediction> predictions = model.classify(encoded, options);
  require_finite(model, encoded, predictions);
  return predictions;
}

const std::vector<std::string> kAlone = {"accuracy", "f1"};
const std::vector<std::string> kCompared = {"accuracy",      "f1",      "reference_accuracy", "reference_f1",
                                            "accuracy_drop", "f1_drop", "flip_share"};

/// Every text is a block of its own.
std::vector<Figure> label_figures(const std::vector<Prediction>& predictions, const std::vector<Prediction>& original,
                                  const std::vector<int64_t>& labels, uint64_t seed) {
  const auto values = [&](std::span<const int32_t> weights, std::span<double> out) {
    const LabelScores scores = weighted_scores(predictions, labels, weights);
    out[0] = scores.accuracy;
    out[1] = scores.f1;
    if (original.empty()) return;
    const LabelScores reference = weighted_scores(original, labels, weights);
    out[2] = reference.accuracy;
    out[3] = reference.f1;
    out[4] = reference.accuracy - scores.accuracy;
    out[5] = reference.f1 - scores.f1;
    double flips = 0;
    for (size_t i = 0; i < labels.size(); ++i) {
      flips += predictions[i].label_id != original[i].label_id ? weights[i] : 0;
    }
    out[6] = flips / static_cast<double>(labels.size());
  };
  return with_intervals(original.empty() ? kAlone : kCompared, static_cast<int64_t>(labels.size()), values, seed);
}

}  // namespace

LabelReport evaluate_labels(const SequenceClassifier& model, const SequenceClassifier* reference,
                            const LabelledTexts& data, const ClassifyOptions& options, uint64_t seed) {
  if (data.labels.empty()) fail(ErrorCode::invalid_argument, "the texts have no labels to compare with");
  if (reference && reference->labels() != model.labels()) {
    fail(ErrorCode::invalid_argument, "the model and its reference have different labels");
  }
  const std::vector<int64_t> labels = label_ids(model, data);
  const std::vector<EncodedText> encoded = encode_all(model, data, options);
  int64_t tokens = 0;
  for (const EncodedText& text : encoded) tokens += static_cast<int64_t>(text.ids.size());

  LabelReport report;
  report.texts = static_cast<int64_t>(encoded.size());
  report.bytes = model.weight_bytes();
  const auto start = std::chrono::steady_clock::now();
  const std::vector<Prediction> predictions = predict(model, encoded, options);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.tokens_per_second = static_cast<double>(tokens) / std::max(seconds, 1e-9);
  std::vector<Prediction> original;
  if (reference) original = predict(*reference, encode_all(*reference, data, options), options);
  report.figures = label_figures(predictions, original, labels, seed);
  report.accuracy = find_figure(report.figures, "accuracy")->value;
  report.f1 = find_figure(report.figures, "f1")->value;
  if (reference == nullptr) return report;

  report.has_reference = true;
  report.reference_bytes = reference->weight_bytes();
  report.reference_accuracy = find_figure(report.figures, "reference_accuracy")->value;
  report.reference_f1 = find_figure(report.figures, "reference_f1")->value;
  for (size_t i = 0; i < labels.size(); ++i) report.flips += predictions[i].label_id != original[i].label_id;
  report.verdict =
      verdict_on(*find_figure(report.figures, "accuracy_drop"), {.what = "accuracy", .sign = -1, .unit = " points"});
  return report;
}

std::vector<std::string> LabelReport::failed_gates(const EvaluateGates& gates) const {
  const double drop = reference_accuracy - accuracy;
  if (!gates.max_accuracy_drop || drop <= *gates.max_accuracy_drop) return {};
  return {fmt::format("accuracy fell by {:.6g}, above max_accuracy_drop {:.6g}", drop, *gates.max_accuracy_drop)};
}

}  // namespace nibble
