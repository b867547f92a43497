#include "tasks/finetune_options.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "io/peft.h"
#include "train/schedule.h"

namespace nibble {
namespace {

void check_run(const FinetuneOptions& o) {
  const auto require = [](bool good, const char* what, auto found) {
    if (!good) fail(ErrorCode::invalid_argument, std::string(what) + ", found " + std::to_string(found));
  };
  require(o.epochs >= 1, "epochs: expected at least 1", o.epochs);
  require(o.steps >= 0, "steps: expected at least 0", o.steps);
  require(o.batch >= 1, "batch: expected at least 1", o.batch);
  require(o.grad_accum >= 1, "grad_accum: expected at least 1", o.grad_accum);
  require(o.max_length >= 2, "max_length: expected at least 2", o.max_length);
  require(!o.learning_rate || (*o.learning_rate > 0 && std::isfinite(*o.learning_rate)),
          "learning_rate: expected more than 0", o.learning_rate.value_or(1));
  require(o.warmup >= 0, "warmup: expected at least 0", o.warmup);
  require(o.max_grad_norm >= 0, "max_grad_norm: expected at least 0", o.max_grad_norm);
  require(o.save_every >= 0 && o.eval_every >= 0 && o.early_stopping >= 0 && o.save_limit >= 0,
          "save_every, eval_every, early_stopping and save_limit: expected at least 0",
          std::min({o.save_every, o.eval_every, o.early_stopping, o.save_limit}));
  if (o.early_stopping > 0 && o.eval_data.empty()) {
    fail(ErrorCode::invalid_argument, "early_stopping: needs eval_data");
  }
  if (o.on_nonfinite != "stop" && o.on_nonfinite != "skip") {
    fail(ErrorCode::invalid_argument, "on_nonfinite: found '" + o.on_nonfinite + "', expected stop or skip");
  }
  if (o.data.empty()) fail(ErrorCode::invalid_argument, "data: is missing, expected a file to train on");
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
  refuse_unless(o.skip.empty() || qat || o.method == "qlora", "skip: goes with methods qlora and qat");
  refuse_unless(o.granularity == "channel" || qat || o.method == "qlora",
                "granularity: goes with methods qlora and qat");
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
  check_run(options);
  check_rounding(options);
}

}  // namespace nibble
