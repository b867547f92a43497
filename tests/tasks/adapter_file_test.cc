// What adapter files call things, and several of them on one model.
#include <gtest/gtest.h>

#include <set>

#include "io/peft.h"
#include "support/goldens.h"
#include "support/model_weights.h"
#include "tasks/adapter.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

/// GPT-2 with the names of OpenAI's file, which lack "transformer.".
LoadedModel gpt2_without_prefix() {
  LoadedModel model;
  model.path = "gpt2";
  model.config = Json::parse(
      R"({"model_type": "gpt2", "vocab_size": 40, "n_embd": 48, "n_head": 3, "n_layer": 2, "n_positions": 32})", "c");
  const ModelWeights weights(model.config, {}, "transformer.");
  Loader loader(weights, {});
  model.model = build_model(model.config, "c", loader);
  model.parameters = loader.parameters();
  return model;
}

// PEFT sees the names of the class in transformers, whatever the files call a layer.
TEST(Adapter, OfGpt2WithoutItsPrefixHasTheNamesOfItsClass) {
  LoadedModel model = gpt2_without_prefix();
  const LoraConfig config = {.r = 4,
                             .target_modules = "transformer.h.0.attn.c_(attn|proj)",
                             .modules_to_save = {"ln_f"},
                             .rank_pattern = {{"^transformer.h.0.attn.c_attn", 2}}};
  const AttachedAdapter adapter = new_adapter(model, config, 0);
  const TempFolder temp;
  OutputFolder folder(temp / "adapter", Overwrite::no);
  write_adapter(folder, model, adapter);
  folder.commit();
  const SafetensorsFile file(temp / "adapter/adapter_model.safetensors");
  std::set<std::string> names;
  for (const SafetensorsEntry& entry : file.entries()) names.insert(entry.name);
  const std::string at = "base_model.model.transformer.";
  EXPECT_EQ(names, (std::set<std::string>{at + "h.0.attn.c_attn.lora_A.weight", at + "h.0.attn.c_attn.lora_B.weight",
                                          at + "h.0.attn.c_proj.lora_A.weight", at + "h.0.attn.c_proj.lora_B.weight",
                                          at + "ln_f.weight", at + "ln_f.bias"}));
  EXPECT_EQ(file.find(at + "h.0.attn.c_attn.lora_A.weight")->shape, (Shape{2, 48}));
  EXPECT_EQ(file.find(at + "h.0.attn.c_proj.lora_A.weight")->shape, (Shape{4, 48}));
  LoadedModel again = gpt2_without_prefix();
  EXPECT_EQ(attach_adapter(again, (temp / "adapter").string(), AdapterUse::inference).parameters.size(), 6u);
}

/// An adapter of q_proj of tiny-llama's first layer, by what its file has; its configuration names the same modules.
class AdapterFile {
 public:
  explicit AdapterFile(const TempFolder& temp) : temp_(temp) {}

  AdapterFile& add(const std::string& name, const Shape& shape, float value) {
    Tensor values(DType::f32, shape);
    for (int64_t i = 0; i < values.count(); ++i) values.f32()[i] = value * static_cast<float>(1 + i % 3);
    tensors_.emplace_back(name, values);
    return *this;
  }
  AdapterFile& add_lora(const std::string& module) {
    return add(module + ".lora_A.weight", {2, 128}, 0.01f).add(module + ".lora_B.weight", {128, 2}, 0.02f);
  }
  std::string write(const std::string& name, const std::string& members = "") const {
    return write_with(name, targets().dump(), members);
  }
  /// With other target_modules than the file has.
  std::string write_with(const std::string& name, const std::string& targets, const std::string& members = "") const {
    temp_.write(name + "/adapter_config.json",
                R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": )" + targets + members + "}");
    std::vector<TensorDeclaration> declared;
    for (const auto& [tensor, values] : tensors_)
      declared.push_back({"base_model.model." + tensor, DType::f32, values.shape});
    SafetensorsWriter out(temp_ / (name + "/adapter_model.safetensors"), declared);
    for (const auto& [tensor, values] : tensors_) out.write("base_model.model." + tensor, values);
    out.finish();
    return (temp_ / name).string();
  }

 private:
  Json targets() const {
    std::set<std::string> modules;
    for (const auto& [tensor, values] : tensors_) {
      const size_t end = tensor.find(".lora_");
      if (end != std::string::npos) modules.insert(tensor.substr(0, end));
    }
    Json list = Json::array();
    for (const std::string& module : modules) list.push_back(module);
    return list;
  }

  const TempFolder& temp_;
  std::vector<std::pair<std::string, Tensor>> tensors_;
};

const std::string kQ = "model.layers.0.self_attn.q_proj";

std::vector<float> logits_with(const std::vector<std::string>& adapters) {
  return load(tiny_folder(), {.activations = "fp32", .adapters = adapters}).logits(std::vector<int32_t>{5, 17, 9});
}

TEST(Adapter, SeveralThatContradictEachOtherAreRefused) {
  const TempFolder temp;
  const std::string plain = AdapterFile(temp).add_lora(kQ).write("plain");
  const std::string norm = AdapterFile(temp).add_lora(kQ).add("model.norm.weight", {128}, 0.5f).write("norm");
  const std::string other = AdapterFile(temp).add("model.norm.weight", {128}, 0.25f).write("other");
  const std::string dora = AdapterFile(temp)
                               .add_lora(kQ)
                               .add(kQ + ".lora_magnitude_vector", {128}, 1.0f)
                               .write("dora", R"(, "use_dora": true)");
  EXPECT_LE(difference(logits_with({plain, norm}), logits_with({norm, plain})).largest, 1e-4);
  // PEFT stores the base's table beside an adapter of it: twice the same is no contradiction.
  const std::string table = "model.embed_tokens";
  const auto of_table = [&](const std::string& name) {
    return AdapterFile(temp)
        .add(table + ".lora_embedding_A", {2, 512}, 0.01f)
        .add(table + ".lora_embedding_B", {128, 2}, 0.02f)
        .add(table + ".base_layer.weight", {512, 128}, 0.03f)
        .write(name);
  };
  const std::string first = of_table("first"), second = of_table("second");
  EXPECT_GT(difference(logits_with({first, second}), logits_with({first})).largest, 1e-3);
  expect_error(ErrorCode::format, "model.norm.weight: an adapter before this one has replaced it", [&] {
    logits_with({norm, other});
  });
  EXPECT_GT(difference(logits_with({dora, plain}), logits_with({dora})).largest, 1e-4);
  expect_error(ErrorCode::format, kQ + ": use_dora: has to be the first of its adapters", [&] {
    logits_with({plain, dora});
  });
}

// A bias of B is added beside the base's, with the adapter's scale.
TEST(Adapter, ABiasOfItsOwnIsScaledAndAdded) {
  const TempFolder temp;
  const auto with = [&](const std::string& name, float bias, const std::string& members) {
    return AdapterFile(temp)
        .add(kQ + ".lora_A.weight", {2, 128}, 0.0f)
        .add(kQ + ".lora_B.weight", {128, 2}, 0.0f)
        .add(kQ + ".lora_B.bias", {128}, bias)
        .write(name, R"(, "lora_bias": true)" + members);
  };
  const auto once = logits_with({with("once", 0.5f, "")});  // scaled by 4 / 2
  EXPECT_GT(difference(once, logits_with({})).largest, 0.01);
  EXPECT_LE(difference(once, logits_with({with("twice", 1.0f, R"(, "alpha_pattern": {"q_proj": 2})")})).largest, 1e-5);
  const std::vector<std::string> halves = {with("half", 0.25f, ""), with("half too", 0.25f, "")};
  EXPECT_LE(difference(once, logits_with(halves)).largest, 1e-4);
}

TEST(Adapter, TheNamesOfPeftForSavedModulesAreRead) {
  const TempFolder temp;
  const std::string plain = AdapterFile(temp).add_lora(kQ).add("model.norm.weight", {128}, 0.5f).write("plain");
  const std::string wrapped = AdapterFile(temp)
                                  .add_lora(kQ)
                                  .add("model.norm.modules_to_save.weight", {128}, 0.5f)
                                  .add("model.norm.original_module.weight", {128}, 7.0f)
                                  .write("wrapped");
  EXPECT_EQ(logits_with({plain}), logits_with({wrapped}));
}

const std::string kO = "model.layers.0.self_attn.o_proj", kQ1 = "model.layers.1.self_attn.q_proj";

// PEFT ignores such tensors: whether they or the configuration are right, the file does not tell.
TEST(Adapter, ThatHoldsMoreThanItsConfigurationSaysIsRefused) {
  const TempFolder temp;
  const AdapterFile two = AdapterFile(temp).add_lora(kQ).add_lora(kO),
                    layers = AdapterFile(temp).add_lora(kQ).add_lora(kQ1);
  const std::string regex = R"("model\\.layers\\.0\\.self_attn\\.[qo]_proj")";
  EXPECT_EQ(logits_with({two.write_with("regex", regex)}), logits_with({two.write("list")}));
  EXPECT_EQ(logits_with({layers.write_with("ends", R"(["q_proj"])", R"(, "layers_to_transform": [0, 1])")}),
            logits_with({layers.write("names")}));
  for (const char* pattern : {R"("layers")", R"("")", R"(["h", "layers"])", R"("model.layers")", "[\"(h|layers)\"]"}) {
    const std::string members = R"(, "layers_to_transform": [0, 1], "layers_pattern": )" + std::string(pattern);
    logits_with({layers.write_with("pattern", R"(["q_proj"])", members)});
  }
  // As older versions of PEFT have them: an adapter inside of what is saved whole.
  logits_with({AdapterFile(temp)
                   .add_lora(kQ)
                   .add(kQ + ".base_layer.weight", {128, 128}, 0.01f)
                   .write("inside", R"(, "modules_to_save": ["model.layers.0.self_attn.q_proj"])")});
  struct Row {
    std::string folder;
    std::vector<const char*> says;
  };
  const std::string o = "base_model.model." + kO + ".lora_A.weight", q = "base_model.model." + kQ + ".lora_A.weight";
  const Row rows[] = {
      {two.write_with("fewer", "[\"" + kQ + "\"]"),
       {"fewer/adapter_model.safetensors: has tensors of modules that adapter_config.json does not mean", o.c_str(),
        "It says target_modules: [\"model.layers.0.self_attn.q_proj\"]"}},
      {two.write_with("excluded", regex, R"(, "exclude_modules": ["o_proj"])"),
       {o.c_str(), R"(exclude_modules: ["o_proj"])"}},
      {layers.write_with("layers", R"(["q_proj"])", R"(, "layers_to_transform": [1])"),
       {q.c_str(), "layers_to_transform: [1]"}},
      {layers.write_with("pattern", R"(["q_proj"])",
                         R"(, "layers_to_transform": [0, 1], "layers_pattern": ["model.h"])"),
       {q.c_str(), R"(layers_pattern: ["model.h"])"}},
      {two.write_with("none", "null"), {q.c_str(), "It says nothing of modules"}},
  };
  for (const Row& row : rows) {
    for (const char* says : row.says) expect_error(ErrorCode::format, says, [&] { logits_with({row.folder}); });
  }
}

TEST(Adapter, ThatHoldsLessThanItsConfigurationSaysIsRefused) {
  const TempFolder temp;
  const AdapterFile file = AdapterFile(temp).add_lora(kQ);
  const std::string plain = file.write("plain"), saves = R"(, "modules_to_save": )";
  EXPECT_EQ(logits_with({file.write("score", saves + R"(["classifier", "score"])")}), logits_with({plain}))
      << "the model has no such modules";
  const auto refused = [&](const std::string& folder, const char* says) {
    expect_error(ErrorCode::format, says, [&] { logits_with({folder}); });
  };
  refused(file.write("head", saves + R"(["lm_head"])"),
          "has no tensor for lm_head.weight, which modules_to_save names");
  refused(file.write("norm", saves + R"(["model.norm"])"),
          "has no tensor for model.norm.weight, which modules_to_save");
  refused(file.write_with("table", "[\"embed_tokens\", \"" + kQ + "\"]"),
          "has no tensors for model.embed_tokens, which target_modules names");
}

// What the model leaves out of its files has no effect, with an adapter or without.
TEST(Adapter, OfPartsThatTheModelLeavesOutIsLeftOutToo) {
  const TempFolder temp;
  const std::string adapter = AdapterFile(temp)
                                  .add_lora(kQ)
                                  .add_lora("model.vision_tower.proj")
                                  .add("vision.norm.weight", {4}, 1)
                                  .write("adapter");
  // Beside what is used, and with a name that ends like one that is.
  const std::string scale = kQ + ".input_scale", longer = "mtp." + kQ + ".weight";
  expect_error(ErrorCode::format, "the model has no module vision_tower.proj", [&] { logits_with({adapter}); });
  const SafetensorsFile in(tiny_folder() / "model.safetensors");
  const auto folder = tiny_variant(temp, "more", {{"model.safetensors", ""}});
  std::vector<TensorDeclaration> declared = {{"vision_tower.proj.weight", DType::f32, {128, 128}},
                                             {"vision.norm.weight", DType::f32, {4}},
                                             {scale, DType::f32, {1}},
                                             {longer, DType::f32, {128, 128}}};
  for (const SafetensorsEntry& e : in.entries()) declared.push_back({e.name, DType::bf16, e.shape});
  SafetensorsWriter out(folder / "model.safetensors", declared);
  for (const TensorDeclaration& d : declared) {
    out.write(d.name, in.find(d.name) ? in.load(d.name) : Tensor(d.dtype, d.shape));
  }
  out.finish();
  const std::vector<int32_t> ids = {5, 17, 9};
  const std::string alone = AdapterFile(temp).add_lora(kQ).write("alone");
  EXPECT_EQ(load(folder, {.activations = "fp32", .adapters = {adapter}}).logits(ids), logits_with({alone}));
}

}  // namespace
}  // namespace nibble
