// What merge() writes: against PEFT's merge_and_unload, from every kind of base, and what it refuses.
#include "nibble/merge.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/harness.h"
#include "nibble/lora.h"
#include "nibble/quantize.h"
#include "support/random.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;
namespace fs = std::filesystem;

/// The tensors of a folder's one file.
SafetensorsFile weights_of(const fs::path& folder) { return SafetensorsFile(folder / "model.safetensors"); }

std::vector<float> load_values(const fs::path& folder, const std::string& name) {
  return floats(weights_of(folder).load(name));
}

std::vector<float> logits_of(const fs::path& folder, const std::vector<int32_t>& ids) {
  return floats(load(folder.string(), LoadOptions{})->forward({.ids = ids}, nullptr, nullptr));
}

class MergeGolden : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    NIBBLE_NEED_SHARED("goldens/peft/" + std::string(GetParam()));
    index_ = shared_json("goldens/peft/" + std::string(GetParam()) + ".golden.json");
    golden_.emplace(shared_folder() / "goldens/peft" / (std::string(GetParam()) + ".golden.safetensors"));
    base_ = shared_folder() / "goldens/models" / text_at(index_, "model");
    adapter_ = (shared_folder() / "goldens/peft" / GetParam()).string();
  }
  std::vector<int32_t> ids(const std::string& i) const {
    return ids_of(SafetensorsFile(base_ / "golden.safetensors").load("input_ids." + i));
  }

  TempFolder temp_;
  Json index_;
  std::optional<SafetensorsFile> golden_;
  fs::path base_;
  std::string adapter_;
};

TEST_P(MergeGolden, WeightsAndLogitsEqualPeft) {
  const fs::path out = temp_ / "merged";
  merge(base_.string(), adapter_, out.string(), {.to = "fp32"});
  for (const auto& [name, expected] : index_.find("merged_weights")->as_object("merged_weights")) {
    const std::vector<float> values = load_values(out, name);
    double sum = 0, sum_abs = 0;
    for (const float v : values) sum += v, sum_abs += std::abs(v);
    const double scale = expected.find("sum_abs")->as_double("sum_abs");
    EXPECT_NEAR(sum, expected.find("sum")->as_double("sum"), 1e-6 * scale) << name;
    EXPECT_NEAR(sum_abs, scale, 1e-6 * scale) << name;
    const auto& first = expected.find("first")->as_array("first");
    for (size_t i = 0; i < first.size(); ++i) EXPECT_NEAR(values[i], first[i].as_double("first"), 1e-6) << name;
  }
  for (const std::string i : {"0", "1"}) {
    if (!golden_->find("merged.logits." + i)) continue;  // encoders have one batch instead
    const std::vector<float> expected = floats(golden_->load("merged.logits." + i));
    EXPECT_LE(difference(logits_of(out, ids(i)), expected).relative(), 2e-4) << "prompt " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Adapters, MergeGolden,
                         ::testing::Values("llama-qv", "llama-all-rslora", "llama-dora", "llama-embed", "llama-layers",
                                           "llama-patterns", "llama-regex", "gpt2-conv1d", "qwen2-lora-only-bias",
                                           "bert-seqcls", "bert-all"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

struct Nf4Merge {
  const char *adapter, *base;
  bool double_quant;
};

// PEFT merges into NF4 by decoding, adding and encoding again, and so does nibble.
TEST(Merge, IntoAnNf4BaseEqualsPeft) {
  NIBBLE_NEED_SHARED("goldens/bnb");
  for (const Nf4Merge& row :
       {Nf4Merge{"llama-qv", "llama-nf4", false}, Nf4Merge{"llama-all-rslora", "llama-nf4-dq", true},
        Nf4Merge{"gpt2-conv1d", "gpt2-nf4-dq", true}}) {
    const TempFolder temp;
    const fs::path base = shared_folder() / "goldens/bnb" / row.base, peft = shared_folder() / "goldens/peft";
    merge(base.string(), (peft / row.adapter).string(), (temp / "out").string(),
          {.to = "nf4", .double_quant = row.double_quant});
    const Json index = shared_json("goldens/peft/" + std::string(row.adapter) + ".golden.json");
    const SafetensorsFile prompts(shared_folder() / "goldens/models" / text_at(index, "model") / "golden.safetensors");
    const SafetensorsFile golden(peft / (std::string(row.adapter) + ".golden.safetensors"));
    for (const std::string i : {"0", "1"}) {
      const std::vector<float> expected = floats(golden.load("nf4.merged.logits." + i));
      const std::vector<float> got = logits_of(temp / "out", ids_of(prompts.load("input_ids." + i)));
      EXPECT_LE(difference(got, expected).relative(), 2e-4) << row.adapter << ", prompt " << i;
    }
  }
}

// ---- the bundled model with an adapter made on the fly ----

struct AdapterSpec {
  double norm_ratio = 0.01;  // of B A to the weight
  std::string module = "model.layers.0.mlp.down_proj";
  int64_t out = 0, in = 0;  // 0: as the model has them
  std::string config = R"({"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["down_proj"]})";
};

double norm_of(const std::vector<float>& values) {
  double sum = 0;
  for (const float v : values) sum += static_cast<double>(v) * v;
  return std::sqrt(sum);
}

/// A rank-4 adapter of one module whose delta has this length.
std::string write_adapter(const TempFolder& temp, const AdapterSpec& spec) {
  const SafetensorsFile base(tiny_folder() / "model.safetensors");
  const Tensor weight = base.load("model.layers.0.mlp.down_proj.weight");
  const int64_t out = spec.out ? spec.out : weight.rows(), in = spec.in ? spec.in : weight.cols();
  // |B A| of Gaussian factors is about scale^2 * sqrt(rank * out * in).
  const double length = spec.norm_ratio * norm_of(floats(weight));
  const double scale = std::sqrt(length / std::sqrt(4.0 * static_cast<double>(out * in)));
  const std::string prefix = "base_model.model." + spec.module;
  temp.write("adapter/adapter_config.json", spec.config);
  SafetensorsWriter writer(
      temp / "adapter/adapter_model.safetensors",
      {{prefix + ".lora_A.weight", DType::f32, {4, in}}, {prefix + ".lora_B.weight", DType::f32, {out, 4}}});
  writer.write(prefix + ".lora_A.weight", gaussian({4, in}, 1, static_cast<float>(scale)));
  writer.write(prefix + ".lora_B.weight", gaussian({out, 4}, 2, static_cast<float>(scale)));
  writer.finish();
  return (temp / "adapter").string();
}

std::string quantized_tiny(const TempFolder& temp, const QuantizeOptions& options) {
  quantize(tiny_folder().string(), (temp / "base").string(), options);
  return (temp / "base").string();
}

TEST(Merge, ANormalDeltaDoesNotSurviveTheGridItWasTrainedOn) {
  const TempFolder temp;
  const std::string base = quantized_tiny(temp, {.format = "nf4"}), adapter = write_adapter(temp, {});
  const std::string out = (temp / "out").string();
  expect_error(ErrorCode::unsupported, "use --force", [&] { merge(base, adapter, out, {.to = "nf4"}); });
  EXPECT_FALSE(fs::exists(out));
  MergeReport refused;
  try {
    merge(base, adapter, out, {.to = "nf4"});
  } catch (const DestructiveMerge& refusal) {
    refused = refusal.report();
  }
  const MergeReport forced = merge(base, adapter, out, {.to = "nf4", .force = true});
  ASSERT_EQ(forced.layers.size(), 1u);
  EXPECT_NEAR(forced.layers[0].loss.delta_norm_ratio, 0.01, 0.003);
  EXPECT_LT(forced.layers[0].loss.delta_retained, 0.15);
  EXPECT_NEAR(forced.total.delta_retained, forced.layers[0].loss.delta_retained, 1e-12);
  ASSERT_EQ(refused.layers.size(), 1u);
  EXPECT_EQ(refused.layers[0].name, forced.layers[0].name);
  EXPECT_EQ(refused.layers[0].loss.delta_retained, forced.layers[0].loss.delta_retained);
  EXPECT_EQ(refused.total.rounding_ratio, forced.total.rounding_ratio);
  EXPECT_EQ(refused.bytes_after, forced.bytes_after);
  EXPECT_TRUE(fs::exists(out));
}

TEST(Merge, WhatIsAdvisedIsWiderThanWhatWasAskedFor) {
  const TempFolder temp;
  const std::string adapter = write_adapter(temp, {.norm_ratio = 1e-5});
  const std::pair<const char*, const char*> rows[] = {{"nf4", "beside the model, merge --to bf16 or int8, or use"},
                                                      {"int8", "beside the model, merge --to bf16 or fp32, or use"},
                                                      {"bf16", "beside the model, merge --to fp32, or use"}};
  for (const auto& [to, says] : rows) {
    const MergeOptions options = {.to = to};
    expect_error(ErrorCode::unsupported, says,
                 [&] { merge(tiny_folder().string(), adapter, (temp / "out").string(), options); });
  }
}

// With the noise that the spread of rounding gives: a change of size d moves d / step of the weights by a step.
TEST(Merge, ADitheredBaseKeepsTheDelta) {
  const TempFolder temp;
  const std::string out = (temp / "out").string(), adapter = write_adapter(temp, {});
  const auto merge_dithered = [&](const std::string& base, const MergeOptions& options) {
    MergeOptions o = options;
    o.dither = o.overwrite = true;
    return merge(base, adapter, out, o);
  };
  for (const char* format : {"nf4", "fp4", "int4"}) {
    const std::string base = (temp / format).string();
    quantize(tiny_folder().string(), base, {.format = format, .double_quant = true});
    const MergeReport report = merge_dithered(base, {.to = format, .double_quant = true});
    EXPECT_TRUE(report.dithered);
    EXPECT_NEAR(report.total.delta_retained, 1, 0.2) << format;
    EXPECT_GT(report.total.rounding_ratio, 2) << format;
    EXPECT_LT(report.total.rounding_ratio, 9) << format << ": less than rounding every weight anew";
  }
  const std::string base = (temp / "nf4").string();
  const std::string said = "no layer that the adapter changes is stored in nf4 with block ";
  expect_error(ErrorCode::invalid_argument, said + "64",
               [&] { merge_dithered(tiny_folder().string(), {.to = "nf4"}); });
  expect_error(ErrorCode::invalid_argument, said + "32", [&] { merge_dithered(base, {.to = "nf4", .block = 32}); });
  expect_error(ErrorCode::invalid_argument, "dither: found format bf16, expected nf4, fp4 or int4",
               [&] { merge_dithered(base, {}); });
}

TEST(Merge, ADitheredBaseWithoutAChangeIsTheBase) {
  const TempFolder temp;
  const std::string base = quantized_tiny(temp, {.format = "nf4"});
  merge(base, write_adapter(temp, {.norm_ratio = 0}), (temp / "out").string(), {.to = "nf4", .dither = true});
  const std::vector<int32_t> ids = {5, 17, 99, 3};
  EXPECT_EQ(logits_of(temp / "out", ids), logits_of(base, ids));
}

// Dither makes rows longer; their length is still the magnitude's.
TEST(Merge, ADitheredBaseKeepsTheLengthsOfDora) {
  const TempFolder temp;
  const std::string base = quantized_tiny(temp, {.format = "nf4"}), adapter = (temp / "adapter").string();
  const CausalLM model = AutoModelForCausalLM::from_pretrained(base, {.activations = "fp32"});
  get_peft_model(model, {.r = 2, .target_modules = "all-linear", .use_dora = true}).save_pretrained(adapter);
  merge(base, adapter, (temp / "out").string(), {.to = "nf4", .dither = true, .force = true});
  const std::vector<int32_t> ids = {5, 17, 99, 3};
  EXPECT_LT(difference(logits_of(temp / "out", ids), logits_of(base, ids)).relative(), 1e-4);
}

// A classifier that is stored in 4 bits becomes dense, where its dither would be noise.
TEST(Merge, OnlyWhatStaysInFourBitsIsDithered) {
  NIBBLE_NEED_SHARED("goldens/bnb/bert-nf4");
  const TempFolder temp;
  const std::string base = (shared_folder() / "goldens/bnb/bert-nf4").string(), out = (temp / "out").string();
  const std::string adapter = write_adapter(
      temp, {.module = "classifier",
             .out = 3,
             .in = 80,
             .config = R"({"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["classifier"]})"});
  expect_error(ErrorCode::invalid_argument, "is stored in nf4 with block 64 and stays so",
               [&] { merge(base, adapter, out, {.to = "nf4", .dither = true}); });
}

TEST(Merge, WiderFormatsAndOriginalWeightsKeepTheDelta) {
  const TempFolder temp;
  const std::string base = quantized_tiny(temp, {.format = "nf4"}), adapter = write_adapter(temp, {});
  for (const char* format : {"bf16", "fp16", "int8"}) {
    const MergeReport report = merge(base, adapter, (temp / format).string(), {.to = format});
    EXPECT_NEAR(report.total.delta_retained, 1, 0.05) << format;
  }
  // In expectation all of it is there, below the noise of rounding every weight anew.
  const MergeReport fresh = merge(tiny_folder().string(), adapter, (temp / "fresh").string(), {.to = "nf4"});
  EXPECT_NEAR(fresh.total.delta_retained, 1, 0.5);
  EXPECT_GT(fresh.total.rounding_ratio, 2);
}

TEST(Merge, WhatTheAdapterLeavesAloneStaysBitForBit) {
  const TempFolder temp;
  const std::string base = quantized_tiny(temp, {.format = "nf4", .double_quant = true});
  const std::string adapter = write_adapter(temp, {});
  merge(base, adapter, (temp / "out").string(), {.to = "nf4", .double_quant = true, .force = true});
  const SafetensorsFile before = weights_of(base), after = weights_of(temp / "out");
  ASSERT_EQ(before.entries().size(), after.entries().size());
  for (const SafetensorsEntry& entry : before.entries()) {
    if (entry.name.find("layers.0.mlp.down_proj") != std::string::npos) continue;
    const Tensor a = before.load_bytes(entry.name), b = after.load_bytes(entry.name);
    EXPECT_EQ(std::string(a.data<char>(), a.bytes()), std::string(b.data<char>(), b.bytes())) << entry.name;
  }
}

TEST(Merge, AnAdapterThatChangesNothingGivesTheDenseBase) {
  const TempFolder temp;
  const std::string adapter = write_adapter(temp, {.norm_ratio = 0});
  const MergeReport report = merge(tiny_folder().string(), adapter, (temp / "out").string());
  EXPECT_EQ(report.total.delta_norm_ratio, 0);
  EXPECT_EQ(report.total.delta_retained, 1);
  EXPECT_EQ(load_values(temp / "out", "model.layers.0.mlp.down_proj.weight"),
            load_values(tiny_folder(), "model.layers.0.mlp.down_proj.weight"));
}

TEST(Merge, EveryWritableFormatLoadsAgain) {
  const TempFolder temp;
  const std::string adapter = write_adapter(temp, {.norm_ratio = 0.5});
  const std::vector<int32_t> ids = {5, 17, 99, 3};
  merge(tiny_folder().string(), adapter, (temp / "fp32").string(), {.to = "fp32"});
  const std::vector<float> exact = logits_of(temp / "fp32", ids);
  for (const std::string& format : writable_format_names()) {
    merge(tiny_folder().string(), adapter, (temp / "out").string(), {.to = format, .overwrite = true});
    EXPECT_LT(difference(logits_of(temp / "out", ids), exact).relative(), 0.5) << format;
  }
}

// The files of the dense model in GGUF and of the same model in safetensors give the same merged weights.
TEST(Merge, FromGguf) {
  NIBBLE_NEED_SHARED("goldens/gguf/f32.gguf");
  const TempFolder temp;
  const std::string base = (shared_folder() / "goldens/gguf/f32.gguf").string();
  const ModelFiles files = open_model(base);
  const SourceTensor& tensor = *files.weights->find("model.layers.0.mlp.down_proj.weight");
  const std::string adapter = write_adapter(temp, {.norm_ratio = 1, .out = tensor.shape[0], .in = tensor.shape[1]});
  merge(base, adapter, (temp / "direct").string(), {.to = "fp32"});
  dequantize(base, (temp / "dense").string());
  merge((temp / "dense").string(), adapter, (temp / "through").string(), {.to = "fp32"});
  EXPECT_EQ(load_values(temp / "direct", tensor.name), load_values(temp / "through", tensor.name));
  EXPECT_NE(load_values(temp / "direct", tensor.name), load_values(temp / "dense", tensor.name));
  const MergeReport report =
      merge((shared_folder() / "goldens/gguf/q4_0.gguf").string(), adapter, (temp / "int8").string(), {.to = "int8"});
  EXPECT_NEAR(report.total.delta_retained, 1, 0.05);
}

TEST(Merge, RefusesAdaptersOfOtherModels) {
  const TempFolder temp;
  const auto try_merge = [&](const AdapterSpec& spec) {
    merge(tiny_folder().string(), write_adapter(temp, spec), (temp / "out").string());
  };
  expect_error(ErrorCode::format, "model.layers.77.mlp.down_proj: the model has no such layer",
               [&] { try_merge({.module = "model.layers.77.mlp.down_proj"}); });
  expect_error(ErrorCode::format, "made for [12, 16], the model has [", [&] { try_merge({.out = 12, .in = 16}); });
  expect_error(ErrorCode::unsupported, "peft_type: found 'IA3'",
               [&] { try_merge({.config = R"({"peft_type": "IA3"})"}); });
  EXPECT_FALSE(fs::exists(temp / "out"));
}

TEST(Merge, RefusesAdaptersThatAreNotWhatTheySay) {
  const TempFolder temp;
  const auto refused = [&](const std::string& members, const char* says) {
    const AdapterSpec spec = {.config = R"({"peft_type": "LORA", "r": 4, "lora_alpha": 4)" + members + "}"};
    expect_error(ErrorCode::format, says,
                 [&] { merge(tiny_folder().string(), write_adapter(temp, spec), (temp / "out").string()); });
  };
  refused(
      R"(, "target_modules": ["up_proj"])",
      "has tensors of modules that adapter_config.json does not mean: base_model.model.model.layers.0.mlp.down_proj");
  refused(R"(, "target_modules": ["down_proj"], "layers_to_transform": [1])", "layers_to_transform: [1]");
  refused(R"(, "target_modules": ["down_proj"], "modules_to_save": ["score", "model.norm"])",
          "has no tensor for model.norm.weight, which modules_to_save names");
}

TEST(Merge, RefusesAFileWithoutA) {
  const TempFolder temp;
  write_adapter(temp, {});
  SafetensorsWriter writer(temp / "adapter/adapter_model.safetensors",
                           {{"base_model.model.model.layers.0.mlp.down_proj.lora_B.weight", DType::f32, {2, 4}}});
  writer.write("base_model.model.model.layers.0.mlp.down_proj.lora_B.weight", Tensor(DType::f32, {2, 4}));
  writer.finish();
  expect_error(ErrorCode::format, "A or B is missing",
               [&] { merge(tiny_folder().string(), (temp / "adapter").string(), (temp / "out").string()); });
}

}  // namespace
}  // namespace nibble
