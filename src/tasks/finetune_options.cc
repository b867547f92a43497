#include "tasks/finetune_options.h"

#include <fmt/format.h>

#include <cmath>
#include <set>

#include "core/error.h"
#include "io/peft.h"
#include "tasks/finetune_methods.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace nibble {
namespace {

// Sums and products of two of them are far from what an int64_t holds.
constexpr int64_t kMostCount = 1'000'000'000;

struct CountRow {
  const char* name;
  int64_t FinetuneOptions::*value;
  int64_t least;
};
constexpr CountRow kCounts[] = {
    {"epochs", &FinetuneOptions::epochs, 1},         {"steps", &FinetuneOptions::steps, 0},
    {"batch", &FinetuneOptions::batch, 1},           {"grad_accum", &FinetuneOptions::grad_accum, 1},
    {"max_length", &FinetuneOptions::max_length, 2}, {"block", &FinetuneOptions::block, 0},
    {"eval_every", &FinetuneOptions::eval_every, 0}, {"early_stopping", &FinetuneOptions::early_stopping, 0},
    {"save_every", &FinetuneOptions::save_every, 0}, {"save_limit", &FinetuneOptions::save_limit, 0},
};

/// What a number may be; NaN is in no range.
struct Range {
  const char* words;
  bool (*holds)(double);
};
constexpr Range kPositive = {"a finite number above 0", [](double x) { return x > 0 && std::isfinite(x); }};
constexpr Range kNotNegative = {"a finite number of at least 0", [](double x) { return x >= 0 && std::isfinite(x); }};
constexpr Range kBelowOne = {"at least 0 and below 1", [](double x) { return x >= 0 && x < 1; }};
constexpr Range kSteps = {"0 to 1000000000", [](double x) { return x >= 0 && x <= kMostCount; }};
constexpr Range kFinite = {"a finite number", [](double x) { return std::isfinite(x); }};

struct NumberRow {
  const char* name;
  double FinetuneOptions::*value;
  const Range& range;
};
constexpr NumberRow kNumbers[] = {
    {"warmup", &FinetuneOptions::warmup, kSteps},
    {"weight_decay", &FinetuneOptions::weight_decay, kNotNegative},
    {"beta1", &FinetuneOptions::beta1, kBelowOne},
    {"beta2", &FinetuneOptions::beta2, kBelowOne},
    {"epsilon", &FinetuneOptions::epsilon, kPositive},
    {"momentum", &FinetuneOptions::momentum, kBelowOne},
    {"max_grad_norm", &FinetuneOptions::max_grad_norm, kNotNegative},
};

void require_count(const char* name, int64_t found, int64_t least) {
  if (found >= least && found <= kMostCount) return;
  fail(ErrorCode::invalid_argument,
       fmt::format("{}: found {}, expected at least {} and at most {}", name, found, least, kMostCount));
}

void require_number(const char* name, double found, const Range& range) {
  if (range.holds(found)) return;
  fail(ErrorCode::invalid_argument, fmt::format("{}: found {}, expected {}", name, found, range.words));
}

/// A second value of the same regular expression would mean nothing.
template <class Value>
void require_once(const char* name, const std::vector<std::pair<std::string, Value>>& values) {
  std::set<std::string_view> seen;
  for (const auto& [pattern, value] : values) {
    if (seen.insert(pattern).second) continue;
    fail(ErrorCode::invalid_argument, std::string(name) + ": " + printable(pattern, 100) + ": is there twice");
  }
}

void check_numbers(const FinetuneOptions& o) {
  for (const CountRow& row : kCounts) require_count(row.name, o.*row.value, row.least);
  for (const NumberRow& row : kNumbers) require_number(row.name, o.*row.value, row.range);
  if (o.learning_rate) require_number("learning_rate", *o.learning_rate, kPositive);
  require_count("lora_r", o.lora.r, 1);
  require_number("lora_alpha", o.lora.lora_alpha, kFinite);
  require_number("lora_dropout", o.lora.lora_dropout, kBelowOne);
  for (const int64_t layer : o.lora.layers_to_transform) require_count("layers_to_transform", layer, 0);
  for (const auto& [pattern, rank] : o.lora.rank_pattern) require_count("rank_pattern", rank, 1);
  for (const auto& [pattern, alpha] : o.lora.alpha_pattern) require_number("alpha_pattern", alpha, kFinite);
  require_once("rank_pattern", o.lora.rank_pattern);
  require_once("alpha_pattern", o.lora.alpha_pattern);
}

/// An option that only goes with something else, and is not as it is by default.
struct NeedsRow {
  bool (*is_given)(const FinetuneOptions&);
  bool (*has_effect)(const FinetuneOptions&);
  const char* says;
};
using O = FinetuneOptions;
bool is_sgd(const O& o) { return o.optimizer == "sgd"; }
bool is_adam(const O& o) { return o.optimizer != "sgd"; }
bool evaluates(const O& o) { return !o.eval_data.empty(); }
bool saves(const O& o) { return o.save_every > 0; }
constexpr NeedsRow kNeeds[] = {
    {[](const O& o) { return o.momentum != O().momentum; }, is_sgd, "momentum: goes with optimizer sgd"},
    {[](const O& o) { return o.beta1 != O().beta1; }, is_adam, "beta1: goes with optimizers adamw and adamw8bit"},
    {[](const O& o) { return o.beta2 != O().beta2; }, is_adam, "beta2: goes with optimizers adamw and adamw8bit"},
    {[](const O& o) { return o.epsilon != O().epsilon; }, is_adam, "epsilon: goes with optimizers adamw and adamw8bit"},
    {[](const O& o) { return o.early_stopping > 0; }, evaluates, "early_stopping: needs eval_data"},
    {[](const O& o) { return o.eval_every > 0; }, evaluates, "eval_every: needs eval_data"},
    {[](const O& o) { return o.save_limit > 0; }, saves, "save_limit: needs save_every"},
    {[](const O& o) { return !o.lora.layers_pattern.empty(); },
     [](const O& o) { return !o.lora.layers_to_transform.empty(); }, "layers_pattern: needs layers_to_transform"},
};

void check_run(const FinetuneOptions& o) {
  check_numbers(o);
  check_optimizer_name(o.optimizer);
  for (const NeedsRow& row : kNeeds) {
    if (row.is_given(o) && !row.has_effect(o)) fail(ErrorCode::invalid_argument, row.says);
  }
  if (o.on_nonfinite != "stop" && o.on_nonfinite != "skip") {
    fail(ErrorCode::invalid_argument, "on_nonfinite: found '" + o.on_nonfinite + "', expected stop or skip");
  }
  if (o.data.empty()) fail(ErrorCode::invalid_argument, "data: is missing, expected a file to train on");
  if (!o.task.empty() && o.task != "causal_lm" && o.task != "seq_cls") {
    fail(ErrorCode::invalid_argument, "task: found '" + o.task + "', expected causal_lm or seq_cls");
  }
  parse_schedule(o.schedule);
}

void check_rounding(const FinetuneOptions& o) {
  const auto refuse_unless = [](bool good, const char* what) {
    if (!good) fail(ErrorCode::invalid_argument, what);
  };
  const bool adapter = o.method == "lora" || o.method == "qlora", qat = o.method == "qat";
  refuse_unless(o.merge_aware.empty() || adapter, "merge_aware: goes with methods lora and qlora");
  refuse_unless(o.merge_aware.empty() || !o.init_adapter.empty() || !pissa_iterations(o.lora.init_lora_weights),
                "init_lora_weights: pissa does not go with merge_aware: such an adapter is written, and merged, as one "
                "of twice the rank, which rounds otherwise than what was trained; take another beginning");
  const bool rounds = qat || o.method == "qlora", rounds_or_merges = rounds || !o.merge_aware.empty();
  refuse_unless(o.format.empty() || rounds, "format: goes with methods qlora and qat");
  refuse_unless(!o.double_quant || rounds_or_merges, "double_quant: goes with methods qlora and qat, and merge_aware");
  refuse_unless(o.block == 0 || rounds_or_merges, "block: goes with methods qlora and qat, and merge_aware");
  refuse_unless(o.skip.empty() || rounds, "skip: goes with methods qlora and qat");
  refuse_unless(o.granularity == "channel" || rounds, "granularity: goes with methods qlora and qat");
  if (o.activations != "fp32" && o.activations != "int16") {
    fail(ErrorCode::invalid_argument, "activations: found '" + o.activations + "', expected fp32 or int16");
  }
  refuse_unless(o.activations == "fp32" || !qat,
                "activations: does not go with method qat, which computes as the result will");
  refuse_unless(o.qat_activations == "dynamic" || qat, "qat_activations: goes with method qat");
  refuse_unless(
      o.qat_activations != "observed" || !o.gradient_checkpointing,
      "gradient_checkpointing: does not go with qat_activations observed, since layers that run a second time "
      "would observe twice");
}

}  // namespace

void check_finetune_options(const FinetuneOptions& options) {
  find_finetune_method(options);
  check_run(options);
  check_rounding(options);
}

}  // namespace nibble
