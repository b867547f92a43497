// A training run from the first step to the last: what is trained comes from finetune_methods, what it is trained on
// from finetune_data, and the mathematics of a step from train/.
#include "nibble/finetune.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "core/checksum.h"
#include "core/counter_random.h"
#include "core/error.h"
#include "core/progress.h"
#include "io/model_files.h"
#include "io/peft.h"
#include "tasks/finetune_checkpoint.h"
#include "tasks/finetune_data.h"
#include "tasks/finetune_folder.h"
#include "tasks/finetune_log.h"
#include "tasks/finetune_methods.h"
#include "tasks/finetune_options.h"
#include "tasks/finetune_settings.h"
#include "tasks/stored_form.h"
#include "train/schedule.h"
#include "train/train_step.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kDropoutStream = 0x44524f50;  // apart from other uses of the seed
constexpr int64_t kFrozenShare = 10;             // one in so many steps trains with observed ranges that stand still

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

bool is_classification(const LoadedModel& model, const std::string& task) {
  const ModelInfo& info = model.model->info();
  const std::string is = info.predicts_text() ? "causal_lm" : "seq_cls";
  if (!task.empty() && task != is) {
    fail(ErrorCode::unsupported, model.path + ": " + info.architecture + " can be trained for " + is + ", not " + task);
  }
  if (info.is_encoder && info.labels.empty()) {
    fail(ErrorCode::unsupported, model.path + ": " + info.architecture + " has no classifier to train");
  }
  const Json* problem = model.config.find_value("problem_type");
  if (problem && problem->is_string() && problem->as_string("problem_type") == "multi_label_classification") {
    fail(ErrorCode::unsupported, model.path + ": problem_type: is multi_label_classification; a classifier of one " +
                                     "label for each text can be trained, and a regression");
  }
  return !info.predicts_text();
}

DataOptions data_options(const LoadedModel& model, const FinetuneOptions& o) {
  return {.classify = is_classification(model, o.task),
          .max_length = std::min(o.max_length, model.model->info().context_length)};
}

/// Samples in rows, and the rows in batches.
struct Batches {
  TrainingData data;
  std::vector<std::vector<size_t>> rows;
  int64_t batch = 1;

  int64_t count() const {
    const auto all = static_cast<int64_t>(rows.size());
    return (all + batch - 1) / batch;
  }
  LabelledBatch get(int64_t index, const std::vector<size_t>& order) const {
    const auto begin = order.begin() + index * batch;
    const auto end = order.begin() + std::min((index + 1) * batch, static_cast<int64_t>(order.size()));
    return batch_of(data.samples, rows, {begin, end});
  }
};

Batches read_batches(const std::shared_ptr<LoadedModel>& model, const std::string& path, const FinetuneOptions& o) {
  const DataOptions options = data_options(*model, o);
  Batches batches = {.data = read_training_data(model, path, options), .rows = {}, .batch = o.batch};
  batches.rows = rows_of(batches.data.samples, o.packing && !options.classify, options.max_length);
  return batches;
}

/// Of what is trained on: a run continues over the same data.
std::string checksum_of(const std::vector<TrainingSample>& samples) {
  Checksum checksum;
  for (const TrainingSample& sample : samples) {
    for (const std::vector<int32_t>* ids : {&sample.ids, &sample.labels, &sample.token_type_ids}) {
      checksum.add(ids->size());
      for (const int32_t id : *ids) checksum.add(static_cast<uint64_t>(id));
    }
    for (const float target : sample.targets) checksum.add(std::bit_cast<uint32_t>(target));
  }
  return fmt::format("{:016x}", checksum.value());
}

/// Some of its bytes.
void add_sample(const Tensor& tensor, Checksum& checksum) {
  constexpr size_t kPieces = 64, kPiece = 64;
  const std::span bytes(tensor.raw(), tensor.bytes());
  const size_t step = std::max(kPiece, bytes.size() / kPieces);
  for (size_t at = 0; at < bytes.size(); at += step) {
    checksum.add(bytes.subspan(at, std::min(kPiece, bytes.size() - at)));
  }
}

/// Of some bytes of every weight that training begins with: a run continues over the same model.
std::string checksum_of_base(const std::string& model) {
  const ModelFiles files = open_model(model);
  Checksum checksum;
  for (const SourceTensor& tensor : files.weights->tensors()) {
    checksum.add(tensor.name + " " + tensor.format + " " + shape_text(tensor.shape));
    const Weight weight = files.weights->load(tensor.name, Residency::mapped);
    if (const auto* dense = std::get_if<Tensor>(&weight)) {
      add_sample(*dense, checksum);
    } else {
      for (const auto& [name, part] : std::get<QuantizedTensor>(weight).parts) add_sample(part, checksum);
    }
  }
  return fmt::format("{:016x}", checksum.value());
}

class Run {
 public:
  Run(const std::string& model, const std::string& out, FinetuneOptions options)
      : o_(std::move(options)), method_(find_finetune_method(o_)), out_(RunFolder::checked(out, model, o_)) {
    if (!o_.learning_rate) o_.learning_rate = method_.learning_rate;
    settle_format(o_, model);
    check_finetune_adapter(o_, model);
    model_ = load_model(model, method_.load_options(o_, model));
    train_ = read_batches(model_, o_.data, o_);
    data_checksum_ = checksum_of(train_.data.samples);
    base_checksum_ = checksum_of_base(model);
    if (!o_.eval_data.empty()) {
      eval_ = read_batches(model_, o_.eval_data, o_);
      state_.eval_checksum = checksum_of(eval_->data.samples);
    }
    if (o_.on_data) o_.on_data(data_sets());
    trained_ = method_.prepare(*model_, o_);
    const StoredForm stored(model_->config, model, model_->parameters);
    for (TrainedParameter& p : trained_.parameters) p.decays_to = stored.zero(p.name);
    o_.use_lora = method_.use_lora;
    o_.lora = trained_.config;
    const double in_epoch = static_cast<double>(train_.count()) / static_cast<double>(o_.grad_accum);
    steps_in_epoch_ = static_cast<int64_t>(std::ceil(in_epoch));
    steps_ = o_.steps > 0 ? o_.steps : o_.epochs * steps_in_epoch_;
    const double warmup = o_.warmup < 1 ? std::ceil(o_.warmup * static_cast<double>(steps_)) : o_.warmup;
    schedule_ = {.shape = parse_schedule(o_.schedule), .warmup = static_cast<int64_t>(warmup), .steps = steps_};
  }

  FinetuneReport go() {
    Optimizer optimizer(trained_.parameters, {.name = o_.optimizer,
                                              .beta1 = o_.beta1,
                                              .beta2 = o_.beta2,
                                              .eps = o_.epsilon,
                                              .weight_decay = o_.weight_decay,
                                              .momentum = o_.momentum});
    fs::path from;
    if (!o_.resume.empty()) {
      from = RunFolder::checkpoint_to_resume(out_, o_);
      const std::string eval_checksum = state_.eval_checksum;
      state_ = read_checkpoint_state(from, optimizer, settings());
      if (state_.eval_checksum != eval_checksum) state_.forget_evaluations(eval_checksum);
      restore_observed_ranges(*model_->model, state_.observed);
    }
    RunFolder folder(out_, o_);
    if (state_.best_eval_loss) folder.take_best(from.parent_path());
    FinetuneLog log(folder.path(), state_.step, o_.tensorboard);
    try {
      loop(folder, log, optimizer);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::interrupted) throw;
      clear_interrupt();
      restore_observed_ranges(*model_->model, state_.observed);  // a step that was cut short has not been
      save(folder, optimizer);
      fail(ErrorCode::interrupted, "interrupted at step " + std::to_string(state_.step) + "; saved " +
                                       checkpoint_path(folder.path(), state_.step).string() +
                                       ", --resume continues from there");
    }
    log.close();
    if (state_.skipped == state_.step && state_.step > 0) {
      fail(ErrorCode::internal, "nothing was learned: all " + std::to_string(state_.step) +
                                    " steps were skipped, since a value was not finite" +
                                    (last_broken_.empty() ? "" : ", in the last one first in " + last_broken_));
    }
    const HoldInterrupts done;  // all that a run that continued could do now is this
    write(folder.result());
    folder.publish();
    clear_interrupt();  // it has come too late
    return report();
  }

 private:
  void loop(RunFolder& folder, FinetuneLog& log, Optimizer& optimizer) {
    Tape tape = tape_for(trained_.parameters);
    tape.recompute_layers = o_.gradient_checkpointing;
    tape.in_pairs = o_.activations == "int16";
    const int64_t first = state_.step;
    begin_ = Clock::now();
    while (state_.step < steps_ && !has_stopped_early()) {
      check_interrupt();
      if (state_.step >= first_frozen_step()) freeze_qat_ranges(*model_->model);
      FinetuneStep step = run_step(tape, optimizer);
      step.seconds_left =
          seconds_since(begin_) / static_cast<double>(state_.step - first) * static_cast<double>(steps_ - state_.step);
      if (is_evaluation_due()) evaluate(folder, step);
      log.add(step);
      if (o_.on_step) o_.on_step(step);
      const bool last = state_.step == steps_ || has_stopped_early();
      if (o_.save_every > 0 && (last || state_.step % o_.save_every == 0)) save(folder, optimizer);
    }
  }

  /// At least one step observes.
  int64_t first_frozen_step() const {
    return std::max<int64_t>(1, steps_ - (steps_ + kFrozenShare - 1) / kFrozenShare);
  }

  std::vector<LabelledBatch> next_batches() {
    const int64_t epoch = state_.step / steps_in_epoch_, begin = state_.step % steps_in_epoch_ * o_.grad_accum;
    if (epoch != epoch_) {
      epoch_ = epoch;
      order_ = epoch_order(train_.rows.size(), o_.shuffle, o_.seed, epoch);
    }
    std::vector<LabelledBatch> batches;
    for (int64_t i = begin; i < std::min(begin + o_.grad_accum, train_.count()); ++i) {
      batches.push_back(train_.get(i, order_));
    }
    return batches;
  }

  FinetuneStep run_step(Tape& tape, Optimizer& optimizer) {
    const auto start = Clock::now();
    const std::vector<LabelledBatch> batches = next_batches();
    const double rate = *o_.learning_rate * schedule_factor(schedule_, state_.step);
    const auto index = static_cast<uint64_t>(state_.step);
    const StepResult result = train_step(*model_->model, batches, tape, optimizer,
                                         {.rate = rate,
                                          .max_norm = o_.max_grad_norm,
                                          .dropout_seed = CounterRandom(o_.seed, kDropoutStream).bits(index)});
    if (result.finite()) {
      state_.last_loss = result.loss.mean();
      state_.observed = observed_ranges(*model_->model);
    } else {
      refuse_or_skip(batches, result);
    }
    int64_t tokens = 0;
    for (const LabelledBatch& batch : batches) tokens += static_cast<int64_t>(batch.ids.size());
    ++state_.step;
    state_.tokens += tokens;
    ran_tokens_ += tokens;
    return {.step = state_.step,
            .steps = steps_,
            .epoch = static_cast<double>(state_.step) / static_cast<double>(steps_in_epoch_),
            .loss = result.loss.mean(),
            .learning_rate = rate,
            .grad_norm = result.norm,
            .tokens = result.loss.count,
            .tokens_per_second = static_cast<double>(tokens) / std::max(seconds_since(start), 1e-9),
            .skipped = !result.finite()};
  }

  void refuse_or_skip(const std::vector<LabelledBatch>& batches, const StepResult& result) {
    const bool learned = state_.skipped++ < state_.step;
    restore_observed_ranges(*model_->model, state_.observed);
    if (o_.on_nonfinite == "skip" && learned) return;
    last_broken_ = first_nonfinite_layer(*model_->model, batches);
    if (last_broken_.empty()) last_broken_ = result.broken;
    if (o_.on_nonfinite == "skip") return;
    fail(ErrorCode::internal, "step " + std::to_string(state_.step + 1) + ": a value is not finite, first in " +
                                  last_broken_ + "; lower the learning rate, or skip such steps (--on-nonfinite skip)");
  }

  bool is_evaluation_due() const {
    if (!eval_) return false;
    const int64_t every = o_.eval_every > 0 ? o_.eval_every : steps_in_epoch_;
    return state_.step % every == 0 || state_.step == steps_;
  }

  bool has_stopped_early() const {
    return o_.early_stopping > 0 && state_.evaluations_without_gain >= o_.early_stopping;
  }

  // Not interrupted: a checkpoint of this step has to have seen it.
  void evaluate(RunFolder& folder, FinetuneStep& step) {
    const HoldInterrupts whole;
    const std::vector<size_t> order = epoch_order(eval_->rows.size(), false, 0, 0);
    Loss loss;
    for (int64_t i = 0; i < eval_->count(); ++i) {
      const Loss part = loss_of(*model_->model, eval_->get(i, order));
      loss.sum += part.sum;
      loss.count += part.count;
    }
    step.eval_loss = state_.eval_loss = loss.mean();
    const bool better = std::isfinite(loss.mean()) && (!state_.best_eval_loss || loss.mean() < *state_.best_eval_loss);
    state_.evaluations_without_gain = better ? 0 : state_.evaluations_without_gain + 1;
    if (!better) return;
    state_.best_eval_loss = loss.mean();
    OutputFolder best(folder.best(), Overwrite::yes);
    write(best);
    best.commit();
    folder.has_new_best();
  }

  /// The result as it is now. A loss tells of the values before its step: what the last one made of them, nothing does.
  void write(OutputFolder& folder) const {
    const std::string broken = first_nonfinite_parameter(trained_.parameters);
    if (!broken.empty()) {
      fail(ErrorCode::internal, "step " + std::to_string(state_.step) + ": a value of " + broken +
                                    " is not finite after it; lower the learning rate or the weight decay");
    }
    method_.write(folder, *model_, trained_);
  }

  void save(RunFolder& folder, const Optimizer& optimizer) {
    const HoldInterrupts whole;
    OutputFolder checkpoint(checkpoint_path(folder.path(), state_.step), Overwrite::yes);
    write(checkpoint);
    write_checkpoint_state(checkpoint, optimizer, state_, settings());
    checkpoint.commit();
    folder.remove_old_best();  // a run that continues could not tell whose it is
    folder.prune();
  }

  /// What a run that continues must have in common with the one before.
  Json settings() const {
    Json settings = settings_of_run(o_);
    settings.set("model_type", model_->model->info().model_type);
    settings.set("samples", train_.data.report.samples);
    settings.set("data_tokens", train_.data.report.tokens);
    settings.set("data_checksum", data_checksum_);
    settings.set("base_checksum", base_checksum_);
    return settings;
  }

  FinetuneDataSets data_sets() const {
    FinetuneDataSets sets = {.data = train_.data.report};
    if (eval_) sets.eval_data = eval_->data.report;
    return sets;
  }

  FinetuneReport report() const {
    FinetuneReport r = {.output = out_.string(), .method = o_.method};
    r.task = model_->model->info().predicts_text() ? "causal_lm" : "seq_cls";
    r.steps = state_.step;
    r.skipped_steps = state_.skipped;
    r.final_loss = state_.last_loss;
    r.eval_loss = state_.eval_loss;
    r.best_eval_loss = state_.best_eval_loss;
    for (const TrainedParameter& p : trained_.parameters) r.trainable_parameters += p.value.count();
    r.tokens = state_.tokens;
    r.tokens_per_second = static_cast<double>(ran_tokens_) / std::max(seconds_since(begin_), 1e-9);
    r.stopped_early = has_stopped_early();
    r.warnings = trained_.warnings;
    FinetuneDataSets sets = data_sets();
    r.data = std::move(sets.data);
    r.eval_data = std::move(sets.eval_data);
    r.options = o_;
    return r;
  }

  FinetuneOptions o_;
  const FinetuneMethod& method_;
  fs::path out_;
  std::shared_ptr<LoadedModel> model_;
  AttachedAdapter trained_;
  Batches train_;
  std::string data_checksum_, base_checksum_;
  std::optional<Batches> eval_;
  Schedule schedule_;
  int64_t steps_ = 0, steps_in_epoch_ = 0;

  TrainerState state_;
  std::string last_broken_;  // what was not finite first, in a step that ended the run or was skipped like all before
  int64_t epoch_ = -1;
  std::vector<size_t> order_;  // of the rows in that epoch
  int64_t ran_tokens_ = 0;
  Clock::time_point begin_ = {};
};

}  // namespace

FinetuneReport finetune(const std::string& model, const std::string& out, const FinetuneOptions& options) {
  check_finetune_options(options);
  return Run(model, out, options).go();
}

FinetuneDataSets check_finetune_data(const std::string& model, const FinetuneOptions& options) {
  check_finetune_options(options);
  FinetuneOptions settled = options;
  settle_format(settled, model);
  check_finetune_adapter(settled, model);
  const FinetuneMethod& method = find_finetune_method(settled);
  LoadModelOptions load = method.load_options(settled, model);
  load.progress = options.progress;
  const auto loaded = load_without_quantizing(model, load);
  const auto read = [&](const std::string& path) {
    return read_training_data(loaded, path, data_options(*loaded, options)).report;
  };
  FinetuneDataSets sets = {.data = read(options.data)};
  if (!options.eval_data.empty()) sets.eval_data = read(options.eval_data);
  sets.warnings = method.check(*loaded, settled);
  return sets;
}

}  // namespace nibble
