// Quantization-aware training step by step, as the public headers have it.
#include <optional>
#include <set>

#include "core/error.h"
#include "nibble/qat.h"
#include "tasks/model_output.h"
#include "tasks/qat_folder.h"
#include "tasks/stored_form.h"
#include "train/train_step.h"

namespace nibble {

struct QatState {
  std::shared_ptr<LoadedModel> loaded;
  std::vector<std::string> modules;
  std::vector<TrainedParameter> parameters = {};
  std::optional<Optimizer> optimizer = {};  // none once the model is converted

  Model& model() const { return *loaded->model; }
};

namespace {

constexpr double kMaxNorm = 1;     // of gradients, as finetune() has it
constexpr double kMostRate = 1e6;  // nothing is trained in steps of that size

/// What stands in the way of preparing a model, and the bytes of its weights.
class LookAtWeights final : public ParameterVisitor {
 public:
  void linear(Linear& layer) override {
    see(layer.weight, !layer.adapters.empty());
    if (layer.bias) bytes += layer.bias->bytes();
    is_prepared |= layer.fake_quant != nullptr;
  }
  void embedding(Embedding& table) override { see(table.weight, !table.adapters.empty()); }
  void vector(const std::string&, Tensor& values) override { bytes += values.bytes(); }

  bool has_quantized = false, has_adapters = false, is_prepared = false;
  uint64_t bytes = 0;

 private:
  void see(const Weight& weight, bool adapted) {
    const auto* dense = std::get_if<Tensor>(&weight);
    has_quantized |= dense == nullptr;
    has_adapters |= adapted;
    const bool is_tied = dense && !seen_.insert(dense->buffer.get()).second;
    if (!is_tied) bytes += weight_bytes(weight);
  }

  std::set<const Buffer*> seen_;
};

LookAtWeights look_at(Model& model) {
  LookAtWeights seen;
  model.visit(seen);
  return seen;
}

void check_preparable(const LoadedModel& model) {
  const LookAtWeights seen = look_at(*model.model);
  const std::string qat = "qat: " + model.path;
  if (seen.is_prepared) fail(ErrorCode::invalid_argument, qat + ": is prepared already");
  if (seen.has_adapters) {
    fail(ErrorCode::unsupported, qat + ": has adapters; merge them first, or train one with finetune() and use_lora");
  }
  if (seen.has_quantized) {
    fail(ErrorCode::unsupported, qat + ": has quantized weights, and all are trained; load the original model");
  }
}

QatModel prepare(const std::shared_ptr<LoadedModel>& loaded, const QatConfig& config,
                 const std::vector<std::string>& skip) {
  check_preparable(*loaded);
  QatState state = {.loaded = loaded, .modules = prepare_qat_model(*loaded, config, skip)};
  state.parameters = train_parameters(*loaded->model, [](std::string_view) { return true; });
  const StoredForm stored(loaded->config, loaded->path, loaded->parameters);
  for (TrainedParameter& p : state.parameters) p.decays_to = stored.zero(p.name);
  state.optimizer.emplace(state.parameters, OptimizerOptions{});
  loaded->weight_bytes = look_at(*loaded->model).bytes;
  return QatModel(std::make_shared<QatState>(std::move(state)));
}

void check_sizes(const QatSample& sample, bool has_one_label) {
  const size_t labels = has_one_label ? 1 : sample.ids.size();
  if (sample.ids.empty()) fail(ErrorCode::invalid_argument, "qat: a sample has no ids");
  if (sample.labels.size() != labels && (has_one_label || !sample.labels.empty())) {
    fail(ErrorCode::invalid_argument, "qat: a sample of " + std::to_string(sample.ids.size()) + " ids has " +
                                          std::to_string(sample.labels.size()) + " labels, expected " +
                                          std::to_string(labels));
  }
  if (!sample.token_type_ids.empty() && sample.token_type_ids.size() != sample.ids.size()) {
    fail(ErrorCode::invalid_argument, "qat: a sample has " + std::to_string(sample.ids.size()) + " ids and " +
                                          std::to_string(sample.token_type_ids.size()) + " token_type_ids");
  }
}

LabelledBatch batch_of(const std::vector<QatSample>& samples, bool has_one_label) {
  LabelledBatch batch;
  for (const QatSample& sample : samples) {
    check_sizes(sample, has_one_label);
    const std::vector<int32_t>& labels = sample.labels.empty() ? sample.ids : sample.labels;
    batch.ids.insert(batch.ids.end(), sample.ids.begin(), sample.ids.end());
    batch.labels.insert(batch.labels.end(), labels.begin(), labels.end());
    batch.token_type_ids.insert(batch.token_type_ids.end(), sample.token_type_ids.begin(), sample.token_type_ids.end());
    batch.token_type_ids.resize(batch.ids.size());
    batch.lengths.push_back(static_cast<int64_t>(sample.ids.size()));
  }
  return batch;
}

void require_training(const QatState& state) {
  if (!state.optimizer) fail(ErrorCode::invalid_argument, "qat: " + state.loaded->path + ": is converted already");
}

}  // namespace

QatModel prepare_qat(const CausalLM& model, const QatConfig& config, const std::vector<std::string>& skip) {
  return prepare(model.shared(), config, skip);
}

QatModel prepare_qat(const SequenceClassifier& model, const QatConfig& config, const std::vector<std::string>& skip) {
  return prepare(model.shared(), config, skip);
}

const std::vector<std::string>& QatModel::modules() const { return state_->modules; }

double QatModel::train_step(const std::vector<QatSample>& samples, double learning_rate) {
  require_training(*state_);
  if (samples.empty()) fail(ErrorCode::invalid_argument, "qat: no samples to train on");
  if (!(learning_rate >= 0) || learning_rate > kMostRate) {
    fail(ErrorCode::invalid_argument,
         "qat: learning_rate: found " + std::to_string(learning_rate) + ", expected 0 to " + std::to_string(kMostRate));
  }
  Model& model = state_->model();
  const std::vector<LabelledBatch> batches = {batch_of(samples, !model.info().predicts_text())};
  const ObservedRanges before = observed_ranges(model);
  Tape tape = tape_for(state_->parameters);
  const StepResult result =
      nibble::train_step(model, batches, tape, *state_->optimizer, {.rate = learning_rate, .max_norm = kMaxNorm});
  if (result.finite()) return result.loss.mean();
  restore_observed_ranges(model, before);
  const std::string layer = first_nonfinite_layer(model, batches);
  fail(ErrorCode::internal,
       "qat: a value is not finite, first in " + (layer.empty() ? result.broken : layer) + "; lower the learning rate");
}

void QatModel::freeze_ranges() { freeze_qat_ranges(state_->model()); }

void QatModel::save_pretrained(const std::string& folder, Existing existing) const {
  require_training(*state_);
  const Overwrite overwrite = existing == Existing::overwrite ? Overwrite::yes : Overwrite::no;
  OutputFolder out = model_output(folder, overwrite, {state_->loaded->path});
  write_qat_model(out, *state_->loaded, state_->parameters);
  out.commit();
}

void QatModel::convert() {
  require_training(*state_);
  convert_qat(state_->model(), state_->loaded->compute);
  state_->optimizer.reset();
  state_->parameters.clear();
  state_->loaded->weight_bytes = look_at(state_->model()).bytes;
}

}  // namespace nibble
