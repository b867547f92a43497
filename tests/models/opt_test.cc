// What OPT's configurations and files may say, beside the models whose results are known.
#include <gtest/gtest.h>

#include <set>

#include "io/safetensors.h"
#include "models/harness.h"

namespace nibble {
namespace {

using namespace nibble::test;
namespace fs = std::filesystem;

std::string config_with(const std::string& more) {
  return R"({"model_type": "opt", "vocab_size": 40, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 16)" +
         (more.empty() ? "" : ", " + more) + "}";
}

std::set<std::string> names_of(const std::string& more) {
  std::set<std::string> names;
  for (const Parameter& p : list_parameters(Json::parse(config_with(more), "config.json"), "config.json")) {
    names.insert(p.name);
  }
  return names;
}

const std::string kAt = "model.decoder.";

TEST(Opt, HasTheParametersThatItsConfigurationAsksFor) {
  const std::set<std::string> usual = names_of("");
  EXPECT_EQ(usual.size(), 20u);
  EXPECT_TRUE(usual.contains(kAt + "layers.0.fc1.bias"));
  EXPECT_TRUE(usual.contains(kAt + "final_layer_norm.weight"));
  EXPECT_FALSE(usual.contains("lm_head.weight"));

  EXPECT_TRUE(names_of(R"("tie_word_embeddings": false)").contains("lm_head.weight"));
  EXPECT_FALSE(names_of(R"("_remove_final_layer_norm": true)").contains(kAt + "final_layer_norm.weight"));
  EXPECT_FALSE(names_of(R"("do_layer_norm_before": false)").contains(kAt + "final_layer_norm.weight"));
  EXPECT_EQ(names_of(R"("word_embed_proj_dim": null)"), usual);
  EXPECT_EQ(names_of(R"("word_embed_proj_dim": 32)"), usual);
  const std::set<std::string> projected = names_of(R"("word_embed_proj_dim": 16)");
  EXPECT_EQ(projected.size(), 22u);
  EXPECT_TRUE(projected.contains(kAt + "project_in.weight"));

  // As Galactica: neither biases nor trained norms.
  const std::set<std::string> bare = names_of(R"("enable_bias": false, "layer_norm_elementwise_affine": false)");
  EXPECT_EQ(bare.size(), 8u);
  for (const std::string& name : bare)
    EXPECT_TRUE(name.ends_with(".weight") && name.find("norm") == std::string::npos) << name;
}

TEST(Opt, NamesTheKeyThatIsWrong) {
  const auto refuse = [](const std::string& more, ErrorCode code, const std::string& fragment) {
    expect_error(code, fragment, [&] { names_of(more); });
  };
  refuse(R"("activation_function": "mish")", ErrorCode::unsupported, "activation_function: activation 'mish'");
  refuse(R"("word_embed_proj_dim": 0)", ErrorCode::format, "word_embed_proj_dim: found 0");
  const auto heads = [] {
    list_parameters(Json::parse(R"({"model_type": "opt", "num_attention_heads": 7})", "config.json"), "config.json");
  };
  expect_error(ErrorCode::format, "num_attention_heads: 7 does not divide hidden_size 768", heads);
}

const std::vector<int32_t> kIds = {2, 17, 99, 3, 64, 101, 12, 80, 33, 7, 119, 55};

std::vector<float> logits_of(const std::string& folder) {
  return floats(load(folder)->forward({.ids = kIds}, nullptr, nullptr));
}

/// The bundled model as another folder: its tensors under the names and its configuration as the text that `name` and
/// `text` make of theirs.
template <class Name, class Text>
std::string rewritten(const TempFolder& temp, const std::string& model, const Name& name, const Text& text) {
  const fs::path from = golden_model(model);
  temp.write(model + "/config.json", text(read_file(from / "config.json")));
  const SafetensorsFile in(from / "model.safetensors");
  std::vector<TensorDeclaration> declared;
  for (const SafetensorsEntry& e : in.entries()) {
    if (!name(e.name).empty()) declared.push_back({name(e.name), in.load(e.name).dtype, e.shape});
  }
  SafetensorsWriter out(temp / (model + "/model.safetensors"), declared);
  for (const SafetensorsEntry& e : in.entries()) {
    if (!name(e.name).empty()) out.write(name(e.name), in.load(e.name));
  }
  out.finish();
  return (temp / model).string();
}

// As files of the model without its head have them.
TEST(Opt, WorksWithoutThePrefix) {
  for (const char* model : {"opt", "opt-projected"}) {
    const TempFolder temp;
    const std::string folder = rewritten(
        temp, model, [](const std::string& name) { return name.substr(std::string("model.").size()); },
        [](const std::string& config) { return config; });
    EXPECT_EQ(logits_of(folder), logits_of(golden_model(model).string()));
  }
}

TEST(Opt, TheModelsPositionsAreAllThereAre) {
  const auto model = load(golden_model("opt").string());
  EXPECT_EQ(model->forward({.ids = std::vector<int32_t>(64, 1)}, nullptr, nullptr).rows(), 64);
  expect_error(ErrorCode::invalid_argument, "context: 65 positions, the model has 64",
               [&] { model->forward({.ids = std::vector<int32_t>(65, 1)}, nullptr, nullptr); });
}

// Norms without parameters are norms all the same: those of the file with ones and zeros.
TEST(Opt, NormsNeedNoParameters) {
  const TempFolder temp;
  const auto is_norm = [](const std::string& name) { return name.find("layer_norm") != std::string::npos; };
  const std::string bare = rewritten(
      temp, "opt", [&](const std::string& name) { return is_norm(name) ? std::string() : name; },
      [](std::string config) {
        const std::string key = R"("layer_norm_elementwise_affine": )";
        return config.replace(config.find(key + "true"), key.size() + 4, key + "false");
      });
  const auto plain = load(golden_model("opt").string());
  struct Plain final : ParameterVisitor {
    void linear(Linear&) override {}
    void embedding(Embedding&) override {}
    void vector(const std::string& name, Tensor& values) override {
      values = Tensor(DType::f32, values.shape);
      if (name.ends_with("weight")) std::fill_n(values.f32(), values.count(), 1.0f);
    }
  } to_plain;
  plain->visit(to_plain);
  EXPECT_EQ(logits_of(bare), floats(plain->forward({.ids = kIds}, nullptr, nullptr)));
}

}  // namespace
}  // namespace nibble
