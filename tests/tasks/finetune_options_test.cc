// Options that a run cannot have are refused before anything is loaded or written.
#include "tasks/finetune_options.h"

#include <gtest/gtest.h>

#include <limits>

#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();

struct Row {
  void (*change)(FinetuneOptions&);
  const char* says;
};

void expect_refused(const Row& row) {
  FinetuneOptions o = {.data = "data.jsonl"};
  row.change(o);
  expect_error(ErrorCode::invalid_argument, row.says, [&] { check_finetune_options(o); });
}

TEST(FinetuneOptions, NumbersOutOfRangeAreRefused) {
  using O = FinetuneOptions;
  const Row rows[] = {
      {[](O& o) { o.learning_rate = 0; }, "learning_rate: found 0, expected a finite number above 0"},
      {[](O& o) { o.learning_rate = -1e-4; }, "learning_rate: found -0.0001"},
      {[](O& o) { o.learning_rate = kNan; }, "learning_rate: found nan"},
      {[](O& o) { o.learning_rate = kInf; }, "learning_rate: found inf"},
      {[](O& o) { o.weight_decay = kInf; }, "weight_decay: found inf"},
      {[](O& o) { o.weight_decay = kNan; }, "weight_decay: found nan"},
      {[](O& o) { o.warmup = 1e30; }, "warmup: found 1e+30, expected 0 to 1000000000"},
      {[](O& o) { o.warmup = -1; }, "warmup: found -1"},
      {[](O& o) { o.warmup = kNan; }, "warmup: found nan"},
      {[](O& o) { o.beta1 = 1; }, "beta1: found 1, expected at least 0 and below 1"},
      {[](O& o) { o.beta2 = kNan; }, "beta2: found nan"},
      {[](O& o) { o.epsilon = 0; }, "epsilon: found 0"},
      {[](O& o) { o.momentum = -0.5; }, "momentum: found -0.5"},
      {[](O& o) { o.max_grad_norm = kNan; }, "max_grad_norm: found nan"},
      {[](O& o) { o.lora.r = 0; }, "lora_r: found 0, expected at least 1"},
      {[](O& o) { o.lora.lora_alpha = kInf; }, "lora_alpha: found inf"},
      {[](O& o) { o.lora.lora_dropout = 1; }, "lora_dropout: found 1"},
      {[](O& o) { o.epochs = 0; }, "epochs: found 0"},
      {[](O& o) { o.max_length = 1; }, "max_length: found 1, expected at least 2"},
      {[](O& o) { o.save_every = -1; }, "save_every: found -1"},
      {[](O& o) { o.batch = std::numeric_limits<int64_t>::max(); }, "batch: found 9223372036854775807"},
      {[](O& o) { o.grad_accum = std::numeric_limits<int64_t>::max(); }, "expected at least 1 and at most 1000000000"},
  };
  for (const Row& row : rows) expect_refused(row);
}

TEST(FinetuneOptions, NamesAreChecked) {
  using O = FinetuneOptions;
  const Row rows[] = {
      {[](O& o) { o.method = "foo"; }, "method: found 'foo', expected one of lora, qlora, full"},
      {[](O& o) { o.optimizer = "foo"; }, "optimizer: found 'foo', expected one of adamw, adamw8bit, sgd"},
      {[](O& o) { o.schedule = "foo"; }, "schedule: found 'foo'"},
      {[](O& o) { o.task = "foo"; }, "task: found 'foo'"},
  };
  for (const Row& row : rows) expect_refused(row);
}

TEST(FinetuneOptions, WhatHasNoEffectIsRefused) {
  using O = FinetuneOptions;
  const Row rows[] = {
      {[](O& o) { o.momentum = 0.9; }, "momentum: goes with optimizer sgd"},
      {[](O& o) { o.momentum = 0.9, o.optimizer = "adamw8bit"; }, "momentum: goes with optimizer sgd"},
      {[](O& o) { o.beta1 = 0.8, o.optimizer = "sgd"; }, "beta1: goes with optimizers adamw and adamw8bit"},
      {[](O& o) { o.beta2 = 0.8, o.optimizer = "sgd"; }, "beta2: goes with optimizers adamw and adamw8bit"},
      {[](O& o) { o.epsilon = 1e-6, o.optimizer = "sgd"; }, "epsilon: goes with optimizers adamw and adamw8bit"},
      {[](O& o) { o.eval_every = 2; }, "eval_every: needs eval_data"},
      {[](O& o) { o.save_limit = 2; }, "save_limit: needs save_every"},
      {[](O& o) { o.lora.layers_pattern = {"h"}; }, "layers_pattern: needs layers_to_transform"},
  };
  for (const Row& row : rows) expect_refused(row);
  check_finetune_options({.data = "d", .optimizer = "sgd", .momentum = 0.9, .save_every = 1, .save_limit = 2});
  check_finetune_options({.data = "d", .eval_data = "e", .beta1 = 0.8, .eval_every = 2});
}

TEST(FinetuneOptions, PatternsAreChecked) {
  using O = FinetuneOptions;
  const Row rows[] = {
      {[](O& o) {
         o.lora.rank_pattern = {{"q", 0}};
       },
       "rank_pattern: found 0, expected at least 1"},
      {[](O& o) {
         o.lora.rank_pattern = {{"q", 2}, {"q", 3}};
       },
       "rank_pattern: q: is there twice"},
      {[](O& o) {
         o.lora.alpha_pattern = {{"q", kNan}};
       },
       "alpha_pattern: found nan"},
      {[](O& o) {
         o.lora.alpha_pattern = {{"q", 2}, {"q", 2}};
       },
       "alpha_pattern: q: is there twice"},
      {[](O& o) { o.lora.layers_to_transform = {-1}; }, "layers_to_transform: found -1, expected at least 0"},
  };
  for (const Row& row : rows) expect_refused(row);
}

TEST(FinetuneOptions, WhatTheMethodDoesNotRoundHasNoFormat) {
  using O = FinetuneOptions;
  const Row rows[] = {
      {[](O& o) { o.format = "int4"; }, "format: goes with methods qlora and qat"},
      {[](O& o) { o.format = "nf4", o.method = "full"; }, "format: goes with methods qlora and qat"},
      {[](O& o) { o.double_quant = true; }, "double_quant: goes with methods qlora and qat, and merge_aware"},
      {[](O& o) { o.block = 128; }, "block: goes with methods qlora and qat, and merge_aware"},
  };
  for (const Row& row : rows) expect_refused(row);
  check_finetune_options({.data = "data.jsonl", .double_quant = true, .block = 128, .merge_aware = "nf4"});
  check_finetune_options({.method = "qat", .data = "data.jsonl", .format = "nf4", .block = 128});
}

}  // namespace
}  // namespace nibble
