#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nibble/classify.h"
#include "nibble/model.h"
#include "nibble/qat_config.h"

namespace nibble {

struct QatState;  // internal

/// What a step of training learns from.
struct QatSample {
  std::vector<int32_t> ids = {};
  /// Of a language model: for every id what the model should say in its place, -100 = nothing; empty = the ids
  /// themselves. Of a classifier the one label.
  std::vector<int32_t> labels = {};
  std::vector<int32_t> token_type_ids = {};  ///< BERT's segment of each id; empty = all 0
};

/// A model that computes what it will compute once it is quantized, to the last bit, while all of its parameters are
/// trained in f32. It shares the model it was made from: that one computes so too, in evaluate() and generate().
class QatModel {
 public:
  explicit QatModel(std::shared_ptr<QatState> state) : state_(std::move(state)) {}

  /// The layers that will be quantized.
  const std::vector<std::string>& modules() const;

  /// One step of AdamW without weight decay, over all samples at once; gradients longer than 1 are scaled down.
  /// finetune() has what else a training can want.
  /// @returns the mean loss before it, over all labels
  /// @throws Error{invalid_argument} for ids and labels that the model does not have, and after convert();
  /// Error{internal} naming the layer where a value is not finite; then nothing is changed.
  double train_step(const std::vector<QatSample>& samples, double learning_rate);

  /// Observed ranges of activations stay as they are from here on: for the last steps, which then train what will run.
  void freeze_ranges();

  /// Writes the folder of the model as it is now, in the format of the training; loaded with the options that the model
  /// was loaded with it gives the same bits.
  /// @throws Error{exists} when the folder exists and overwrite is not set, or is no model; Error{invalid_argument}
  /// when it is, or holds, the model, and after convert().
  enum class Existing { refuse, overwrite };
  void save_pretrained(const std::string& folder, Existing existing = Existing::refuse) const;

  /// The same in memory: the model has quantized weights from here on, and is not trained any more.
  void convert();

 private:
  std::shared_ptr<QatState> state_;
};

/// Prepares every Linear layer that quantize() would quantize: all but the output head and those that `skip` names.
/// Load the model as it is to run: 4-bit formats with the activations and the compute dtype of the result.
///
///     QatModel qat = prepare_qat(model, {.format = "int4"});
///     for (int step = 0; step < 20; ++step) qat.train_step({{.ids = model.encode(text)}}, 2e-5);
///     qat.save_pretrained("smollm2-int4");
///
/// @throws Error{invalid_argument} for a format that is dense or has no such values, a name of `skip` that means no
/// layer, and a model that is prepared already; Error{unsupported} for one with quantized weights or with adapters,
/// which finetune() trains.
QatModel prepare_qat(const CausalLM& model, const QatConfig& config, const std::vector<std::string>& skip = {});
QatModel prepare_qat(const SequenceClassifier& model, const QatConfig& config,
                     const std::vector<std::string>& skip = {});

}  // namespace nibble
