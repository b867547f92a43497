#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "nibble/dtype.h"
#include "nibble/lora_config.h"
#include "nibble/progress.h"

namespace nibble {

/// One step of the optimizer, as a line of OUT/log.jsonl has it.
struct FinetuneStep {
  int64_t step = 0, steps = 0;  ///< 1, 2, ...; of how many
  double epoch = 0;
  double loss = 0;  ///< mean over the trained tokens of the step
  double learning_rate = 0;
  double grad_norm = 0;                            ///< before clipping
  int64_t tokens = 0;                              ///< that were trained; for classifiers texts
  double tokens_per_second = 0, seconds_left = 0;  ///< of all tokens that went through the model
  std::optional<double> eval_loss = {};
  bool skipped = false;  ///< the loss or a gradient was not finite
};

/// A piece of the text of a sample.
struct PreviewPiece {
  std::string text = {};
  bool trained = false;
};

/// What is in the data, and what looks wrong with it.
struct FinetuneData {
  int64_t samples = 0;  ///< that training uses
  int64_t tokens = 0, trained_tokens = 0, longest = 0;
  int64_t max_length = 0;   ///< tokens that a sample may have: the option, and no more than the model takes
  int64_t truncated = 0;    ///< longer than that
  int64_t dropped = 0;      ///< without anything to train on, most often because it was cut off
  int64_t missing_eos = 0;  ///< nothing that ends a text is trained: the model would not learn to stop
  int64_t double_bos = 0;
  std::vector<PreviewPiece> preview = {};  ///< the first sample

  /// One line for each thing that looks wrong.
  std::vector<std::string> warnings() const;
};

/// The files of a run.
struct FinetuneDataSets {
  FinetuneData data = {};
  std::optional<FinetuneData> eval_data = {};  ///< where a file to evaluate on is given
  std::vector<std::string> warnings = {};      ///< of check_finetune_data(), as those of a FinetuneReport
};

struct FinetuneOptions {
  /// "lora", "qlora" (the same over a quantized base), "full", "qat" (knowing that the result will be quantized)
  std::string method = "lora";
  std::string task = {};  ///< "causal_lm" or "seq_cls"; "" = what the model is
  std::string data = {}, eval_data = {};

  LoraConfig lora = {.r = 16, .lora_alpha = 32, .target_modules = "all-linear"};
  std::string init_adapter = {};  ///< start from this adapter folder, with its configuration instead of `lora`
  bool use_lora = false;  ///< qat: train such an adapter, merged and rounded in every pass, instead of all parameters

  // qlora: what a dense base is quantized to while it is loaded; one that is quantized is used as it is. qat: what the
  // result is quantized to. As for quantize().
  std::string format = {};  ///< "" = "nf4"
  bool double_quant = false;
  int64_t block = 0;
  std::string granularity = "channel";
  std::vector<std::string> skip = {};
  /// qat with format int8-dynamic: the range of activations is that of each token ("dynamic"), or a fixed one that
  /// training observes ("observed"): a moving average, which stands still for the last tenth of the steps.
  std::string qat_activations = "dynamic";
  /// lora, qlora: a quantized format. The adapter is trained through the rounding of a merge() into it, with this block
  /// and double_quant (qlora: where the base has the same format).
  std::string merge_aware = {};
  /// What weights that do not learn are multiplied in, forward and back: "fp32", or "int16", which is faster with
  /// AVX-512. The losses of single steps then differ by some parts in 10,000, without drift: docs/finetuning.md.
  std::string activations = "fp32";
  std::optional<DType> compute_dtype = {};  ///< of evaluation, and of training with qat; else training is in fp32

  int64_t epochs = 1;
  int64_t steps = 0;          ///< 0 = as the epochs say, else instead of them
  int64_t batch = 1;          ///< sequences, or packed rows, that go through the model together
  int64_t grad_accum = 1;     ///< batches in a step; a token weighs the same in each of them
  int64_t max_length = 1024;  ///< tokens; longer samples lose their ends
  bool packing = false;       ///< samples share rows of max_length tokens; they do not see each other
  bool shuffle = true;
  uint64_t seed = 0;
  bool gradient_checkpointing = false;  ///< less memory for a third more work, the same bits

  std::string optimizer = "adamw";           ///< "adamw", "adamw8bit", "sgd"
  std::optional<double> learning_rate = {};  ///< nothing = 2e-4 for adapters, 2e-5 without
  std::string schedule = "linear";           ///< "linear", "cosine", "constant"
  double warmup = 0;                         ///< steps; below 1: a share of all steps
  double weight_decay = 0, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, momentum = 0;
  double max_grad_norm = 1;  ///< 0 = no clipping

  int64_t eval_every = 0;      ///< steps; 0 = at the end of every epoch
  int64_t early_stopping = 0;  ///< stop after so many evaluations without a better loss; 0 = never
  int64_t save_every = 0;      ///< steps between checkpoints; 0 = none but when interrupted
  int64_t save_limit = 0;      ///< checkpoints to keep; 0 = all
  std::string on_nonfinite =
      "stop";  ///< a loss or gradient that is not finite: "stop" naming the layer, or "skip" the step
  /// Continue: the folder of a checkpoint, or "last" for the newest one in the output. Continued training gives the
  /// bytes that training without a break gives.
  std::string resume = {};
  bool tensorboard = false;  ///< also write an event file for TensorBoard
  bool overwrite = false;
  ProgressFn progress = {};                                   ///< of loading
  std::function<void(const FinetuneDataSets&)> on_data = {};  ///< once, before the first step
  std::function<void(const FinetuneStep&)> on_step = {};
};

struct FinetuneReport {
  std::string output = {}, method = {}, task = {};
  int64_t steps = 0, skipped_steps = 0;
  double final_loss = 0;                                      ///< of the last step
  std::optional<double> eval_loss = {}, best_eval_loss = {};  ///< at the end; the best one
  int64_t trainable_parameters = 0, tokens = 0;
  double tokens_per_second = 0;
  bool stopped_early = false;
  std::vector<std::string> warnings = {};  ///< what `lora` says that means nothing in this model, a line each
  FinetuneData data = {};
  std::optional<FinetuneData> eval_data = {};  ///< where there is such a file
  FinetuneOptions options = {};  ///< as they were used: the method's learning rate and the adapter's configuration too
};

/// Trains a model, or an adapter of it, on a file:
///   .jsonl       an object per line: text; prompt and completion; messages; conversations (ShareGPT); instruction,
///                input and output (Alpaca); or input_ids and labels. Prompts are not trained, and neither are turns of
///                others than the assistant.
///   .txt         one text, cut into rows of max_length tokens
///   .tsv, .csv   for classifiers, and .jsonl too: as read_labelled_texts() reads them
///
/// `out` is a folder with log.jsonl from the first step on, checkpoint-N folders, best/ (with eval_data), and when all
/// is done the result: a PEFT adapter, or for "full" and "qat" a model folder. With "qat" it is a quantized one, which
/// runs with the bits that training saw.
/// @throws Error{format} naming file and line of data that is malformed, Error{interrupted} after a checkpoint has been
/// written, Error{exists} when `out` exists, is not continued and overwrite is not set.
FinetuneReport finetune(const std::string& model, const std::string& out, const FinetuneOptions& options);

/// The steps that a run has written to OUT/log.jsonl, those before a --resume too; steps and seconds_left are not in
/// it.
/// @throws Error{io, format} naming the file and the line.
std::vector<FinetuneStep> read_finetune_log(const std::string& out);

/// Checks the options, against the model too, and reads the data as finetune() would, and goes no further: nothing is
/// quantized and no value of a weight is looked at.
FinetuneDataSets check_finetune_data(const std::string& model, const FinetuneOptions& options);

/// `base` with what a YAML file says, in the words of FinetuneOptions or in those of axolotl.
/// `report` and `threads` are for the program and have no effect here.
/// @throws Error{format} for unknown keys, naming the nearest known one, for values of the wrong type, and for keys
/// that say the same or contradict each other.
FinetuneOptions finetune_options_from_file(const std::string& path, const FinetuneOptions& base = {});

}  // namespace nibble
