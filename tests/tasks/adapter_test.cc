// Adapter folders that the real PEFT wrote, against its logits; folders that do not fit; folders of our own.
#include <gtest/gtest.h>

#include <optional>

#include "io/peft.h"
#include "nibble/lora.h"
#include "support/goldens.h"
#include "support/model_weights.h"
#include "tasks/adapter.h"
#include "tasks/adapter_targets.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

// transformers' own float32 results are within 1e-5 of float64; sums in another order move them as much again.
constexpr double kTolerance = 2e-4;

std::string golden_adapter(const std::string& name) { return (shared_folder() / "goldens/peft" / name).string(); }

std::shared_ptr<LoadedModel> load_base(const std::string& model, std::vector<std::string> adapters) {
  return load_model((shared_folder() / "goldens" / model).string(),
                    {.activations = "fp32", .adapters = std::move(adapters)});
}

/// The ids of prompt i; of an encoder those of sequence i without its padding.
struct Prompt {
  std::vector<int32_t> ids, types;
};

std::vector<Prompt> prompts_of(const std::string& model, bool is_encoder) {
  const SafetensorsFile file(shared_folder() / "goldens/models" / model / "golden.safetensors");
  std::vector<Prompt> prompts;
  for (int i = 0; !is_encoder && file.find("input_ids." + std::to_string(i)); ++i) {
    prompts.push_back({ids_of(file.load("input_ids." + std::to_string(i))), {}});
  }
  if (!is_encoder) return prompts;
  const Tensor ids = file.load("input_ids"), mask = file.load("attention_mask");
  const bool has_types = file.find("token_type_ids") != nullptr;
  const auto all = ids_of(ids), used = ids_of(mask);
  const auto types = has_types ? ids_of(file.load("token_type_ids")) : std::vector<int32_t>(all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    if (i % static_cast<size_t>(ids.shape[1]) == 0) prompts.emplace_back();
    if (used[i] == 0) continue;
    prompts.back().ids.push_back(all[i]);
    prompts.back().types.push_back(types[i]);
  }
  return prompts;
}

/// Logits of all prompts, one after the other, and the golden's of the same rows.
std::vector<float> run_all(const Model& model, const std::vector<Prompt>& prompts) {
  std::vector<float> out;
  for (const Prompt& prompt : prompts) {
    const Tensor hidden = model.hidden({.ids = prompt.ids, .token_type_ids = prompt.types}, nullptr, nullptr);
    const auto logits = floats(model.logits(model.info().is_encoder ? hidden.slice_rows(0, 1) : hidden));
    out.insert(out.end(), logits.begin(), logits.end());
  }
  return out;
}

std::vector<float> expected_logits(const std::string& adapter, const std::string& prefix, bool is_encoder) {
  const SafetensorsFile golden(golden_adapter(adapter + ".golden.safetensors"));
  if (is_encoder) return floats(golden.load(prefix + "logits"));
  std::vector<float> out;
  for (int i = 0; golden.find(prefix + "logits." + std::to_string(i)); ++i) {
    const auto part = floats(golden.load(prefix + "logits." + std::to_string(i)));
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

struct Case {
  const char* adapter;
  const char* model;
  const char* nf4 = nullptr;  // the same model in NF4, where there are logits for it
};

class PeftGolden : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override { NIBBLE_NEED_SHARED("goldens/peft"); }
};

TEST_P(PeftGolden, GivesTheLogitsOfPeft) {
  const Case& c = GetParam();
  const auto model = load_base("models/" + std::string(c.model), {golden_adapter(c.adapter)});
  const bool is_encoder = model->model->info().is_encoder;
  const auto got = run_all(*model->model, prompts_of(c.model, is_encoder));
  const auto expected = expected_logits(c.adapter, "", is_encoder);
  ASSERT_FALSE(expected.empty());
  EXPECT_LE(difference(got, expected).largest, kTolerance);
  const auto off = load_base("models/" + std::string(c.model), {});
  EXPECT_GT(difference(run_all(*off->model, prompts_of(c.model, is_encoder)), expected).largest, 0.01);
}

TEST(Adapter, GivesTheLogitsOfPeftOverAnNf4Base) {
  NIBBLE_NEED_SHARED("goldens/peft");
  const Case rows[] = {{"bert-all", "bert", "bnb/bert-nf4"}, {"llama-qv", "llama", "bnb/llama-nf4"}};
  for (const Case& c : rows) {
    const auto model = load_base(c.nf4, {golden_adapter(c.adapter)});
    const bool is_encoder = model->model->info().is_encoder;
    const auto expected = expected_logits(c.adapter, "nf4.", is_encoder);
    ASSERT_FALSE(expected.empty()) << c.adapter;
    EXPECT_LE(difference(run_all(*model->model, prompts_of(c.model, is_encoder)), expected).largest, kTolerance);
  }
}

// Written again, byte for byte the tensors that were read.
TEST_P(PeftGolden, WritesTheTensorsThatItRead) {
  const Case& c = GetParam();
  const auto model = load_base("models/" + std::string(c.model), {});
  const AttachedAdapter adapter = attach_adapter(*model, golden_adapter(c.adapter), AdapterUse::training);
  const TempFolder temp;
  OutputFolder folder(temp / "adapter", Overwrite::no);
  write_adapter(folder, *model, adapter);
  folder.commit();
  const SafetensorsFile before(golden_adapter(c.adapter) + "/adapter_model.safetensors");
  const SafetensorsFile after(temp / "adapter/adapter_model.safetensors");
  ASSERT_EQ(before.entries().size(), after.entries().size());
  for (const SafetensorsEntry& entry : before.entries()) {
    ASSERT_NE(after.find(entry.name), nullptr) << entry.name;
    EXPECT_EQ(floats(before.load(entry.name)), floats(after.load(entry.name))) << entry.name;
  }
  const auto again = load_base("models/" + std::string(c.model), {(temp / "adapter").string()});
  const bool is_encoder = again->model->info().is_encoder;
  EXPECT_LE(
      difference(run_all(*again->model, prompts_of(c.model, is_encoder)), expected_logits(c.adapter, "", is_encoder))
          .largest,
      kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Adapters, PeftGolden,
                         ::testing::Values(Case{"bert-all", "bert"}, Case{"bert-seqcls", "bert"},
                                           Case{"gpt2-conv1d", "gpt2"}, Case{"llama-all-rslora", "llama"},
                                           Case{"llama-dora", "llama"}, Case{"llama-embed", "llama"},
                                           Case{"llama-layers", "llama"}, Case{"llama-patterns", "llama"},
                                           Case{"llama-qv", "llama"}, Case{"llama-regex", "llama"},
                                           Case{"qwen2-lora-only-bias", "qwen2"}),
                         [](const auto& info) {
                           std::string name = info.param.adapter;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Adapter, TwoAddUp) {
  NIBBLE_NEED_SHARED("goldens/peft");
  const std::vector<std::string> both = {golden_adapter("llama-qv"), golden_adapter("llama-regex")};
  const auto prompts = prompts_of("llama", false);
  const auto one = run_all(*load_base("models/llama", {both[0]})->model, prompts);
  const auto two = run_all(*load_base("models/llama", both)->model, prompts);
  const auto swapped = run_all(*load_base("models/llama", {both[1], both[0]})->model, prompts);
  EXPECT_GT(difference(two, one).largest, 0.01);
  EXPECT_LE(difference(two, swapped).largest, 1e-4);
}

TEST(Adapter, OfAnotherModelIsRefusedWithTheFirstMismatches) {
  NIBBLE_NEED_SHARED("goldens/peft");
  expect_error(ErrorCode::format, "the model has no module",
               [] { load_base("models/llama", {golden_adapter("gpt2-conv1d")}); });
  const TempFolder temp;
  temp.write("adapter/adapter_config.json",
             R"({"peft_type": "LORA", "r": 3, "target_modules": ["q_proj", "v_proj", "o_proj"]})");
  std::filesystem::copy(golden_adapter("llama-qv") + "/adapter_model.safetensors", temp / "adapter");
  for (const char* says : {"lora_A.weight: found [8, 64], expected [3, 64]", "has no tensors for", "o_proj"}) {
    expect_error(ErrorCode::format, says, [&] { load_base("models/llama", {(temp / "adapter").string()}); });
  }
}

TEST(Adapter, RealConfigurationsAreRead) {
  NIBBLE_NEED_SHARED("real/adapters");
  const auto read = [](const char* name) {
    return load_lora_config((shared_folder() / "real/adapters" / name).string());
  };
  EXPECT_EQ(read("distilbert-imdb").target_modules, ModuleChoice({"v_lin", "q_lin"}));
  EXPECT_EQ(read("distilbert-imdb").modules_to_save, (std::vector<std::string>{"classifier", "score"}));
  EXPECT_TRUE(read("gpt2-peft").fan_in_fan_out);
  EXPECT_EQ(read("opt125m-lab8-bf16").lora_alpha, 32);
  EXPECT_EQ(read("peft-0.6.1-lora_mlp").r, 8);
}

// Their bases are not at hand, so only that every tensor finds its place is tested.
TEST(Adapter, RealOnesFindTheirPlaces) {
  NIBBLE_NEED_SHARED("real/adapters");
  const struct {
    const char *adapter, *config;
  } rows[] = {
      {"distilbert-imdb", R"({"model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"],
        "vocab_size": 40, "dim": 768, "hidden_dim": 3072, "n_layers": 6, "n_heads": 12,
        "max_position_embeddings": 512})"},
      {"opt125m-lab8-bf16", R"({"model_type": "opt", "architectures": ["OPTForCausalLM"], "vocab_size": 40,
        "hidden_size": 768, "ffn_dim": 64, "num_hidden_layers": 12, "num_attention_heads": 12})"},
  };
  for (const auto& row : rows) {
    LoadedModel model;
    model.config = Json::parse(row.config, "config.json");
    const ModelWeights weights(model.config);
    Loader loader(weights, {});
    model.model = build_model(model.config, "config.json", loader);
    const std::string folder = (shared_folder() / "real/adapters" / row.adapter).string();
    const AttachedAdapter adapter = attach_adapter(model, folder, AdapterUse::inference);
    const SafetensorsFile file(std::filesystem::path(folder) / "adapter_model.safetensors");
    EXPECT_EQ(adapter.parameters.size(), file.entries().size()) << row.adapter;
  }
}

TEST(AdapterTargets, MeanWhatPeftMeans) {
  const std::string up = "model.layers.3.mlp.up_proj", q = "model.layers.3.self_attn.q_proj";
  const auto chosen = [](const LoraConfig& config, const std::string& module) {
    return AdapterTargets(config, "c").is_target(module, ModuleKind::linear);
  };
  EXPECT_TRUE(chosen({.target_modules = {"up_proj"}}, up));
  EXPECT_TRUE(chosen({.target_modules = {"mlp.up_proj"}}, up));
  EXPECT_FALSE(chosen({.target_modules = {"proj"}}, up));
  EXPECT_TRUE(chosen({.target_modules = R"(.*\.(up|down)_proj)"}, up));
  EXPECT_FALSE(chosen({.target_modules = R"((up|down)_proj)"}, up)) << "a pattern is for the whole name";
  EXPECT_TRUE(chosen({.target_modules = "ALL-linear"}, up));
  EXPECT_FALSE(chosen({.target_modules = "all-linear"}, "lm_head"));
  EXPECT_FALSE(chosen({.target_modules = "all-linear"}, "classifier.dense"));
  EXPECT_FALSE(chosen({.target_modules = "all-linear", .exclude_modules = {"up_proj"}}, up));
  EXPECT_FALSE(chosen({.target_modules = "all-linear", .exclude_modules = ".*mlp.*"}, up));
  EXPECT_FALSE(chosen({.target_modules = "all-linear", .modules_to_save = {"mlp"}}, up));
  EXPECT_TRUE(chosen({.target_modules = {"q_proj"}, .layers_to_transform = {2, 3}}, q));
  EXPECT_FALSE(chosen({.target_modules = {"q_proj"}, .layers_to_transform = {2}}, q));
  EXPECT_TRUE(chosen({.target_modules = {q}, .layers_to_transform = {2}}, q)) << "named in full";
  EXPECT_TRUE(chosen({.target_modules = {"q_proj"}, .layers_to_transform = {3}, .layers_pattern = {"layers"}}, q));
  EXPECT_FALSE(chosen({.target_modules = {"q_proj"}, .layers_to_transform = {3}, .layers_pattern = {"h"}}, q));
  const AdapterTargets ranks({.r = 4, .rank_pattern = {{"layers.3.mlp.up_proj", 2}, {"q_proj", 6}}}, "c");
  EXPECT_EQ(ranks.rank(up), 2);
  EXPECT_EQ(ranks.rank(q), 6);
  EXPECT_EQ(ranks.rank("model.layers.13.mlp.up_proj"), 4);
  EXPECT_EQ(ranks.rank("model.layers.3.mlp.down_proj"), 4);
  expect_error(ErrorCode::format, "target_modules", [] { AdapterTargets({.target_modules = "("}, "c"); });
}

LoraConfig parse(const std::string& members) {
  return parse_lora_config(Json::parse("{\"peft_type\": \"LORA\"" + members + "}", "c.json"), "c.json");
}

TEST(LoraConfigFile, FieldsThatAreNotSupportedAreRefusedByName) {
  struct Row {
    const char* members;
    ErrorCode code;
    const char* says;
  };
  const Row rows[] = {
      {R"(, "use_qalora": true)", ErrorCode::unsupported, "c.json: use_qalora: found true"},
      {R"(, "layer_replication": [[0, 4]])", ErrorCode::unsupported, "layer_replication"},
      {R"(, "trainable_token_indices": [1])", ErrorCode::unsupported, "trainable_token_indices"},
      {R"(, "a_field_of_tomorrow": 3)", ErrorCode::unsupported, "a_field_of_tomorrow"},
      {R"(, "init_lora_weights": "magic")", ErrorCode::unsupported,
       "init_lora_weights: found 'magic', expected one of"},
      {R"(, "init_lora_weights": "pissa_niter_x")", ErrorCode::unsupported,
       "found 'pissa_niter_x', expected one of true"},
      {R"(, "init_lora_weights": "pissa_niter_N")", ErrorCode::unsupported,
       "found 'pissa_niter_N', expected one of true"},
      {R"(, "r": 0)", ErrorCode::format, "c.json: r: found 0, expected at least 1"},
      {R"(, "r": "8")", ErrorCode::format, "c.json: r: found a string"},
      {R"(, "r": null)", ErrorCode::format, "c.json: r: found null, expected an integer"},
      {R"(, "lora_alpha": null)", ErrorCode::format, "c.json: lora_alpha: found null, expected a number"},
      {R"(, "bias": "some")", ErrorCode::format, "bias: found 'some'"},
      {R"(, "lora_dropout": 1.0)", ErrorCode::format, "lora_dropout"},
      {R"(, "rank_pattern": {"q": 0})", ErrorCode::format, "rank_pattern: q: found 0"},
      {R"(, "lora_bias": true, "use_dora": true)", ErrorCode::format, "lora_bias"},
  };
  for (const Row& row : rows) expect_error(row.code, row.says, [&] { parse(row.members); });
  expect_error(ErrorCode::format, "peft_type: is missing", [] { parse_lora_config(Json::object(), "c.json"); });
  EXPECT_EQ(parse(R"(, "use_qalora": false, "qalora_group_size": 16, "a_field_of_tomorrow": null)").r, 8);
}

TEST(LoraConfigFile, ComesBackAsItWasWritten) {
  const LoraConfig c = {.r = 4,
                        .lora_alpha = 6.5,
                        .lora_dropout = 0.1,
                        .target_modules = {"q_proj"},
                        .exclude_modules = "x.*",
                        .modules_to_save = {"score"},
                        .rank_pattern = {{"q", 2}},
                        .alpha_pattern = {{"v", 3}},
                        .use_rslora = true,
                        .bias = "all",
                        .init_lora_weights = "gaussian",
                        .layers_to_transform = {1},
                        .task_type = "SEQ_CLS"};
  const Json json = lora_config_json(c);
  const LoraConfig again = parse_lora_config(json, "c");
  EXPECT_EQ(lora_config_json(again).dump(), json.dump());
  EXPECT_EQ(again.alpha_pattern, c.alpha_pattern);
  EXPECT_EQ(again.exclude_modules, c.exclude_modules);
}

TEST(PeftModel, IsSavedAndLoadedAgain) {
  const TempFolder temp;
  const CausalLM model = load(tiny_folder());
  const std::vector<int32_t> ids = {5, 17, 9};
  const std::vector<float> before = model.logits(ids);
  const PeftModel peft = get_peft_model(model, {.r = 4, .target_modules = "all-linear", .init_lora_weights = "true"});
  EXPECT_EQ(model.logits(ids), before);
  EXPECT_GT(peft.parameter_counts().trainable, 0);
  EXPECT_LT(peft.parameter_counts().trainable, peft.parameter_counts().all / 2);
  EXPECT_EQ(peft.config().target_modules.names.size(), 7u);
  for (const TrainedParameter& p : peft.adapter().parameters) {
    Tensor value = p.value;
    for (int64_t i = 0; i < value.count(); ++i) value.f32()[i] += 0.01f * static_cast<float>(i % 7);
  }
  const std::vector<float> changed = model.logits(ids);
  EXPECT_NE(changed, before);
  peft.save_pretrained((temp / "adapter").string());
  EXPECT_EQ(load(tiny_folder(), {.adapters = {(temp / "adapter").string()}}).logits(ids), changed);
  expect_error(ErrorCode::exists, "exists already", [&] { peft.save_pretrained((temp / "adapter").string()); });
}

/// The fields that choose modules, their ranks and alphas; lists of names sorted, since PEFT has sets.
std::string choices_of(const std::filesystem::path& folder) {
  const Json config = Json::parse_file((folder / "adapter_config.json").string());
  std::string text;
  for (const char* key : {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern",
                          "alpha_pattern"}) {
    const Json* value = config.find(key);
    std::vector<std::string> items = {value ? value->dump() : "absent"};
    if (value && value->is_array()) {
      items.clear();
      for (const Json& item : value->as_array(key)) items.push_back(item.dump());
      std::sort(items.begin(), items.end());
    }
    text += key;
    for (const std::string& item : items) text += " " + item;
    text += "\n";
  }
  return text;
}

TEST(PeftModel, WritesWhatChoosesModulesAsPeftDoes) {
  NIBBLE_NEED_SHARED("goldens/peft");
  for (const char* name : {"llama-layers", "llama-patterns"}) {
    const TempFolder temp;
    LoraConfig config = load_lora_config(golden_adapter(name));
    const CausalLM model = load(shared_folder() / "goldens/models/llama");
    const PeftModel peft = get_peft_model(model, config);
    EXPECT_TRUE(peft.adapter().warnings.empty()) << name;
    peft.save_pretrained((temp / "adapter").string());
    EXPECT_EQ(choices_of(temp / "adapter"), choices_of(golden_adapter(name)));
    const SafetensorsFile ours(temp / "adapter/adapter_model.safetensors");
    const SafetensorsFile theirs(golden_adapter(name) + "/adapter_model.safetensors");
    ASSERT_EQ(ours.entries().size(), theirs.entries().size()) << name;
    for (const SafetensorsEntry& entry : theirs.entries()) {
      ASSERT_NE(ours.find(entry.name), nullptr) << entry.name;
      EXPECT_EQ(ours.find(entry.name)->shape, entry.shape) << entry.name;
    }
  }
}

TEST(PeftModel, LayersAndExcludedModulesAreWrittenAndReadAgain) {
  const TempFolder temp;
  const CausalLM model = load(tiny_folder());
  const PeftModel peft = get_peft_model(model, {.r = 4,
                                                .target_modules = "all-linear",
                                                .exclude_modules = R"(.*\.mlp\..*)",
                                                .rank_pattern = {{"q_proj", 2}},
                                                .alpha_pattern = {{"k_proj", 3}},
                                                .layers_to_transform = {1},
                                                .layers_pattern = {"layers"}});
  const std::string folder = (temp / "adapter").string();
  peft.save_pretrained(folder);
  const LoraConfig c = load_lora_config(folder);
  EXPECT_EQ(c.target_modules, ModuleChoice({"k_proj", "o_proj", "q_proj", "v_proj"}));
  EXPECT_EQ(c.exclude_modules, ModuleChoice(R"(.*\.mlp\..*)"));
  EXPECT_EQ(c.layers_to_transform, std::vector<int64_t>{1});
  EXPECT_EQ(c.layers_pattern, std::vector<std::string>{"layers"});
  EXPECT_EQ(c.rank_pattern, (std::vector<std::pair<std::string, int64_t>>{{"q_proj", 2}}));
  EXPECT_EQ(c.alpha_pattern, (std::vector<std::pair<std::string, double>>{{"k_proj", 3}}));
  const SafetensorsFile file(folder + "/adapter_model.safetensors");
  EXPECT_EQ(file.entries().size(), 8u);
  EXPECT_EQ(file.find("base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight")->shape, (Shape{2, 128}));
  load(tiny_folder(), {.adapters = {folder}});
}

// Its end alone would mean the module of layer 2 instead.
TEST(PeftModel, AModuleThatIsNamedInFullIsWrittenSo) {
  const std::string q = "model.layers.1.self_attn.q_proj";
  const CausalLM model = load(tiny_folder());
  const PeftModel peft = get_peft_model(model, {.target_modules = {q}, .layers_to_transform = {2}});
  EXPECT_EQ(peft.config().target_modules, ModuleChoice({q}));
}

TEST(PeftModel, NamesThatMeanNothingAreWarnedOf) {
  const CausalLM model = load(tiny_folder());
  const PeftModel peft = get_peft_model(model, {.target_modules = {"q_proj", "no"},
                                                .exclude_modules = {"nope", "up_proj"},
                                                .modules_to_save = {"nor", "model.norm"},
                                                .rank_pattern = {{"q_proj", 2}, {"x.*", 2}},
                                                .alpha_pattern = {{"y.*", 2}},
                                                .layers_to_transform = {0, 9}});
  EXPECT_EQ(peft.adapter().warnings,
            (std::vector<std::string>{
                "target_modules: no module is called no", "exclude_modules: no module is called nope",
                "rank_pattern: no module is called x.*", "alpha_pattern: no module is called y.*",
                "layers_to_transform: no module is in layer 9", "modules_to_save: no module is called nor"}));
  expect_error(ErrorCode::invalid_argument, "layers_pattern: needs layers_to_transform",
               [&] { get_peft_model(model, {.target_modules = {"q_proj"}, .layers_pattern = {"layers"}}); });
}

TEST(PeftModel, TheQuantizedHeadOfAClassifierSaysWhatToDo) {
  NIBBLE_NEED_SHARED("goldens/bnb/bert-nf4");
  const auto model =
      AutoModelForSequenceClassification::from_pretrained((shared_folder() / "goldens/bnb/bert-nf4").string());
  for (const char* says : {"classifier.weight: is stored as nf4", "the head of a classifier has to be trained as it is",
                           "--skip classifier", "llm_int8_skip_modules"}) {
    expect_error(ErrorCode::unsupported, says, [&] { get_peft_model(model, {.target_modules = "all-linear"}); });
  }
}

TEST(PeftModel, ModulesThatMeanNothingAreRefused) {
  const CausalLM model = load(tiny_folder());
  expect_error(ErrorCode::invalid_argument, "no Linear layer of",
               [&] { get_peft_model(model, {.target_modules = {"query"}}); });
  expect_error(ErrorCode::unsupported, "embed_tokens: is an embedding, for which there is no use_dora",
               [&] { get_peft_model(model, {.target_modules = {"embed_tokens"}, .use_dora = true}); });
  expect_error(ErrorCode::format, "r: found 0", [&] { get_peft_model(model, {.r = 0}); });
  EXPECT_EQ(get_peft_model(model, {.target_modules = {"q_proj", "nothing"}}).adapter().warnings,
            (std::vector<std::string>{"target_modules: no module is called nothing"}));
}

TEST(Adapter, FoldersWithoutAnAdapterAreRefused) {
  const TempFolder temp;
  temp.write("empty/x", "");
  temp.write("pickle/adapter_config.json", R"({"peft_type": "LORA", "target_modules": ["q_proj"]})");
  temp.write("pickle/adapter_model.bin", "x");
  temp.write("other/adapter_config.json", R"({"peft_type": "IA3"})");
  const std::vector<std::pair<std::string, std::string>> changed_their_base = {
      {"pissa", "path_initial_model_for_weight_conversion"},
      {"pissa_niter_4", "path_initial_model_for_weight_conversion"},
      {"olora", "path_initial_model_for_weight_conversion"},
      {"corda", "path_initial_model_for_weight_conversion"},
      {"lora_ga", "path_initial_model_for_weight_conversion"},
      {"loftq", "replace_lora_weights_loftq"}};
  for (const auto& [init, advice] : changed_their_base) {
    temp.write(init + "/adapter_config.json", R"({"peft_type": "LORA", "init_lora_weights": ")" + init + "\"}");
  }
  const auto load_with = [&](const std::string& name) { load(tiny_folder(), {.adapters = {(temp / name).string()}}); };
  expect_error(ErrorCode::io, "has no adapter_config.json", [&] { load_with("empty"); });
  expect_error(ErrorCode::unsupported, "is a pickle file", [&] { load_with("pickle"); });
  expect_error(ErrorCode::unsupported, "peft_type: found 'IA3'", [&] { load_with("other"); });
  for (const auto& [init, advice] : changed_their_base) {
    expect_error(ErrorCode::unsupported, "which has changed the base model", [&] { load_with(init); });
    expect_error(ErrorCode::unsupported, advice.c_str(), [&] { load_with(init); });
  }
}

}  // namespace
}  // namespace nibble
