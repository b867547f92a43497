// Whole runs: the reference traces through files, stopping and going on, what is written.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "nibble/classify.h"
#include "support/tiny_encoder.h"
#include "tasks/finetune_fixture.h"
#include "tasks/training_log.h"

namespace nibble {
namespace {

using namespace nibble::test;
namespace fs = std::filesystem;

TEST_F(FinetuneTest, TheLossFallsAndTheAdapterIsUsed) {
  FinetuneOptions o = options();
  o.batch = 10;  // all samples in every step
  const FinetuneReport report = run("out", o);
  const std::vector<Json> log = read_log(temp_ / "out");
  ASSERT_EQ(log.size(), 6u);
  EXPECT_LT(number(log[5], "loss"), number(log[0], "loss") - 0.1);
  EXPECT_EQ(report.final_loss, number(log[5], "loss"));
  EXPECT_EQ(report.steps, 6);
  EXPECT_EQ(names_in(temp_ / "out"),
            (std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors", "log.jsonl"}));
  const std::vector<int32_t> ids = {5, 17, 9};
  EXPECT_NE(load(tiny_folder(), {.adapters = {at("out")}}).logits(ids), tiny().logits(ids));
}

TEST_F(FinetuneTest, IntegersHardlyMoveTheLoss) {
  FinetuneOptions o = options();
  o.method = "qlora";
  run("exact", o);
  o.activations = "int16";
  run("rounded", o);
  const auto exact = read_log(temp_ / "exact"), rounded = read_log(temp_ / "rounded");
  for (size_t i = 0; i < 6; ++i) {
    const double ratio = number(rounded[i], "loss") / number(exact[i], "loss");
    EXPECT_NE(ratio, 1) << i;
    EXPECT_NEAR(ratio, 1, 1e-3) << i << ": here it is up to 2e-4";
  }
}

// A label weighs the same in whatever batch it is, and samples that share a row do not see each other.
TEST_F(FinetuneTest, HowSamplesAreGroupedChangesRoundingOnly) {
  FinetuneOptions o = options();
  o.steps = 3;
  o.batch = 10;
  run("whole", o);
  o.batch = 3;
  o.grad_accum = 4;
  run("split", o);
  o.batch = 10;
  o.grad_accum = 1;
  o.packing = true;
  o.max_length = 100;
  run("packed", o);
  o.gradient_checkpointing = true;
  run("checkpointed", o);
  EXPECT_EQ(bytes("packed"), bytes("checkpointed"));
  const auto whole = read_log(temp_ / "whole");
  for (const char* other : {"split", "packed"}) {
    const auto log = read_log(temp_ / other);
    for (size_t i = 0; i < 3; ++i) {
      // f32 sums in another order: one part in 10^8 has been seen.
      EXPECT_NEAR(number(log[i], "loss") / number(whole[i], "loss"), 1, 1e-6) << other << " " << i;
      EXPECT_EQ(number(log[i], "tokens"), number(whole[i], "tokens")) << other << " " << i;
    }
  }
}

TEST_F(FinetuneTest, AnAdapterThatIsTrainedOnStaysWhatItIs) {
  FinetuneOptions o = options();
  o.steps = 1;
  run("first", o);
  o.init_adapter = at("first");
  o.lora = FinetuneOptions().lora;
  run("further", o);
  o.lora.r = 2;
  expect_error(ErrorCode::invalid_argument, "r: found 2, but the adapter", [&] { run("x", o); });
  o.lora = FinetuneOptions().lora;
  o.lora.use_dora = true;
  expect_error(ErrorCode::invalid_argument, "use_dora: found true, but the adapter", [&] { run("x", o); });
  o.lora = {.r = 4, .target_modules = R"(model\.layers\..*_proj)"};  // the same modules in other words
  run("same", o);
  o.lora.target_modules = {"v_proj", "up_proj", "q_proj", "o_proj", "k_proj", "gate_proj", "down_proj"};
  run("again", o);
  o.lora.target_modules = {"q_proj"};
  expect_error(ErrorCode::invalid_argument, "target_modules: means other modules", [&] { run("x", o); });
}

TEST_F(FinetuneTest, ATiedHeadThatIsStoredTwiceStaysTied) {
  fs::copy(tiny_folder(), temp_ / "twice");
  fs::remove(temp_ / "twice/model.safetensors");
  const SafetensorsFile in(tiny_folder() / "model.safetensors");
  std::vector<TensorDeclaration> declared;
  for (const SafetensorsEntry& e : in.entries()) declared.push_back({e.name, in.load(e.name).dtype, e.shape});
  const char* table = "model.embed_tokens.weight";
  declared.push_back({"lm_head.weight", in.load(table).dtype, in.find(table)->shape});
  SafetensorsWriter out(temp_ / "twice/model.safetensors", declared);
  for (const SafetensorsEntry& e : in.entries()) out.write(e.name, in.load(e.name));
  out.write("lm_head.weight", in.load(table));
  out.finish();
  const std::vector<int32_t> ids = {5, 17, 9};
  for (const std::string method : {"full", "qat"}) {
    FinetuneOptions o = options();
    o.method = method;
    o.learning_rate = 1e-3;
    finetune(tiny_folder().string(), at(method), o);
    finetune(at("twice"), at(method + "-twice"), o);
    EXPECT_EQ(load(temp_ / (method + "-twice")).logits(ids), load(temp_ / method).logits(ids)) << method;
  }
}

TEST_F(FinetuneTest, TheModelIsNotOverwritten) {
  fs::copy(tiny_folder(), temp_ / "base");
  FinetuneOptions o = options();
  o.overwrite = true;
  o.method = "full";
  for (const char* out : {"base", "."}) {
    expect_error(ErrorCode::invalid_argument, "base away, which is read", [&] { finetune(at("base"), at(out), o); });
  }
  fs::create_directory(temp_ / "base/checkpoint-1");
  o.resume = "last";
  expect_error(ErrorCode::invalid_argument, "base away, which is read", [&] { finetune(at("base"), at("base"), o); });
  fs::remove(temp_ / "base/checkpoint-1");
  EXPECT_EQ(names_in(temp_ / "base"), names_in(tiny_folder()));
}

// The head is tied to the table and does not see its adapter, as in PEFT.
TEST_F(FinetuneTest, AnEmbeddingAdapterLearnsAndIsUsed) {
  FinetuneOptions o = options();
  o.batch = 10;
  o.lora.target_modules = {"embed_tokens"};
  run("out", o);
  const std::vector<Json> log = read_log(temp_ / "out");
  EXPECT_LT(number(log[5], "loss"), number(log[0], "loss") - 0.02);
  const SafetensorsFile file(temp_ / "out/adapter_model.safetensors");
  ASSERT_EQ(file.entries().size(), 2u);
  EXPECT_EQ(file.find("base_model.model.model.embed_tokens.lora_embedding_A")->shape, (Shape{4, 512}));
  EXPECT_EQ(file.find("base_model.model.model.embed_tokens.lora_embedding_B")->shape, (Shape{128, 4}));
  o.init_adapter = at("out");
  o.steps = 1;
  run("further", o);
  EXPECT_LT(number(read_log(temp_ / "further")[0], "loss"), number(log[5], "loss"));
}

TEST_F(FinetuneTest, TheLogIsReadAsItWasWritten) {
  FinetuneOptions o = options();
  o.eval_data = o.data;
  o.eval_every = 4;
  std::vector<FinetuneStep> seen;
  o.on_step = [&](const FinetuneStep& step) { seen.push_back(step); };
  run("out", o);
  const std::vector<FinetuneStep> read = read_finetune_log(at("out"));
  ASSERT_EQ(read.size(), seen.size());
  for (size_t i = 0; i < read.size(); ++i) {
    EXPECT_EQ(read[i].step, seen[i].step);
    EXPECT_EQ(read[i].loss, seen[i].loss);
    EXPECT_EQ(read[i].learning_rate, seen[i].learning_rate);
    EXPECT_EQ(read[i].grad_norm, seen[i].grad_norm);
    EXPECT_EQ(read[i].tokens, seen[i].tokens);
    EXPECT_EQ(read[i].eval_loss, seen[i].eval_loss);
  }
  temp_.write("skips/log.jsonl", "{\"step\": 1, \"loss\": null, \"skipped\": true}\n{\"step\": 2, \"lo");
  const std::vector<FinetuneStep> skips = read_finetune_log(at("skips"));
  ASSERT_EQ(skips.size(), 1u) << "a line that was cut off";
  EXPECT_TRUE(std::isnan(skips[0].loss));
  EXPECT_TRUE(skips[0].skipped);
  EXPECT_FALSE(skips[0].eval_loss);
  temp_.write("bad/log.jsonl", "{\"step\": \"one\"}\n");
  expect_error(ErrorCode::format, "log.jsonl:1: step: found a string", [&] { read_finetune_log(at("bad")); });
  temp_.write("without/log.jsonl", "{\"step\": 1}\n{\"loss\": 1.5}\n");
  expect_error(ErrorCode::format, "log.jsonl:2: step: is missing", [&] { read_finetune_log(at("without")); });
  expect_error(ErrorCode::io, "none", [&] { read_finetune_log(at("none")); });
}

TEST_F(FinetuneTest, EvaluatesKeepsTheBestAndStopsEarly) {
  FinetuneOptions o = options();
  o.eval_data = temp_.write("eval.txt", heldout().substr(2000, 500)).string();
  o.eval_every = 1;
  o.steps = 40;
  o.learning_rate = 0.2;  // far too much: it gets worse soon
  o.early_stopping = 3;
  o.save_every = 1;
  o.save_limit = 2;
  const FinetuneReport report = run("out", o);
  EXPECT_TRUE(report.stopped_early);
  EXPECT_LT(report.steps, 40);
  ASSERT_TRUE(report.eval_loss && report.best_eval_loss);
  EXPECT_LT(*report.best_eval_loss, *report.eval_loss);
  EXPECT_TRUE(fs::exists(temp_ / "out/best/adapter_model.safetensors"));
  EXPECT_NE(bytes("out/best"), bytes("out"));
  EXPECT_EQ(names_in(temp_ / "out").size(), 6u) << "best, two checkpoints, log, two files of the adapter";
  // Continued where it stopped, here or elsewhere, it has nothing to do.
  const std::string stopped = bytes("out"), best = bytes("out/best");
  const std::string last = at("out/checkpoint-" + std::to_string(report.steps));
  temp_.write("elsewhere/best/adapter_model.safetensors", "of another run");
  temp_.write("elsewhere/log.jsonl", "of another run");
  o.resume = last;
  expect_error(ErrorCode::exists, "elsewhere: exists already", [&] { run("elsewhere", o); });
  o.overwrite = true;
  for (const std::string out : {"out", "elsewhere"}) {
    o.resume = out == "out" ? "last" : last + "/";
    const FinetuneReport again = run(out, o);
    EXPECT_EQ(again.steps, report.steps);
    EXPECT_TRUE(again.stopped_early);
    EXPECT_EQ(again.eval_loss, report.eval_loss);
    EXPECT_EQ(again.best_eval_loss, report.best_eval_loss);
    EXPECT_EQ(bytes(out), stopped);
    EXPECT_EQ(bytes(out + "/best"), best);
  }
  // Losses over other texts say nothing of these.
  o.eval_data = temp_.write("other.txt", heldout().substr(3000, 500)).string();
  o.resume = last;
  o.steps = report.steps + 1;
  EXPECT_EQ(run("further", o).steps, report.steps + 1);
}

TEST_F(FinetuneTest, ValuesThatAreNotFiniteStopTheRunOrSkipTheStep) {
  // The largest bf16 number in the weights of one layer: its products overflow.
  const fs::path model = patched_tiny(temp_, {{"model.layers.1.mlp.down_proj.weight", {{0, 0x7f7f}, {1, 0x7f7f}}}});
  FinetuneOptions o = options();
  expect_error(ErrorCode::internal, "step 1: a value is not finite, first in model.layers.",
               [&] { finetune(model.string(), at("stopped"), o); });
  o.on_nonfinite = "skip";
  o.steps = 2;
  expect_error(ErrorCode::internal, "nothing was learned: all 2 steps were skipped, since a value was not finite",
               [&] { finetune(model.string(), at("skipped"), o); });
  EXPECT_TRUE(read_log(temp_ / "skipped")[0].find("skipped")->as_bool(""));
  o.steps = 10;
  o.eval_data = o.data;
  o.eval_every = o.early_stopping = 1;
  expect_error(ErrorCode::internal,
               "all 1 steps were skipped, since a value was not finite, in the last one first in model",
               [&] { finetune(model.string(), at("early"), o); });
  EXPECT_FALSE(fs::exists(temp_ / "skipped/adapter_config.json"));
}

TEST_F(FinetuneTest, WhatTheLastStepBreaksIsNotWritten) {
  FinetuneOptions o = options();
  o.steps = 1;
  o.weight_decay = 1e300;
  for (const int64_t save_every : {0, 1}) {
    o.save_every = save_every;
    expect_error(ErrorCode::internal, "step 1: a value of model.layers.0.self_attn.q_proj.lora_A",
                 [&] { run("out", o); });
    EXPECT_EQ(names_in(temp_ / "out"), std::vector<std::string>{"log.jsonl"});
    o.overwrite = true;
  }
}

TEST_F(FinetuneTest, OptionsOutOfRangeAreRefused) {
  struct Row {
    void (*change)(FinetuneOptions&);
    const char* says;
  };
  const Row rows[] = {
      {[](FinetuneOptions& o) { o.method = "magic"; }, "method: found 'magic', expected one of lora, qlora, full"},
      {[](FinetuneOptions& o) { o.batch = 0; }, "batch: found 0, expected at least 1"},
      {[](FinetuneOptions& o) { o.schedule = "zigzag"; }, "schedule"},
      {[](FinetuneOptions& o) { o.optimizer = "adam"; }, "optimizer"},
      {[](FinetuneOptions& o) { o.task = "poetry"; }, "task: found 'poetry'"},
      {[](FinetuneOptions& o) { o.early_stopping = 1; }, "early_stopping: needs eval_data"},
      {[](FinetuneOptions& o) { o.on_nonfinite = "hope"; }, "on_nonfinite"},
      {[](FinetuneOptions& o) { o.data.clear(); }, "data: is missing"},
  };
  for (const Row& row : rows) {
    FinetuneOptions o = options();
    row.change(o);
    expect_error(ErrorCode::invalid_argument, row.says, [&] { run("out", o); });
    EXPECT_FALSE(fs::exists(temp_ / "out")) << row.says;
  }
  FinetuneOptions o = options();
  o.task = "seq_cls";
  expect_error(ErrorCode::unsupported, "can be trained for causal_lm", [&] { run("out", o); });
}

TEST_F(FinetuneTest, SeveralLabelsForATextAreNotWhatItTrains) {
  Json config = Json::parse(kTinyBert, "config.json");
  config.set("problem_type", "multi_label_classification");
  const std::string model = write_encoder(temp_, "bert", {.config = config.dump()});
  const std::string data = temp_.write("d.tsv", "text\tlabel\ngood\tgood\n").string();
  expect_error(ErrorCode::unsupported, "problem_type: is multi_label_classification",
               [&] { finetune(model, at("out"), {.data = data}); });
}

TEST_F(FinetuneTest, AClassifierLearns) {
  const std::string model = write_encoder(temp_, "bert");
  std::string rows = "text\tlabel\n";
  for (const char* word : {"film", "so", "very", "is", "was", "not"}) {
    rows += std::string(word) + " good\tgood\n" + word + " bad\tbad\n";
  }
  for (const std::string method : {"lora", "full"}) {
    FinetuneOptions o = {.method = method, .data = temp_.write("d.tsv", rows).string()};
    o.lora = {.r = 4, .target_modules = "all-linear", .bias = "lora_only"};
    o.epochs = 30;
    o.batch = 6;
    o.learning_rate = 5e-3;
    const FinetuneReport report = finetune(model, at(method), o);
    EXPECT_EQ(report.task, "seq_cls");
    EXPECT_EQ(report.steps, 60);
    const auto tuned = method == "lora"
                           ? AutoModelForSequenceClassification::from_pretrained(model, {.adapters = {at(method)}})
                           : AutoModelForSequenceClassification::from_pretrained(at(method));
    EXPECT_EQ(tuned.classify("so good").label, "good") << method;
    EXPECT_EQ(tuned.classify("so bad").label, "bad") << method;
  }
  const SafetensorsFile adapter(temp_ / "lora/adapter_model.safetensors");
  EXPECT_NE(adapter.find("base_model.model.classifier.weight"), nullptr);
  EXPECT_NE(adapter.find("base_model.model.bert.encoder.layer.0.attention.self.query.base_layer.bias"), nullptr);
  for (const auto& entry : adapter.entries()) EXPECT_EQ(entry.name.find("LayerNorm"), std::string::npos) << entry.name;
}

// An event file is records of length, checksum, bytes, checksum; see finetune_log.cc.
TEST_F(FinetuneTest, WritesEventsForTensorBoard) {
  FinetuneOptions o = options();
  o.steps = 2;
  o.tensorboard = true;
  run("out", o);
  const std::string events = read_file(temp_ / "out/events.out.tfevents.0.nibble");
  size_t at = 0, records = 0;
  for (; at + 16 <= events.size(); ++records) {
    uint64_t length = 0;
    std::memcpy(&length, events.data() + at, sizeof(length));
    at += 16 + length;
  }
  EXPECT_EQ(at, events.size());
  EXPECT_EQ(records, 3u);
  // The length of the first record is 24; this is what TensorFlow's writer has for it.
  EXPECT_EQ(events.substr(0, 12), std::string("\x18\0\0\0\0\0\0\0\xa3\x7f\x4b\x22", 12));
  EXPECT_NE(events.find("train/loss"), std::string::npos);
}

}  // namespace
}  // namespace nibble
