// PiSSA and LoftQ: what an adapter begins with, and that what is saved goes with the model that the files hold.
#include "tasks/adapter_init.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/parallel.h"
#include "core/progress.h"
#include "nibble/lora.h"
#include "nibble/quantize.h"
#include "ops/elementwise.h"
#include "ops/merged_weight.h"
#include "support/goldens.h"
#include "tasks/adapter.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

const std::vector<int32_t> kIds = {5, 17, 9, 301, 44, 2, 128};

// Sums in another order; those of a merged product of twice the rank too.
constexpr double kRounding = 2e-5;

double length(const Tensor& x) {
  double squares = 0;
  for (const float value : floats(x)) squares += static_cast<double>(value) * value;
  return std::sqrt(squares);
}

void for_adapted(const CausalLM& model, const std::function<void(Linear&)>& see) {
  for_each_linear(*model.internal().model, [&](Linear& layer) {
    if (!layer.adapters.empty()) see(layer);
  });
}

/// Changes every value that is trained.
void train_a_little(const PeftModel& peft) {
  for (const TrainedParameter& p : peft.adapter().parameters) {
    Tensor value = p.value;
    for (int64_t i = 0; i < value.count(); ++i) value.f32()[i] += 0.02f * static_cast<float>(i % 7 - 3);
  }
}

/// s B A takes from w as much as its rank can: the length of column j of B times that of row j of A is s_j / s, and the
/// two are equal (Eckart and Young, and the root on either side).
void expect_best_part(const Tensor& w, const Lora& lora, const std::string& name) {
  Lora minus = {.a = lora.a, .b = lora.b, .scaling = -lora.scaling};
  const double all = length(w), rest = length(merged_weight(w, minus));
  const Tensor columns = lora.b.transposed();
  double taken = 0, before = INFINITY;
  for (int64_t j = 0; j < lora.a.rows(); ++j) {
    const double a = length(lora.a.slice_rows(j, j + 1)), b = length(columns.slice_rows(j, j + 1));
    EXPECT_NEAR(a, b, kRounding * a) << name << " " << j;
    const double sigma = lora.scaling * a * b;
    EXPECT_LE(sigma, before * (1 + kRounding)) << name << " " << j;
    before = sigma;
    taken += sigma * sigma;
  }
  EXPECT_NEAR(rest * rest, all * all - taken, kRounding * all * all) << name;
  EXPECT_LT(rest, 0.99 * all) << name;
}

struct Row {
  const char* name;
  LoraConfig config;
  int64_t saved_r;
  double saved_alpha;
};

TEST(Pissa, TrainsTheLargestPartAndIsSavedForTheOriginal) {
  LoraConfig patterns = {.r = 4, .lora_alpha = 8, .target_modules = "all-linear", .init_lora_weights = "pissa"};
  patterns.rank_pattern = {{"q_proj", 2}};
  patterns.alpha_pattern = {{"down_proj", 3}};
  LoraConfig rslora = patterns;
  rslora.use_rslora = true;
  const Row rows[] = {
      {"plain",
       {.r = 4, .lora_alpha = 6, .target_modules = {"q_proj", "up_proj"}, .init_lora_weights = "pissa"},
       8,
       12},
      {"few passes", {.r = 3, .target_modules = "all-linear", .init_lora_weights = "pissa_niter_6"}, 6, 16},
      {"patterns", patterns, 8, 16},
      {"rslora", rslora, 8, 8 * std::sqrt(2.0)},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    const TempFolder temp;
    const CausalLM model = load(tiny_folder(), {.activations = "fp32"});
    const std::vector<float> before = model.logits(kIds);
    const PeftModel peft = get_peft_model(model, row.config);
    const Difference begun = difference(model.logits(kIds), before);
    EXPECT_LE(begun.relative(), kRounding);
    for_adapted(model, [](Linear& layer) {
      ASSERT_EQ(layer.adapters.size(), 2u);
      expect_best_part(decode(layer.weight), *layer.adapters[0], layer.name);
    });
    train_a_little(peft);
    const std::vector<float> trained = model.logits(kIds);
    EXPECT_GT(difference(trained, before).relative(), 0.01);
    peft.save_pretrained((temp / "adapter").string());
    const LoraConfig saved = load_lora_config((temp / "adapter").string());
    EXPECT_EQ(saved.init_lora_weights, "true");
    EXPECT_EQ(saved.r, row.saved_r);
    EXPECT_EQ(saved.lora_alpha, row.saved_alpha);
    const CausalLM again = load(tiny_folder(), {.activations = "fp32", .adapters = {(temp / "adapter").string()}});
    EXPECT_LE(difference(again.logits(kIds), trained).relative(), kRounding);
    EXPECT_EQ(peft.config().r, row.config.r) << "a checkpoint goes on with the rank that is trained";
  }
}

TEST(Loftq, TakesBackWhatQuantizationHasLost) {
  const std::pair<std::string, bool> rows[] = {{"nf4", false}, {"nf4", true}, {"int8", false}};
  for (const auto& [format, dora] : rows) {
    SCOPED_TRACE(format + (dora ? " dora" : ""));
    const TempFolder temp;
    const LoadModelOptions options = {.format = format, .activations = "fp32"};
    const CausalLM model = load(tiny_folder(), options), dense = load(tiny_folder(), {.activations = "fp32"});
    const std::vector<float> exact = dense.logits(kIds), before = model.logits(kIds);
    const PeftModel peft = get_peft_model(
        model,
        {.r = 32, .lora_alpha = 20, .target_modules = "all-linear", .use_dora = dora, .init_lora_weights = "loftq"});
    const SafetensorsFile original(tiny_folder() / "model.safetensors");
    for_adapted(model, [&](Linear& layer) {
      ASSERT_EQ(layer.adapters.size(), 1u);
      Tensor lost = copy_of(original.load(layer.name + ".weight").cast(DType::f32));
      Tensor kept = copy_of(decode(layer.weight));
      scale_in_place(kept, -1.0f);
      add_in_place(lost, kept);
      expect_best_part(lost, *layer.adapters[0], layer.name);
    });
    const std::vector<float> begun = model.logits(kIds);
    EXPECT_LT(difference(begun, exact).largest, 0.9 * difference(before, exact).largest);
    train_a_little(peft);
    const std::vector<float> trained = model.logits(kIds);
    peft.save_pretrained((temp / "adapter").string());
    EXPECT_EQ(load_lora_config((temp / "adapter").string()).r, 32);
    LoadModelOptions with_adapter = options;
    with_adapter.adapters = {(temp / "adapter").string()};
    EXPECT_LE(difference(load(tiny_folder(), with_adapter).logits(kIds), trained).relative(), kRounding);
  }
}

TEST(AdapterInit, ThreadsChangeNoBit) {
  std::vector<float> values[2];
  for (const int threads : {1, 3}) {
    set_thread_count(threads);
    const PeftModel peft =
        get_peft_model(load(tiny_folder()), {.r = 4, .target_modules = "all-linear", .init_lora_weights = "pissa"});
    for (const TrainedParameter& p : peft.adapter().parameters) {
      for (const float value : floats(p.value)) values[threads == 3].push_back(value);
    }
  }
  set_thread_count(0);
  EXPECT_EQ(values[0], values[1]);
}

struct Refused {
  std::string model;
  LoadModelOptions options;
  LoraConfig config;
  ErrorCode code;
  const char* says;
};

/// stored: a copy of the bundled model in nf4.
std::vector<Refused> refused(const std::string& stored) {
  const std::string tiny = tiny_folder().string();
  const ModuleChoice all = "all-linear";
  return {
      {tiny,
       {.format = "nf4"},
       {.target_modules = all, .init_lora_weights = "pissa"},
       ErrorCode::unsupported,
       "pissa is for dense weights, model.layers.0.self_attn.q_proj is stored as nf4"},
      {tiny, {}, {.target_modules = all, .init_lora_weights = "loftq"}, ErrorCode::invalid_argument, "no layer of"},
      {stored,
       {},
       {.target_modules = all, .init_lora_weights = "loftq"},
       ErrorCode::unsupported,
       "q_proj.weight: is stored as nf4, and loftq needs the weight before quantization"},
      {tiny,
       {},
       {.target_modules = all, .use_dora = true, .init_lora_weights = "pissa"},
       ErrorCode::unsupported,
       "does not go together with use_dora"},
      {tiny,
       {},
       {.target_modules = {"embed_tokens"}, .init_lora_weights = "pissa"},
       ErrorCode::unsupported,
       "embed_tokens: is an embedding, for which there is no pissa"},
      {tiny,
       {},
       {.lora_alpha = -1, .target_modules = all, .init_lora_weights = "pissa"},
       ErrorCode::invalid_argument,
       "lora_alpha: model.layers.0.self_attn.q_proj: found -1.000000, expected more than 0"},
      {tiny,
       {},
       {.r = 129, .target_modules = {"q_proj"}, .init_lora_weights = "pissa"},
       ErrorCode::invalid_argument,
       "r: model.layers.0.self_attn.q_proj: found 129, expected at most 128"},
      {tiny,
       {},
       {.target_modules = all, .init_lora_weights = "pissa_niter_-1"},
       ErrorCode::unsupported,
       "init_lora_weights: found 'pissa_niter_-1', expected one of true, false, gaussian, pissa, pissa_niter_N, loftq"},
      {tiny,
       {},
       {.target_modules = all, .init_lora_weights = "olora"},
       ErrorCode::unsupported,
       "init_lora_weights: found 'olora', expected one of true, false, gaussian, pissa, pissa_niter_N, loftq; nearest "
       "to "
       "it is pissa"},
      {tiny,
       {},
       {.target_modules = all, .init_lora_weights = "eva"},
       ErrorCode::unsupported,
       "nearest to it is gaussian"},
      {tiny,
       {.format = "nf4"},
       {.target_modules = {"q_proj"}, .modules_to_save = {"up_proj"}},
       ErrorCode::unsupported,
       "up_proj.weight: is stored as nf4, only dense weights can be trained"},
  };
}

TEST(AdapterInit, WhatCannotBeIsRefused) {
  const TempFolder temp;
  const std::string stored = (temp / "nf4").string();
  quantize(tiny_folder().string(), stored, {.format = "nf4"});
  for (const Refused& row : refused(stored)) {
    const CausalLM model = load(row.model, row.options);
    expect_error(row.code, row.says, [&] { get_peft_model(model, row.config); });
    for_adapted(model, [](Linear& layer) { ADD_FAILURE() << layer.name << " was given an adapter"; });
  }
}

// The second of the layers, when the singular values of the first have been found.
TEST(AdapterInit, AFailureOnTheWayLeavesNoAdapter) {
  const TempFolder temp;
  const auto broken = patched_tiny(temp, {{"model.layers.1.self_attn.q_proj.weight", {{3, 0x7f80}}}});
  const CausalLM model = load(broken);
  const LoraConfig config = {.target_modules = {"q_proj"}, .init_lora_weights = "pissa"};
  expect_error(ErrorCode::format, "model.layers.1.self_attn.q_proj.weight: has a value that is not finite",
               [&] { get_peft_model(model, config); });
  for_adapted(model, [](Linear& layer) { ADD_FAILURE() << layer.name << " was given an adapter"; });
  const CausalLM whole = load(tiny_folder());
  request_interrupt();
  expect_error(ErrorCode::interrupted, "interrupted", [&] { get_peft_model(whole, config); });
  clear_interrupt();
  for_adapted(whole, [](Linear& layer) { ADD_FAILURE() << layer.name << " was given an adapter"; });
}

}  // namespace
}  // namespace nibble
