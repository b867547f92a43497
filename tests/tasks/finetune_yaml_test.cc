// What a file of settings may not say, and what flags take from it.
#include <gtest/gtest.h>

#include "nibble/finetune.h"
#include "tasks/finetune_keys.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

class FinetuneYaml : public ::testing::Test {
 protected:
  FinetuneRequest read(const std::string& text, const GivenFlags& flags = {}) {
    return read_finetune_file(temp_.write("run.yaml", text).string(), flags);
  }
  TempFolder temp_;
};

TEST_F(FinetuneYaml, SpeaksBothLanguages) {
  const auto read = [&](const std::string& text) {
    return finetune_options_from_file(temp_.write("run.yaml", text).string());
  };
  const FinetuneOptions o = read(
      "base_model: some/model\nload_in_4bit: true\nadapter: qlora\nlora_r: 8\nlora_alpha: 16\n"
      "lora_target_modules: [q_proj, v_proj]\ndatasets:\n  - path: train.jsonl\n    type: alpaca\n"
      "micro_batch_size: 4\ngradient_accumulation_steps: 2\nnum_epochs: 3\noptimizer: adamw_bnb_8bit\n"
      "lr_scheduler: cosine\nlearning_rate: 0.0003\nwarmup_ratio: 0.1\nsequence_len: 256\nsample_packing: true\n"
      "bf16: auto\nweight_decay: 0.01\n");
  EXPECT_EQ(o.method, "qlora");
  EXPECT_EQ(o.format, "nf4");
  EXPECT_EQ(o.lora.r, 8);
  EXPECT_EQ(o.lora.target_modules, ModuleChoice({"q_proj", "v_proj"}));
  EXPECT_EQ(o.data, "train.jsonl");
  EXPECT_EQ(o.batch, 4);
  EXPECT_EQ(o.grad_accum, 2);
  EXPECT_EQ(o.epochs, 3);
  EXPECT_EQ(o.optimizer, "adamw8bit");
  EXPECT_EQ(o.schedule, "cosine");
  EXPECT_EQ(o.learning_rate, 0.0003);
  EXPECT_EQ(o.warmup, 0.1);
  EXPECT_TRUE(o.packing);
  EXPECT_EQ(read("load_in_8bit: true\n").format, "int8");
  EXPECT_EQ(read("lora_target_linear: true\n").lora.target_modules, ModuleChoice("all-linear"));
  struct Row {
    const char* text;
    const char* says;
  };
  const Row rows[] = {
      {"learning_rat: 1\n", "'learning_rat' is not known, did you mean 'learning_rate'?"},
      {"lora_r: many\n", "lora_r: found 'many', expected an integer"},
      {"train_on_inputs: true\n", "train_on_inputs"},
      {"- a\n", "expected a mapping"},
      {"a: [1\n", "line 2"},
      {"datasets: []\n", "datasets"},
  };
  for (const Row& row : rows) expect_error(ErrorCode::format, row.says, [&] { read(row.text); });
}

TEST_F(FinetuneYaml, WhatContradictsItselfIsRefused) {
  struct Row {
    const char* text;
    const char* says;
  };
  const Row rows[] = {
      {"method: full\nload_in_4bit: true\n", "method: full and load_in_4bit: true: method full starts from a dense"},
      {"load_in_8bit: true\nmethod: full\n", "method: full and load_in_8bit: true"},
      {"load_in_8bit: true\nload_in_4bit: true\n", "load_in_4bit and load_in_8bit: both are true"},
      {"load_in_4bit: true\nformat: int8\n", "load_in_4bit: true and format: int8"},
      {"adapter: qlora\nmethod: lora\n", "method: lora and adapter: qlora"},
      {"lora_r: 3\nepochs: 1\nlora_r: 4\n", "run.yaml: line 3: lora_r: is there twice, first in line 1"},
      {"batch: 3\nmicro_batch_size: 4\n", "line 2: micro_batch_size: says the same as batch, first in line 1"},
      {"warmup_ratio: 0.1\nwarmup_steps: 4\n", "line 2: warmup_steps: says the same as warmup_ratio"},
      {"warmup_ratio: 3\n", "warmup_ratio: found '3', expected at least 0 and below 1"},
      {"warmup_steps: 0.1\n", "warmup_steps: found '0.1', expected an integer"},
      {"lora_target_linear: true\ntarget_modules: [q_proj]\n", "lora_target_linear: true and target_modules"},
      {"shuffle: true\nno_shuffle: true\n", "line 2: no_shuffle: says the same as shuffle"},
      {"data: a\ndatasets:\n  - path: b\n", "line 2: datasets: says the same as data"},
      {"batch: 3\n---\nsteps: 4\n", "begins a second document"},
      {"datasets:\n  - path: d\n    foo: bar\n", "datasets[0]: 'foo' is not known, expected path and type"},
      {"datasets:\n  - path: d\n    type: poem\n", "datasets[0]: type: found 'poem', expected alpaca, sharegpt"},
      {"datasets:\n  - path: d\n    path: e\n", "line 3: path: is there twice, first in line 2"},
      {"datasets:\n  - type: alpaca\n", "datasets[0]: path: is missing"},
      {"no_such_key:\n", "'no_such_key' is not known"},
  };
  for (const Row& row : rows) expect_error(ErrorCode::format, row.says, [&] { read(row.text); });
  for (const char* text : {"method: full\nlora_r: 4\n", "method: full\nadapter: lora\n"}) {
    expect_error(ErrorCode::invalid_argument, "method full trains no adapter",
                 [&] { refuse_unused_adapter(read(text)); });
  }
}

TEST_F(FinetuneYaml, TheLoadingSaysTheFormat) {
  EXPECT_EQ(read("load_in_4bit: true\nadapter: lora\n").options.method, "qlora");
  EXPECT_EQ(read("load_in_4bit: true\nformat: fp4\n").options.format, "fp4");
  EXPECT_EQ(read("load_in_8bit: true\nload_in_4bit: false\n").options.format, "int8");
  EXPECT_EQ(read("adapter: qlora\nmethod: qlora\n").options.method, "qlora");
}

TEST_F(FinetuneYaml, FlagsTakeThePlaceOfKeysThatTheyExclude) {
  EXPECT_EQ(read("steps: 5\n").options.steps, 5);
  EXPECT_EQ(read("steps: 5\n", {{"epochs", ""}}).options.steps, 0);
  EXPECT_EQ(read("load_in_4bit: true\n", {{"method", "lora"}}).options.format, "");
  EXPECT_EQ(read("load_in_8bit: true\nmethod: full\n", {{"method", "qlora"}}).options.format, "int8");
  EXPECT_EQ(read("load_in_8bit: true\n", {{"format", "int8-dynamic"}}).options.method, "qlora");
  EXPECT_EQ(read("adapter: qlora\n", {{"method", "lora"}}).options.method, "lora");
}

TEST_F(FinetuneYaml, ChoosesModulesRanksAndAlphas) {
  const FinetuneRequest r = read(
      "rank_pattern:\n  q_proj: 4\n  'layers\\.0\\..*': 2\nalpha_pattern: {v_proj: 3.5}\n"
      "layers_to_transform: [0, 3]\nlayers_pattern: layers\nexclude_modules: [down_proj, lm_head]\n");
  const LoraConfig& c = r.options.lora;
  EXPECT_EQ(c.rank_pattern, (ByPattern<int64_t>{{"q_proj", 4}, {"layers\\.0\\..*", 2}}));
  EXPECT_EQ(c.alpha_pattern, (ByPattern<double>{{"v_proj", 3.5}}));
  EXPECT_EQ(c.layers_to_transform, (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(c.layers_pattern, std::vector<std::string>{"layers"});
  EXPECT_EQ(c.exclude_modules, ModuleChoice({"down_proj", "lm_head"}));
  EXPECT_TRUE(r.options.use_lora);
  const LoraConfig other =
      read("peft_layers_to_transform: 5\npeft_layers_pattern: [h]\nexclude_modules: .*mlp.*\n").options.lora;
  EXPECT_EQ(other.layers_to_transform, std::vector<int64_t>{5});
  EXPECT_EQ(other.layers_pattern, std::vector<std::string>{"h"});
  EXPECT_EQ(other.exclude_modules, ModuleChoice(".*mlp.*"));
  EXPECT_FALSE(read("rank_pattern: {}\nlayers_to_transform: []\n").options.use_lora);
  struct Row {
    const char* text;
    const char* says;
  };
  const Row rows[] = {
      {"rank_pattern: 4\n", "rank_pattern: found '4', expected a mapping of regular expressions to numbers"},
      {"rank_pattern: {q: many}\n", "rank_pattern: q: found 'many', expected an integer"},
      {"rank_pattern: {q: 2.5}\n", "rank_pattern: q: found '2.5', expected an integer"},
      {"alpha_pattern: {q: [1]}\n", "alpha_pattern: q: found a list or mapping, expected a number"},
      {"alpha_pattern: {[q]: 1}\n", "alpha_pattern: found a list or mapping, expected a regular expression"},
      {"layers_to_transform: [a]\n", "layers_to_transform: found 'a', expected an integer"},
      {"layers_to_transform: [1]\npeft_layers_to_transform: [2]\n", "says the same as layers_to_transform"},
  };
  for (const Row& row : rows) expect_error(ErrorCode::format, row.says, [&] { read(row.text); });
}

TEST_F(FinetuneYaml, TheBaseModelIsTheOneOfTheProgram) {
  const std::string tiny = tiny_folder().string();
  refuse_other_base(read("base_model:\n"), tiny);
  refuse_other_base(read("base_model: some/model\n"), "some/model");
  refuse_other_base(read("base_model: " + tiny + "/../tiny-llama/\n"), tiny);
  expect_error(ErrorCode::invalid_argument, "base_model: found 'some/model', but the model is",
               [&] { refuse_other_base(read("base_model: some/model\n"), tiny); });
}

TEST_F(FinetuneYaml, WordsOfTheProgramAreKeysToo) {
  const FinetuneRequest r =
      read("bias: all\ndora: true\nrslora: true\ninit: gaussian\nno_shuffle: true\nreport: x.html\nthreads: 3\n");
  EXPECT_EQ(r.options.lora.bias, "all");
  EXPECT_TRUE(r.options.lora.use_dora);
  EXPECT_TRUE(r.options.lora.use_rslora);
  EXPECT_EQ(r.options.lora.init_lora_weights, "gaussian");
  EXPECT_FALSE(r.options.shuffle);
  EXPECT_EQ(r.report, "x.html");
  EXPECT_EQ(r.threads, 3);
}

}  // namespace
}  // namespace nibble
