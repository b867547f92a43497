// What check_finetune_data() finds is what a run would say, before any weight is quantized or trained.
#include <gtest/gtest.h>

#include "nibble/error.h"
#include "nibble/finetune.h"
#include "nibble/quantize.h"
#include "support/goldens.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

struct Refusal {
  ErrorCode code = ErrorCode::internal;
  std::string message = {};
};

template <class Function>
Refusal refusal_of(Function function) {
  try {
    function();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {};
}

class FinetuneCheck : public ::testing::Test {
 protected:
  FinetuneOptions options() {
    const std::string data = temp_.write("data.jsonl", "{\"input_ids\": [5, 17, 9, 4, 11, 6]}\n").string();
    return {.data = data, .lora = {.r = 4, .target_modules = "all-linear"}, .steps = 1};
  }
  void expect_both_refuse(const std::string& model, const FinetuneOptions& o, const char* says) {
    const Refusal check = refusal_of([&] { check_finetune_data(model, o); });
    const Refusal run = refusal_of([&] { finetune(model, (temp_ / "out").string(), o); });
    EXPECT_NE(check.message.find(says), std::string::npos) << check.message << ", expected " << says;
    EXPECT_EQ(check.message, run.message);
    EXPECT_EQ(check.code, run.code);
  }

  TempFolder temp_;
};

TEST_F(FinetuneCheck, FindsWhatTheRunWouldRefuse) {
  using O = FinetuneOptions;
  struct Row {
    void (*change)(O&);
    const char* says;
  };
  const Row rows[] = {
      {[](O& o) { o.lora.target_modules = {"nope"}; }, "target_modules: no Linear layer of"},
      {[](O& o) { o.lora.layers_to_transform = {7}; }, "target_modules: no Linear layer of"},
      {[](O& o) { o.lora.target_modules = {"embed_tokens"}, o.lora.use_dora = true; }, "is an embedding"},
      {[](O& o) { o.lora.init_lora_weights = "olora"; }, "init_lora_weights: found 'olora'"},
      {[](O& o) { o.lora.init_lora_weights = "loftq"; }, "loftq makes up for quantization"},
      {[](O& o) { o.lora.init_lora_weights = "pissa", o.lora.r = 129; }, "found 129, expected at most 128"},
      {[](O& o) { o.method = "qlora", o.lora.init_lora_weights = "pissa"; }, "pissa is for dense weights"},
      {[](O& o) { o.method = "qlora", o.skip = {"nope"}; }, "skip: 'nope' matches no layer"},
      {[](O& o) { o.method = "qlora", o.lora.modules_to_save = {"up_proj"}; }, "(--skip model.layers.0.mlp.up_proj)"},
      {[](O& o) { o.method = "qat", o.skip = {"nope"}; }, "skip: 'nope' matches no layer"},
      {[](O& o) {
         o.method = "qat", o.use_lora = true, o.skip = {"model.layers.1"}, o.lora.target_modules = {"q_proj"};
       },
       "is not quantized, so its adapter has no place in the result"},
      {[](O& o) { o.method = "qat", o.use_lora = true, o.lora.modules_to_save = {"lm_head"}; },
       "has no place of its own in the result"},
      {[](O& o) { o.init_adapter = "absent"; }, "absent: is no adapter folder"},
  };
  for (const Row& row : rows) {
    FinetuneOptions o = options();
    row.change(o);
    expect_both_refuse(tiny_folder().string(), o, row.says);
  }
}

TEST_F(FinetuneCheck, FindsWhatAQuantizedBaseCannotBe) {
  const std::string base = (temp_ / "base").string();
  quantize(tiny_folder().string(), base, {.format = "nf4"});
  FinetuneOptions o = options();
  for (const char* method : {"full", "qat"}) {
    o.method = method;
    expect_both_refuse(base, o, "is stored as nf4, only dense weights can be trained; train an adapter instead");
  }
  o.method = "lora";
  o.lora.init_lora_weights = "pissa";
  expect_both_refuse(base, o, "pissa is for dense weights, model.layers.0.self_attn.q_proj is stored as nf4");
}

TEST_F(FinetuneCheck, LetsPassWhatRuns) {
  using O = FinetuneOptions;
  void (*changes[])(O&) = {
      [](O&) {},
      [](O& o) { o.method = "full"; },
      [](O& o) { o.method = "qat"; },
      [](O& o) { o.method = "qat", o.use_lora = true, o.skip = {"model.layers.1"}; },
      [](O& o) {
        o.method = "qat", o.use_lora = true, o.skip = {"model.layers.1"}, o.lora.exclude_modules = ".*up_proj";
      },
      [](O& o) { o.method = "qlora", o.lora.init_lora_weights = "loftq", o.lora.use_dora = true; },
      [](O& o) { o.method = "qlora", o.skip = {"up_proj"}, o.lora.modules_to_save = {"up_proj"}; },
      [](O& o) {
        o.lora.init_lora_weights = "pissa", o.lora.rank_pattern = {{"q_proj", 2}};
      },
  };
  FinetuneOptions o = options();
  for (const auto change : changes) {
    o = options();
    change(o);
    EXPECT_TRUE(check_finetune_data(tiny_folder().string(), o).warnings.empty());
    o.overwrite = true;
    finetune(tiny_folder().string(), (temp_ / "out").string(), o);
  }
  EXPECT_EQ(check_finetune_data(tiny_folder().string(), o).data.samples, 1);
}

TEST_F(FinetuneCheck, WarnsAsTheRunDoes) {
  FinetuneOptions o = options();
  o.lora.target_modules = {"q_proj", "nope"};
  o.lora.modules_to_save = {"nil"};
  const std::vector<std::string> warnings = {"target_modules: no module is called nope",
                                             "modules_to_save: no module is called nil"};
  EXPECT_EQ(check_finetune_data(tiny_folder().string(), o).warnings, warnings);
  EXPECT_EQ(finetune(tiny_folder().string(), (temp_ / "out").string(), o).warnings, warnings);
}

}  // namespace
}  // namespace nibble
