// Every family in every format: a small random model is written as a folder, quantized to another folder, and read
// again. No reference results are needed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "io/gguf_names.h"
#include "io/safetensors.h"
#include "models/harness.h"
#include "nibble/model.h"
#include "nibble/quantize.h"
#include "support/families.h"

namespace nibble {
namespace {

using namespace nibble::test;

/// Multiples of 1/128 below 2 in size: exact in fp32, fp16 and bf16 alike.
Tensor random_tensor(const Shape& shape, std::mt19937& random) {
  Tensor t(DType::f32, shape);
  std::uniform_int_distribution<int> steps(-40, 40);
  for (int64_t i = 0; i < t.count(); ++i) t.f32()[i] = static_cast<float>(steps(random)) / 128.0f;
  return t;
}

Shape stored_shape(const Parameter& p) {
  return p.orientation == Orientation::in_out ? Shape{p.shape[1], p.shape[0]} : p.shape;
}

/// The folder of a model with random weights.
std::string make_model(const TempFolder& folder, const Family& c) {
  const std::string path = (folder / "original").string();
  folder.write("original/config.json", config_text(c));
  const std::vector<Parameter> parameters = list_parameters(Json::parse(config_text(c), c.model_type), c.model_type);
  std::vector<TensorDeclaration> declared;
  for (const Parameter& p : parameters) declared.push_back({p.name, DType::f32, stored_shape(p)});
  SafetensorsWriter writer(path + "/model.safetensors", declared);
  std::mt19937 random(20);
  for (const Parameter& p : parameters) writer.write(p.name, random_tensor(stored_shape(p), random));
  writer.finish();
  return path;
}

const std::vector<int32_t> kIds = {5, 17, 9, 3, 24, 31, 12, 20, 33, 7, 11, 2};

std::vector<float> logits_of(const Model& model) {
  const Tensor hidden = model.hidden({.ids = kIds}, nullptr, nullptr);
  return floats(model.logits(model.info().is_encoder ? hidden.slice_rows(0, 1) : hidden));
}

/// The same model in a format, as a folder beside it.
std::string quantize_to(const TempFolder& folder, const std::string& model, const std::string& format) {
  const std::string out = (folder / format).string();
  quantize(model, out, {.format = format});
  return out;
}

/// A family in a format.
class EveryCell : public ::testing::TestWithParam<std::tuple<Family, std::string>> {};

TEST_P(EveryCell, QuantizedFolderEqualsQuantizingWhileLoading) {
  const auto& [family, format] = GetParam();
  const TempFolder folder;
  const std::string model = make_model(folder, family);
  const std::vector<float> original = logits_of(*load(model));
  for (const float x : original) ASSERT_TRUE(std::isfinite(x));
  LoadOptions options;
  options.format = &find_format(format);
  const std::vector<float> expected = options.format->dense ? original : logits_of(*load(model, options));
  EXPECT_EQ(logits_of(*load(quantize_to(folder, model, format))), expected);
  EXPECT_EQ(expected == original, options.format->dense.has_value());
}

class EveryFamily : public ::testing::TestWithParam<Family> {
 protected:
  TempFolder folder_;
  std::string model_ = make_model(folder_, GetParam());
};

// The folder that a quantized one stands for has the tensors of the original, each in its own orientation.
TEST_P(EveryFamily, DequantizedFoldersPredictTheSame) {
  const std::string quantized = quantize_to(folder_, model_, "nf4"), dense = (folder_ / "dense").string();
  dequantize(quantized, dense);
  const SafetensorsFile before(std::filesystem::path(model_) / "model.safetensors");
  const SafetensorsFile after(std::filesystem::path(dense) / "model.safetensors");
  ASSERT_EQ(after.entries().size(), before.entries().size());
  for (const SafetensorsEntry& entry : before.entries()) {
    ASSERT_NE(after.find(entry.name), nullptr) << entry.name;
    EXPECT_EQ(after.find(entry.name)->shape, entry.shape) << entry.name;
  }
  // Decoded weights in both, summed in another order.
  EXPECT_LE(difference(logits_of(*load(dense)), logits_of(*load(quantized))).relative(), 1e-5);
}

class EveryDecoder : public EveryFamily {};

/// Logits of all ids, so many at a time behind the first `prompt`.
std::vector<float> in_steps(const Model& model, DType kv_dtype, size_t prompt, size_t step) {
  KvCache cache = model.new_cache(static_cast<int64_t>(kIds.size()), kv_dtype);
  std::vector<float> logits;
  for (size_t at = 0; at < kIds.size();) {
    const size_t count = at < prompt ? prompt : std::min(step, kIds.size() - at);
    const std::vector<float> rows = floats(model.forward({.ids = std::span(kIds).subspan(at, count)}, &cache, nullptr));
    logits.insert(logits.end(), rows.begin(), rows.end());
    at += count;
  }
  return logits;
}

/// A cache and what its rounding may do to logits: half a unit in the last of 11 or 8 bits, half of one of 127 codes;
/// a few times that come out of 2 layers.
struct KvRow {
  DType dtype;
  double tolerance;
};
constexpr KvRow kKvRows[] = {
    {DType::f32, 2e-5}, {DType::f16, 8 * 0x1p-11}, {DType::bf16, 8 * 0x1p-8}, {DType::i8, 8 * 0.5 / 127}};

TEST_P(EveryDecoder, DecodingStepByStepEqualsPrefill) {
  const auto model = load(model_);
  const std::vector<float> exact = logits_of(*model);
  for (const auto& [dtype, tolerance] : kKvRows) {
    const std::vector<float> steps = in_steps(*model, dtype, 1, 1);
    EXPECT_LE(difference(steps, exact).relative(), tolerance) << dtype_name(dtype);
    EXPECT_EQ(steps == in_steps(*model, DType::f32, 1, 1), dtype == DType::f32) << dtype_name(dtype);
    // Prefill reads the same cache.
    EXPECT_LE(difference(steps, in_steps(*model, dtype, kIds.size(), 1)).relative(), 2e-5) << dtype_name(dtype);
  }
}

// Behind a prompt several tokens at once have the bits that they have one by one, so that guessed tokens change
// nothing.
TEST_P(EveryDecoder, TokensTriedTogetherHaveTheBitsOfOneByOne) {
  for (const std::string& format : writable_format_names()) {
    for (const Activations activations : {Activations::f32, Activations::i16, Activations::i8}) {
      if (activations != Activations::f32 && format != "nf4") continue;
      LoadOptions options;
      options.format = &find_format(format);
      options.quantize_head = true;
      options.compute.activations = activations;
      const auto model = load(model_, options);
      const std::vector<float> alone = in_steps(*model, DType::f32, 3, 1);
      EXPECT_EQ(in_steps(*model, DType::f32, 3, 2), alone) << format;
      EXPECT_EQ(in_steps(*model, DType::i8, 3, 9), in_steps(*model, DType::i8, 3, 1)) << format;
      EXPECT_EQ(in_steps(*model, DType::f32, 3, 9), alone) << format;
    }
  }
  for (const char* head : {"nf4", "int8-dynamic"}) {
    LoadOptions options;
    options.head_format = &find_format(head);
    options.compute.activations = Activations::i16;
    const auto model = load(model_, options);
    EXPECT_EQ(in_steps(*model, DType::f32, 3, 9), in_steps(*model, DType::f32, 3, 1)) << head;
  }
}

TEST_P(EveryDecoder, GuessedTokensGiveTheSameText) {
  const CausalLM model = AutoModelForCausalLM::from_pretrained(model_, {.format = "nf4"});
  const std::vector<int32_t> prompt = {5, 17, 9, 3, 5, 17, 9, 3, 5, 17};
  int64_t drafted = 0;
  for (const float temperature : {0.0f, 0.3f, 1.0f}) {
    for (const int64_t context : {0, 21}) {
      const GenerateOptions options = {
          .max_tokens = 22, .context = context, .temperature = temperature, .ignore_eos = true};
      GenerateOptions guessing = options;
      guessing.prompt_lookup = 4;
      const Generation g = model.generate(prompt, guessing);
      EXPECT_EQ(g.ids, model.generate(prompt, options).ids) << temperature;
      drafted += g.drafted;
    }
  }
  EXPECT_GT(drafted, 0);
}

// A refused guess leaves the cache, and what follows is as if it had never been there.
TEST_P(EveryDecoder, ATruncatedCacheForgetsWhatWasTried) {
  const auto model = load(model_);
  const std::vector<float> expected = in_steps(*model, DType::f32, 6, 1);
  KvCache cache = model->new_cache(static_cast<int64_t>(kIds.size()));
  model->forward({.ids = std::span(kIds).first(6)}, &cache, nullptr);
  const std::vector<int32_t> wrong = {kIds[6], 1, 2, 3, 4};
  model->forward({.ids = wrong}, &cache, nullptr);
  cache.truncate(7);
  const std::vector<float> rest = floats(model->forward({.ids = std::span(kIds).subspan(7)}, &cache, nullptr));
  EXPECT_EQ(rest, std::vector<float>(expected.end() - static_cast<std::ptrdiff_t>(rest.size()), expected.end()));
}

TEST_P(EveryDecoder, EveryTensorHasAGgufName) {
  const Family& c = GetParam();
  if (c.gguf == "-") return;
  const GgufArchitecture& architecture = find_gguf_architecture(c.gguf.empty() ? c.model_type : c.gguf, "test");
  EXPECT_EQ(architecture.model_type, c.model_type == "mistral" ? "llama" : c.model_type);
  for (const Parameter& p : list_parameters(Json::parse(config_text(c), c.model_type), c.model_type)) {
    const std::optional<std::string> gguf = gguf_tensor_name(architecture, p.name);
    ASSERT_TRUE(gguf.has_value()) << p.name;
    EXPECT_EQ(hf_tensor_name(architecture, *gguf), p.name);
  }
}

std::string name_of(const ::testing::TestParamInfo<Family>& info) { return info.param.model_type; }

std::string cell_name(const ::testing::TestParamInfo<EveryCell::ParamType>& info) {
  std::string format = std::get<std::string>(info.param);
  std::replace(format.begin(), format.end(), '-', '_');
  return std::get<Family>(info.param).model_type + "__" + format;
}

INSTANTIATE_TEST_SUITE_P(Decoders, EveryCell,
                         ::testing::Combine(::testing::ValuesIn(decoders()),
                                            ::testing::ValuesIn(writable_format_names())),
                         cell_name);
INSTANTIATE_TEST_SUITE_P(Encoders, EveryCell,
                         ::testing::Combine(::testing::ValuesIn(encoders()),
                                            ::testing::ValuesIn(writable_format_names())),
                         cell_name);
INSTANTIATE_TEST_SUITE_P(Decoders, EveryFamily, ::testing::ValuesIn(decoders()), name_of);
INSTANTIATE_TEST_SUITE_P(Encoders, EveryFamily, ::testing::ValuesIn(encoders()), name_of);
INSTANTIATE_TEST_SUITE_P(Decoders, EveryDecoder, ::testing::ValuesIn(decoders()), name_of);

TEST(FamilyTable, HasARowInThisTestForEveryFamily) {
  std::set<std::string_view> here;
  for (const auto* rows : {&decoders(), &encoders()}) {
    for (const Family& c : *rows) here.insert(c.model_type);
  }
  for (const Architecture& row : all_architectures()) EXPECT_TRUE(here.contains(row.model_type)) << row.model_type;
}

// Files from before transformers 5 spell the two ropes and the layers with a window otherwise.
TEST(Gemma3, ReadsBothSpellingsOfItsRopes) {
  const auto logits = [](const std::string& more) {
    const TempFolder folder;
    return logits_of(*load(make_model(folder, {.model_type = "gemma3_text", .more = more})));
  };
  const std::string old = R"("sliding_window": 4, "sliding_window_pattern": 2,
    "rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_local_base_freq": )";
  const std::vector<float> modern = logits(R"("sliding_window": 4, "layer_types": ["sliding_attention",
    "full_attention"], "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
    "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}})");
  EXPECT_EQ(logits(old + "50.0"), modern);
  EXPECT_NE(logits(old + "100.0"), modern);
}

// Members of config.json that transformers reads in a way of its own, and others that say the same plainly.
TEST(Configurations, MeanWhatTransformersTakesThemFor) {
  const struct {
    const char *family, *found, *plain;
  } rows[] = {
      {"qwen2", R"("sliding_window": 4)", R"("sliding_window": null)"},
      {"qwen3", R"("sliding_window": 4)", R"("sliding_window": null)"},
      {"smollm3", R"("no_rope_layers": [1, 0], "sliding_window": 4, "use_sliding_window": true)",
       R"("no_rope_layers": [1, 0], "sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"])"},
      {"gemma3_text", R"("attn_logit_softcapping": 0.5)", R"("attn_logit_softcapping": null)"},
      {"gemma3_text", R"("rope_parameters": {"sliding_attention": {}, "full_attention": {}})",
       R"("rope_parameters": {"sliding_attention": {"rope_theta": 1e4}, "full_attention": {"rope_theta": 1e6}})"},
      {"llama", R"("rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 7.0})",
       R"("rope_scaling": {"type": "linear", "factor": 2.0})"},
      {"llama", R"("rope_scaling": {}, "rope_parameters": {"rope_theta": 7.0})",
       R"("rope_parameters": {"rope_theta": 7.0})"},
      {"phi3", R"("rope_scaling": {"type": "yarn", "short_factor": [1, 1, 1, 1, 1, 1, 1, 2], "long_factor":
       [1, 1, 1, 1, 1, 1, 1, 3]}, "original_max_position_embeddings": 32)",
       R"("rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1, 1, 1, 1, 2], "long_factor":
       [1, 1, 1, 1, 1, 1, 1, 3]}, "original_max_position_embeddings": 32)"},
  };
  for (const auto& row : rows) {
    const auto logits = [&](const char* more) {
      const TempFolder folder;
      return logits_of(*load(make_model(folder, {.model_type = row.family, .more = more})));
    };
    EXPECT_EQ(logits(row.found), logits(row.plain)) << row.family << ": " << row.found;
  }
}

// What is stored counts; the same matrix twice is one.
TEST(TiedHead, GivesWayToAHeadOfItsOwn) {
  const TempFolder folder;
  const std::string untied = make_model(folder, {.model_type = "llama", .more = R"("tie_word_embeddings": false)"});
  const std::string tied = (folder / "tied").string();
  folder.write("tied/config.json", config_text({.model_type = "llama", .more = R"("tie_word_embeddings": true)"}));
  const auto copy_weights = [&](const char* head) {
    const SafetensorsFile in(std::filesystem::path(untied) / "model.safetensors");
    std::vector<TensorDeclaration> declared;
    for (const SafetensorsEntry& e : in.entries()) declared.push_back({e.name, DType::f32, e.shape});
    SafetensorsWriter out(tied + "/model.safetensors", declared);
    for (const SafetensorsEntry& e : in.entries())
      out.write(e.name, in.load(e.name == "lm_head.weight" ? head : e.name));
    out.finish();
  };
  const Json config = Json::parse_file(tied + "/config.json");
  copy_weights("lm_head.weight");
  EXPECT_EQ(logits_of(*load(tied)), logits_of(*load(untied)));
  EXPECT_EQ(outline_model(config, tied, open_model(tied).weights.get()).tied_head, "");
  copy_weights("model.embed_tokens.weight");
  EXPECT_EQ(outline_model(config, tied, open_model(tied).weights.get()).tied_head, "lm_head");
}

TEST(Gemma3, RefusesWhatItDoesNotDo) {
  const auto refuse = [](const std::string& text, ErrorCode code, const std::string& fragment) {
    const Json config = Json::parse(text, "config.json");
    expect_error(code, fragment, [&] { list_parameters(config, "config.json"); });
  };
  refuse(R"({"model_type": "gemma3_text", "use_bidirectional_attention": true})", ErrorCode::unsupported,
         "use_bidirectional_attention: is true");
  refuse(R"({"model_type": "gemma3", "architectures": ["Gemma3ForSequenceClassification"]})", ErrorCode::unsupported,
         "gemma3 is supported for text, not for classification");
  refuse(R"({"model_type": "gemma3"})", ErrorCode::format, "text_config: is missing");
  refuse(R"({"model_type": "gemma3", "text_config": {"model_type": "bert"}})", ErrorCode::format,
         "found 'bert', expected gemma2 or gemma3_text");
  refuse(R"({"model_type": "gemma3", "text_config": {"rope_parameters": {"sliding_attention": {"type": "spiral"}}}})",
         ErrorCode::unsupported, "rope_parameters.sliding_attention: rope type 'spiral'");
}

const Family& gpt2() { return decoders().back(); }

// Files of a GPT-2 without its head, as OpenAI's own, have no prefix; the quantized folder keeps their names.
TEST(Gpt2, WorksWithoutThePrefix) {
  const TempFolder folder;
  const std::string with = make_model(folder, gpt2()), without = (folder / "without").string();
  folder.write("without/config.json", config_text(gpt2()));
  const SafetensorsFile in(std::filesystem::path(with) / "model.safetensors");
  const auto bare = [](const std::string& name) { return name.substr(std::string("transformer.").size()); };
  std::vector<TensorDeclaration> declared;
  for (const SafetensorsEntry& e : in.entries()) declared.push_back({bare(e.name), DType::f32, e.shape});
  SafetensorsWriter out(without + "/model.safetensors", declared);
  for (const SafetensorsEntry& e : in.entries()) out.write(bare(e.name), in.load(e.name));
  out.finish();
  EXPECT_EQ(logits_of(*load(without)), logits_of(*load(with)));
  quantize(without, (folder / "nf4").string(), {.format = "nf4"});
  LoadOptions options;
  options.format = &find_format("nf4");
  EXPECT_EQ(logits_of(*load((folder / "nf4").string())), logits_of(*load(with, options)));
}

TEST(Gpt2, TheModelsPositionsAreAllThereAre) {
  const TempFolder folder;
  const auto model = load(make_model(folder, gpt2()));
  const std::vector<int32_t> ids(33, 1);
  expect_error(ErrorCode::invalid_argument, "context: 33 positions, the model has 32",
               [&] { model->forward({.ids = ids}, nullptr, nullptr); });
}

}  // namespace
}  // namespace nibble
