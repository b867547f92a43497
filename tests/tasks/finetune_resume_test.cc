// Runs that stop and go on, and what they leave.
#include <gtest/gtest.h>

#include <cstring>

#include "tasks/finetune_fixture.h"
#include "tasks/training_log.h"

namespace nibble {
namespace {

using namespace nibble::test;
namespace fs = std::filesystem;

TEST_F(FinetuneTest, StoppingAndGoingOnGivesTheSameBytes) {
  struct Row {
    std::string method, init = "true";
    ModuleChoice targets = "all-linear";
  };
  const Row rows[] = {{"lora"},          {"qlora"},          {"full"},
                      {"lora", "pissa"}, {"qlora", "loftq"}, {"lora", "gaussian", {"q_proj", "embed_tokens"}}};
  for (const auto& [how, init, targets] : rows) {
    const std::string method = how + "-" + init;
    FinetuneOptions o = options();
    o.method = how;
    o.lora.init_lora_weights = init;
    o.lora.target_modules = targets;
    o.optimizer = how == "full" ? "adamw8bit" : "adamw";
    o.lora.lora_dropout = 0.2;
    o.grad_accum = 2;
    o.schedule = "cosine";
    o.warmup = 2;
    o.save_every = 4;
    o.learning_rate = 1e-3;
    run(method, o);
    o.resume = at(method + "/checkpoint-4");
    run(method + "-resumed", o);
    EXPECT_EQ(bytes(method), bytes(method + "-resumed")) << method;
    EXPECT_EQ(read_log(temp_ / (method + "-resumed")).size(), 2u);
    EXPECT_TRUE(fs::exists(temp_ / (method + "/checkpoint-6"))) << "the last step is a checkpoint too";
  }
}

TEST_F(FinetuneTest, AnInterruptLeavesACheckpointToContinueFrom) {
  FinetuneOptions o = options();
  o.lora.lora_dropout = 0.2;
  run("whole", o);
  o.on_step = [](const FinetuneStep& step) {
    if (step.step == 3) request_interrupt();
  };
  expect_error(ErrorCode::interrupted, "interrupted at step 3; saved", [&] { run("stopped", o); });
  EXPECT_EQ(names_in(temp_ / "stopped"), (std::vector<std::string>{"checkpoint-3", "log.jsonl"}));
  o.on_step = {};
  o.resume = "last";
  run("stopped", o);
  EXPECT_EQ(bytes("stopped"), bytes("whole"));
  const auto whole = read_log(temp_ / "whole"), continued = read_log(temp_ / "stopped");
  ASSERT_EQ(continued.size(), 6u);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(number(continued[i], "loss"), number(whole[i], "loss")) << i;
}

// When the last step is done, nothing is left to continue: the result is written.
TEST_F(FinetuneTest, AnInterruptAfterTheLastStepDoesNotTakeTheResult) {
  for (const std::string method : {"lora", "full"}) {
    FinetuneOptions o = options();
    o.method = method;
    o.steps = 2;
    run(method, o);
    o.on_step = [](const FinetuneStep& step) {
      if (step.step == 2) request_interrupt();
    };
    run(method + "-stopped", o);
    clear_interrupt();
    EXPECT_EQ(bytes(method + "-stopped"), bytes(method));
  }
}

TEST_F(FinetuneTest, AContinuedRunMustBeTheSameRun) {
  FinetuneOptions o = options();
  o.save_every = 3;
  run("out", o);
  o.resume = "last";
  FinetuneOptions other = o;
  other.batch = 5;
  expect_error(ErrorCode::invalid_argument, "batch: the checkpoint has 2, this run 5", [&] { run("out", other); });
  other = o;
  other.lora.r = 2;
  expect_error(ErrorCode::invalid_argument, "lora: the checkpoint has", [&] { run("out", other); });
  other = o;
  other.compute_dtype = DType::bf16;
  expect_error(ErrorCode::invalid_argument, "compute_dtype: the checkpoint has null, this run \"bf16\"",
               [&] { run("out", other); });
  other = o;
  const std::string lines = read_file(o.data);  // the same in another order
  const size_t first = lines.find('\n') + 1;
  other.data = temp_.write("other.jsonl", lines.substr(first) + lines.substr(0, first)).string();
  expect_error(ErrorCode::invalid_argument, "data_checksum: the checkpoint has", [&] { run("out", other); });
  expect_error(ErrorCode::io, "has no checkpoint", [&] { run("nothing", o); });
  o.resume.clear();
  expect_error(ErrorCode::exists, "exists already", [&] { run("out", o); });
  o.overwrite = true;
  o.save_every = 0;
  run("out", o);
  EXPECT_EQ(names_in(temp_ / "out"),
            (std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors", "log.jsonl"}));
}

TEST_F(FinetuneTest, AnOldRunIsThereUntilTheNewOneHasItsOwn) {
  FinetuneOptions o = options();
  o.eval_data = o.data;
  o.save_every = 2;
  run("out", o);
  const std::string before = bytes("out"), best = read_file(temp_ / "out/best/adapter_model.safetensors");
  FinetuneOptions next = options();
  next.overwrite = true;
  next.init_adapter = at("out");
  next.learning_rate = 1e30f;  // no finite loss
  EXPECT_THROW(run("out", next), Error);
  EXPECT_EQ(bytes("out"), before);
  EXPECT_EQ(read_file(temp_ / "out/best/adapter_model.safetensors"), best);
  EXPECT_FALSE(fs::exists(temp_ / "out/checkpoint-6"));  // or --resume would go on with that run
  next.learning_rate = 1e-3;
  next.steps = 3;
  next.save_every = 2;
  run("out", next);
  EXPECT_NE(bytes("out"), before);
  EXPECT_EQ(names_in(temp_ / "out"), (std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors",
                                                               "checkpoint-2", "checkpoint-3", "log.jsonl"}));
}

TEST_F(FinetuneTest, AContinuedRunRefusesALogThatIsNone) {
  FinetuneOptions o = options();
  o.save_every = 3;
  run("out", o);
  temp_.write("out/log.jsonl", "{\"step\": 1}\n{\"loss\": 1.5}\n");
  o.resume = at("out/checkpoint-3");
  expect_error(ErrorCode::format, "log.jsonl:2: step: is missing", [&] { run("out", o); });
}

TEST_F(FinetuneTest, ADamagedCheckpointIsNotContinued) {
  FinetuneOptions o = options();
  o.save_every = 3;
  run("out", o);
  o.resume = at("out/checkpoint-3");
  o.overwrite = true;
  for (const char* name : {"out/checkpoint-3/state.safetensors", "out/checkpoint-3/trainer_state.json"}) {
    const std::string whole = read_file(temp_ / name);
    const size_t at_loss = whole.find("\"last_loss\": ");
    std::string changed = whole;  // in one bit of a value
    changed[at_loss == whole.npos ? whole.size() - 3 : at_loss + 15] ^= 1;
    temp_.write(name, changed);
    expect_error(ErrorCode::format, "the checksum is not that of", [&] { run("again", o); });
    temp_.write(name, whole);
  }
  EXPECT_EQ(run("again", o).steps, 6);
}

TEST_F(FinetuneTest, ARunIsNotContinuedOverAnotherBase) {
  FinetuneOptions o = options();
  o.save_every = 3;
  run("out", o);
  const fs::path other = patched_tiny(temp_, {{"model.layers.1.mlp.down_proj.weight", {{0, 0x3f80}}}});
  o.resume = "last";
  expect_error(ErrorCode::invalid_argument, "base_checksum: the checkpoint has",
               [&] { finetune(other.string(), at("out"), o); });
}

}  // namespace
}  // namespace nibble
