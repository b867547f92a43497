// Errors by layer: what each Linear adds, what has added up behind each block, and what each block costs alone.
#include "nibble/evaluate_layers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/error.h"
#include "core/progress.h"
#include "ops/linear.h"
#include "ops/linear_observer.h"
#include "quant/error_stats.h"
#include "tasks/evaluate_scoring.h"
#include "tasks/loaded_model.h"

namespace nibble {
namespace {

constexpr int64_t kHeadRows = 64;  // positions whose logits exist at a time

/// What both models read.
struct Sample {
  std::vector<int32_t> ids = {}, token_types = {};
  std::vector<int64_t> lengths = {};
  std::vector<int64_t> predicting_rows = {};  // of the hidden states: those that the head is used on

  Batch batch() const { return {.ids = ids, .lengths = lengths, .token_type_ids = token_types}; }
};

/// A layer of the model under test, and how it computes.
struct Candidate {
  const Linear* layer = nullptr;
  ComputeOptions options = {};
};
using Candidates = std::map<std::string, Candidate>;

double sqnr_db(double error) { return error > 0 ? -20 * std::log10(error) : std::numeric_limits<double>::infinity(); }

/// ||a - b|| / ||b||, from sums.
struct Difference {
  double noise = 0, signal = 0;

  void add(const Tensor& found, const Tensor& expected) {
    const float *a = found.f32(), *b = expected.f32();
    for (int64_t i = 0; i < expected.count(); ++i) {
      const double error = static_cast<double>(a[i]) - b[i];
      noise += error * error;
      signal += static_cast<double>(b[i]) * b[i];
    }
  }
  double relative() const { return signal > 0 ? std::sqrt(noise / signal) : (noise > 0 ? 1.0 : 0.0); }
};

/// "model.layers.3" of "model.layers.3.mlp.up_proj": the name up to its first number; without one, the name.
std::string block_of(const std::string& name) {
  for (size_t begin = 0; begin < name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    if (name.find_first_not_of("0123456789", begin) >= end) return name.substr(0, end);
    begin = end + 1;
  }
  return name;
}

Tensor gather_rows(const Tensor& hidden, const std::vector<int64_t>& rows) {
  Tensor out(DType::f32, {static_cast<int64_t>(rows.size()), hidden.cols()});
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(hidden.f32() + rows[i] * hidden.cols(), hidden.cols(),
                out.f32() + static_cast<int64_t>(i) * hidden.cols());
  }
  return out;
}

std::string format_name(const Linear& layer) {
  if (const auto* quantized = std::get_if<QuantizedTensor>(&layer.weight)) return std::string(quantized->format->name);
  const DType dtype = std::get<Tensor>(layer.weight).dtype;
  for (const Format& format : all_formats()) {
    if (format.dense == dtype) return std::string(format.name);
  }
  return std::string(dtype_name(dtype));
}

class Comparison {
 public:
  Comparison(const LoadedModel& model, const LoadedModel& reference, Sample sample, const ProgressFn& progress)
      : model_(*model.model), reference_(*reference.model), sample_(std::move(sample)), progress_(progress) {}

  LayersReport run() {
    LayersReport report = {.tokens = static_cast<int64_t>(sample_.ids.size())};
    find_candidates();
    measure_layers(report);
    for (const LayerError& layer : report.layers) {
      const std::string block = block_of(layer.name);
      if (report.blocks.empty() || report.blocks.back().name != block) report.blocks.push_back({.name = block});
      lossy_[block] |= layer.output_error > 0;
    }
    measure_hidden(report.blocks);
    for (size_t i = 0; i < report.blocks.size(); ++i) {
      check_interrupt();
      if (lossy_[report.blocks[i].name]) report.blocks[i].kl = kl_alone(report.blocks[i].name);
      if (progress_) {
        progress_({.unit = "layers",
                   .done = static_cast<int64_t>(i) + 1,
                   .total = static_cast<int64_t>(report.blocks.size())});
      }
    }
    return report;
  }

 private:
  /// The last hidden states at the positions that predict; the layers' states go to the tape.
  Tensor predicting(const Model& model, Tape* tape) const {
    return gather_rows(model.hidden(sample_.batch(), nullptr, tape), sample_.predicting_rows);
  }

  void find_candidates() {
    const LinearObserver observer([&](const LinearCall& call) {
      candidates_[call.layer.name] = {.layer = &call.layer, .options = call.options};
    });
    model_.logits(predicting(model_, &model_tape_).slice_rows(0, 1));
  }

  void measure_layers(LayersReport& report) {
    std::map<std::string, Difference> outputs;
    std::vector<std::string> order;
    const LinearObserver observer([&](const LinearCall& call) {
      check_interrupt();
      const auto [entry, is_new] = outputs.try_emplace(call.layer.name);
      if (is_new) report.layers.push_back(weight_error(call.layer));
      const Candidate& ours = candidates_.at(call.layer.name);
      entry->second.add(linear(call.x, *ours.layer, ours.options), call.y);
    });
    reference_hidden_ = predicting(reference_, &reference_tape_);
    for (int64_t t = 0; t < reference_hidden_.rows(); t += kHeadRows) {
      reference_.logits(reference_hidden_.slice_rows(t, std::min(reference_hidden_.rows(), t + kHeadRows)));
    }
    for (LayerError& layer : report.layers) {
      layer.output_error = outputs.at(layer.name).relative();
      layer.output_sqnr_db = sqnr_db(layer.output_error);
    }
  }

  LayerError weight_error(const Linear& original) const {
    const auto found = candidates_.find(original.name);
    if (found == candidates_.end() || weight_shape(found->second.layer->weight) != weight_shape(original.weight)) {
      fail(ErrorCode::invalid_argument, original.name + ": is a layer of the reference, the model has none like it");
    }
    const Linear& ours = *found->second.layer;
    const auto* dense = std::get_if<Tensor>(&original.weight);
    const ErrorStats stats = error_stats(dense ? *dense : decode(original.weight), ours.weight);
    return {.name = original.name,
            .format = format_name(ours),
            .bytes = weight_bytes(ours.weight),
            .weight_error = stats.relative_error,
            .weight_sqnr_db = stats.sqnr_db};
  }

  /// Blocks are in the order of the model, so the i-th leaves "hidden.(i + 1)"; the head leaves none.
  void measure_hidden(std::vector<BlockError>& blocks) const {
    for (size_t i = 0; i < blocks.size(); ++i) {
      const std::string name = "hidden." + std::to_string(i + 1);
      const Tensor *ours = model_tape_.find(name), *expected = reference_tape_.find(name);
      if (ours == nullptr || expected == nullptr) return;
      Difference difference;
      difference.add(*ours, *expected);
      blocks[i].hidden_error = difference.relative();
    }
  }

  double kl_alone(const std::string& block) const {
    const auto replace = [&](const LinearCall& call) {
      if (block_of(call.layer.name) != block) return;
      const Candidate& ours = candidates_.at(call.layer.name);
      call.y = linear(call.x, *ours.layer, ours.options);
    };
    Tensor hidden;
    {
      const LinearObserver observer(replace);
      hidden = predicting(reference_, nullptr);
    }
    double kl = 0;
    for (int64_t t = 0; t < hidden.rows(); t += kHeadRows) {
      const int64_t end = std::min(hidden.rows(), t + kHeadRows);
      const Tensor expected = reference_.logits(reference_hidden_.slice_rows(t, end));
      const LinearObserver observer(replace);
      kl += kl_sum(expected, reference_.logits(hidden.slice_rows(t, end)));
    }
    return kl / static_cast<double>(hidden.rows());
  }

  static double kl_sum(const Tensor& expected, const Tensor& found) {
    std::vector<Position> positions;
    const std::vector<int32_t> any(static_cast<size_t>(found.rows()));
    score_rows({.targets = any, .logits = found, .reference = expected}, positions);
    double sum = 0;
    for (const Position& p : positions) sum += p.kl;
    return sum;
  }

  const Model &model_, &reference_;
  Sample sample_;
  const ProgressFn& progress_;
  Candidates candidates_;
  Tape model_tape_, reference_tape_;
  Tensor reference_hidden_;
  std::map<std::string, bool> lossy_;
};

}  // namespace

LayersReport evaluate_layers(const CausalLM& model, const CausalLM& reference, const std::vector<int32_t>& ids,
                             const LayersOptions& options) {
  if (ids.empty() || options.tokens < 1) fail(ErrorCode::invalid_argument, "layers: there are no tokens to measure on");
  if (reference.vocab_size() != model.vocab_size()) {
    fail(ErrorCode::invalid_argument, "reference: has a vocabulary of " + std::to_string(reference.vocab_size()) +
                                          ", the model one of " + std::to_string(model.vocab_size()));
  }
  Sample sample;
  const auto count = std::min(static_cast<int64_t>(ids.size()), options.tokens);
  sample.ids.assign(ids.begin(), ids.begin() + count);
  for (int64_t i = 0; i < count; ++i) sample.predicting_rows.push_back(i);
  return Comparison(model.internal(), reference.internal(), std::move(sample), options.progress).run();
}

LayersReport evaluate_layers(const SequenceClassifier& model, const SequenceClassifier& reference,
                             const std::vector<TextInput>& texts, const LayersOptions& options) {
  if (texts.empty() || options.tokens < 1)
    fail(ErrorCode::invalid_argument, "layers: there are no texts to measure on");
  Sample sample;
  for (const TextInput& text : texts) {
    const EncodedText encoded = model.encode(text, {.long_text = LongText::truncate});
    const auto length = static_cast<int64_t>(encoded.ids.size());
    const auto begin = static_cast<int64_t>(sample.ids.size());
    if (begin > 0 && begin + length > options.tokens) break;
    sample.predicting_rows.push_back(begin);
    sample.lengths.push_back(length);
    sample.ids.insert(sample.ids.end(), encoded.ids.begin(), encoded.ids.end());
    sample.token_types.insert(sample.token_types.end(), encoded.token_type_ids.begin(), encoded.token_type_ids.end());
    sample.token_types.resize(sample.ids.size());
  }
  return Comparison(model.internal(), reference.internal(), std::move(sample), options.progress).run();
}

}  // namespace nibble
