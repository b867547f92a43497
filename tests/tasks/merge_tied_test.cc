// Merging adapters of a head or of embeddings that share one matrix, and several adapters at once.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "io/model_files.h"
#include "nibble/finetune.h"
#include "nibble/lora.h"
#include "nibble/merge.h"
#include "nibble/quantize.h"
#include "support/goldens.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;
namespace fs = std::filesystem;

const std::vector<int32_t> kIds = {5, 17, 93, 3, 64, 71, 12, 80};

struct TiedCase {
  const char* model;  // of goldens/models; "" = the bundled one
  const char *table, *head;
  std::vector<std::string> targets, saved;
};

std::string folder_of(const TiedCase& row) {
  return *row.model ? (shared_folder() / "goldens/models" / row.model).string() : tiny_folder().string();
}

/// An adapter that changes something from the start. Copies of whole modules are those of the base.
std::string new_adapter(const TempFolder& temp, const std::string& model, const LoraConfig& config, uint64_t seed = 0) {
  LoraConfig c = config;
  c.r = 4;
  c.init_lora_weights = "false";
  const std::string folder = (temp / ("adapter" + std::to_string(seed))).string();
  get_peft_model(test::load(model), c, seed).save_pretrained(folder, PeftModel::Existing::overwrite);
  return folder;
}

/// The same tensors, those of whole modules halved, so that they are no longer the base's.
void halve_copies(const std::string& adapter) {
  const fs::path path = fs::path(adapter) / "adapter_model.safetensors", changed = path.string() + ".new";
  {
    const SafetensorsFile in(path);
    std::vector<TensorDeclaration> declared;
    for (const SafetensorsEntry& e : in.entries()) declared.push_back({e.name, DType::f32, e.shape});
    SafetensorsWriter out(changed, declared);
    for (const SafetensorsEntry& e : in.entries()) {
      std::vector<float> values = floats(in.load(e.name));
      const bool is_copy = e.name.find(".lora_") == std::string::npos;
      for (float& v : values) v *= is_copy ? 0.5f : 1.0f;
      out.write(e.name, Tensor::from(values, e.shape));
    }
    out.finish();
  }
  fs::rename(changed, path);
}

std::vector<float> logits_of(const std::string& model, const std::vector<std::string>& adapters = {}) {
  return test::load(model, {.activations = "fp32", .adapters = adapters}).logits(kIds);
}

bool is_tied(const fs::path& folder) {
  return Json::parse_file((folder / "config.json").string()).find("tie_word_embeddings")->as_bool("tied");
}

class MergeTied : public ::testing::TestWithParam<TiedCase> {};

// The merged model is base and adapter together, in two matrices; in 4 bits it is the dense one quantized.
TEST_P(MergeTied, EqualsBaseAndAdapter) {
  const TiedCase& row = GetParam();
  if (*row.model) NIBBLE_NEED_SHARED("goldens/models/" + std::string(row.model));
  const TempFolder temp;
  const std::string base = folder_of(row), out = (temp / "fp32").string();
  const std::string adapter = new_adapter(temp, base, {.target_modules = row.targets, .modules_to_save = row.saved});
  halve_copies(adapter);
  const MergeReport report = merge(base, adapter, out, {.to = "fp32"});
  const std::vector<float> expected = logits_of(base, {adapter});
  EXPECT_GT(difference(logits_of(base), expected).relative(), 1e-3);
  EXPECT_LE(difference(logits_of(out), expected).relative(), 2e-5);
  EXPECT_FALSE(is_tied(out));
  const SafetensorsFile merged(fs::path(out) / "model.safetensors");
  ASSERT_TRUE(merged.find(row.head) && merged.find(row.table));
  EXPECT_EQ(merged.find(row.head)->shape, merged.find(row.table)->shape);
  for (const std::string& module : row.targets) {
    EXPECT_TRUE(std::any_of(report.layers.begin(), report.layers.end(), [&](const MergedLayer& layer) {
      return layer.name.ends_with(module) && layer.format == "fp32" && layer.loss.delta_norm_ratio > 0;
    })) << module;
  }
  EXPECT_EQ(report.replaced.size(), row.saved.size());
  uint64_t bytes = 0;
  for (const SafetensorsEntry& e : merged.entries()) bytes += 4 * static_cast<uint64_t>(element_count(e.shape));
  EXPECT_EQ(report.bytes_after, bytes);
}

TEST_P(MergeTied, StaysDenseInEveryFormat) {
  const TiedCase& row = GetParam();
  if (*row.model) NIBBLE_NEED_SHARED("goldens/models/" + std::string(row.model));
  const TempFolder temp;
  const std::string base = (temp / "base").string(), out = (temp / "out").string();
  dequantize(folder_of(row), base);  // in f32, which rounds nothing of what stays dense
  const std::string adapter = new_adapter(temp, base, {.target_modules = row.targets, .modules_to_save = row.saved});
  merge(base, adapter, (temp / "dense").string(), {.to = "fp32"});
  for (const std::string format : {"nf4", "int8", "bf16", "fp16"}) {
    merge(base, adapter, out, {.to = format, .force = true, .overwrite = true});
    quantize((temp / "dense").string(), (temp / format).string(), {.format = format});
    EXPECT_EQ(logits_of(out), logits_of((temp / format).string())) << format;
    const ModelFiles files = open_model(out);
    for (const char* name : {row.head, row.table}) EXPECT_TRUE(is_dense(*files.weights->find(name))) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, MergeTied,
    ::testing::Values(TiedCase{"", "model.embed_tokens.weight", "lm_head.weight", {"lm_head", "q_proj"}, {}},
                      TiedCase{"", "model.embed_tokens.weight", "lm_head.weight", {"embed_tokens"}, {}},
                      TiedCase{"", "model.embed_tokens.weight", "lm_head.weight", {"q_proj"}, {"embed_tokens"}},
                      TiedCase{"", "model.embed_tokens.weight", "lm_head.weight", {"q_proj"}, {"lm_head"}},
                      TiedCase{
                          "", "model.embed_tokens.weight", "lm_head.weight", {"q_proj"}, {"lm_head", "embed_tokens"}},
                      TiedCase{"gpt2", "transformer.wte.weight", "lm_head.weight", {"lm_head"}, {}},
                      TiedCase{"gpt2", "transformer.wte.weight", "lm_head.weight", {"wte", "wpe"}, {}},
                      TiedCase{"gpt2", "transformer.wte.weight", "lm_head.weight", {"c_attn"}, {"wte"}},
                      TiedCase{"qwen2", "model.embed_tokens.weight", "lm_head.weight", {"lm_head"}, {}},
                      TiedCase{"gemma2", "model.embed_tokens.weight", "lm_head.weight", {"embed_tokens"}, {"lm_head"}},
                      TiedCase{"gemma3", "model.embed_tokens.weight", "lm_head.weight", {"lm_head"}, {}}),
    [](const auto& info) {
      std::string name = *info.param.model ? info.param.model : "tiny";
      for (const auto& list : {info.param.targets, info.param.saved}) {
        for (const std::string& module : list) name += "_" + module;
        name += "_";
      }
      return name + "of";
    });

// The bases whose head is not named in their files at all, or is there as another copy of the embeddings.
TEST(MergeTiedBases, QuantizedFoldersAndGguf) {
  NIBBLE_NEED_SHARED("goldens");
  const TempFolder temp;
  for (const char* path : {"bnb/llama-tied-nf4", "gguf/q4_0.gguf"}) {
    const std::string base = (shared_folder() / "goldens" / path).string(), out = (temp / "out").string();
    const std::string adapter = new_adapter(temp, base, {.target_modules = std::vector<std::string>{"lm_head"}});
    const MergeReport report = merge(base, adapter, out, {.to = "fp32", .overwrite = true});
    ASSERT_EQ(report.layers.size(), 1u);
    EXPECT_EQ(report.layers[0].name, "lm_head");
    EXPECT_LE(difference(logits_of(out), logits_of(base, {adapter})).relative(), 1e-4) << path;
  }
}

TEST(MergeTiedBases, AFileWithTwoCopies) {
  const TempFolder temp;
  const fs::path base = tiny_variant(temp, "twice", {{"model.safetensors", ""}});
  const SafetensorsFile in(tiny_folder() / "model.safetensors");
  std::vector<TensorDeclaration> declared = {
      {"lm_head.weight", DType::bf16, in.find("model.embed_tokens.weight")->shape}};
  for (const SafetensorsEntry& e : in.entries()) declared.push_back({e.name, DType::bf16, e.shape});
  SafetensorsWriter writer(base / "model.safetensors", declared);
  writer.write("lm_head.weight", in.load("model.embed_tokens.weight"));
  for (const SafetensorsEntry& e : in.entries()) writer.write(e.name, in.load(e.name));
  writer.finish();
  const std::string adapter = new_adapter(temp, base.string(), {.target_modules = std::vector<std::string>{"lm_head"}});
  merge(base.string(), adapter, (temp / "out").string(), {.to = "fp32"});
  EXPECT_FALSE(is_tied(temp / "out"));
  EXPECT_LE(difference(logits_of((temp / "out").string()), logits_of(base.string(), {adapter})).relative(), 2e-5);
}

// Of a tied model whose adapter leaves head and embeddings alone nothing is untied.
TEST(MergeTiedBases, OthersStayTied) {
  const TempFolder temp;
  const std::string adapter =
      new_adapter(temp, tiny_folder().string(), {.target_modules = std::vector<std::string>{"q_proj"}});
  merge(tiny_folder().string(), adapter, (temp / "out").string());
  EXPECT_TRUE(is_tied(temp / "out"));
  EXPECT_EQ(SafetensorsFile(temp / "out/model.safetensors").find("lm_head.weight"), nullptr);
}

/// Of what a language model says of kIds.
double loss_of(const std::vector<float>& logits) {
  const size_t vocabulary = logits.size() / kIds.size();
  double loss = 0;
  for (size_t i = 0; i + 1 < kIds.size(); ++i) {
    const float* row = logits.data() + i * vocabulary;
    double sum = 0;
    for (size_t id = 0; id < vocabulary; ++id) sum += std::exp(static_cast<double>(row[id]));
    loss += std::log(sum) - row[kIds[i + 1]];
  }
  return loss / static_cast<double>(kIds.size() - 1);
}

// What stays dense in the merge is trained as it is. Over the format of the merge only layers with an adapter are
// rounded anew, and without any of those nothing is.
TEST(MergeTiedBases, AMergeAwareAdapterIsMergedAsTrained) {
  const TempFolder temp;
  const std::string dense = (temp / "dense").string(), nf4 = (temp / "nf4").string();
  dequantize(tiny_folder().string(), dense);
  quantize(dense, nf4, {.format = "nf4"});
  Json ids = Json::array();
  for (const int32_t id : kIds) ids.push_back(id);
  const std::string data = temp.write("data.jsonl", Json::object({{"input_ids", ids}}).dump() + "\n").string();
  using Names = std::vector<std::string>;
  const std::pair<Names, Names> rows[] = {{{"q_proj", "lm_head"}, {}},
                                          {{"q_proj", "embed_tokens"}, {}},
                                          {{"q_proj"}, {"lm_head"}},
                                          {{"q_proj"}, {"embed_tokens", "lm_head"}},
                                          {{"lm_head"}, {}}};
  for (const std::string& base : {dense, nf4}) {
    for (const auto& [targets, saved] : rows) {
      const std::string adapter = (temp / "adapter").string(), out = (temp / "out").string();
      const FinetuneReport trained = finetune(base, adapter,
                                              {.data = data,
                                               .eval_data = data,
                                               .lora = {.r = 4, .target_modules = targets, .modules_to_save = saved},
                                               .merge_aware = "nf4",
                                               .steps = 5,
                                               .learning_rate = 1e-2,
                                               .overwrite = true});
      EXPECT_TRUE(merge(base, adapter, out, {.to = "nf4", .overwrite = true}).as_trained) << base << targets.back();
      const double loss = *trained.eval_loss;
      EXPECT_NEAR(loss_of(logits_of(out)), loss, 1e-5 * loss) << base << targets.back();
      EXPECT_LT(loss, loss_of(logits_of(base))) << base << targets.back();
    }
  }
}

// ---- several adapters ----

TEST(MergeSeveral, ChangesAddUp) {
  const TempFolder temp;
  const std::string base = tiny_folder().string(), out = (temp / "out").string();
  const std::vector<std::string> adapters = {
      new_adapter(temp, base, {.target_modules = "all-linear", .use_dora = true}, 1),
      new_adapter(temp, base, {.target_modules = std::vector<std::string>{"q_proj", "lm_head"}}, 2),
      new_adapter(temp, base, {.lora_alpha = 3, .target_modules = std::vector<std::string>{"q_proj", "up_proj"}}, 3)};
  const MergeReport report = merge(base, adapters, out, {.to = "fp32"});
  EXPECT_LE(difference(logits_of(out), logits_of(base, adapters)).relative(), 2e-5);
  EXPECT_GT(difference(logits_of(out), logits_of(base, {adapters[0], adapters[1]})).relative(), 1e-3);
  const std::string two = (temp / "two").string();
  EXPECT_EQ(merge(base, {adapters[0].c_str(), adapters[1].c_str()}, two, {.to = "fp32"}).layers.size(),
            report.layers.size());
  EXPECT_EQ(report.layers.size(), 3u * 7u + 1u);
  EXPECT_FALSE(report.trained_for);
}

TEST(MergeSeveral, WhatDoesNotAddUpIsRefused) {
  const TempFolder temp;
  const std::string base = tiny_folder().string(), out = (temp / "out").string();
  const LoraConfig saved = {.target_modules = std::vector<std::string>{"q_proj"}, .modules_to_save = {"model.norm"}};
  const std::string first = new_adapter(temp, base, saved, 1), second = new_adapter(temp, base, saved, 2);
  const std::string dora = new_adapter(temp, base, {.target_modules = "all-linear", .use_dora = true}, 3);
  expect_error(ErrorCode::format,
               "adapter2: the adapter does not fit the model: model.norm.weight: an adapter before "
               "this one has replaced it",
               [&] {
                 merge(base, std::vector<std::string>{first, second}, out);
               });
  expect_error(ErrorCode::format, "q_proj.weight: use_dora: has to be the first of its adapters", [&] {
    merge(base, std::vector<std::string>{first, dora}, out);
  });
  EXPECT_FALSE(fs::exists(out));
}

}  // namespace
}  // namespace nibble
