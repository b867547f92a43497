#include "models/loader.h"

#include <gtest/gtest.h>

#include "models/registry.h"
#include "models/skip.h"
#include "support/files.h"

namespace nibble {
namespace {

/// Weights made up on the spot.
class FakeSource final : public WeightSource {
 public:
  void add(const std::string& name, Shape shape) {
    const auto bytes = static_cast<uint64_t>(element_count(shape)) * 4;
    tensors_.push_back({name, std::move(shape), "fp32", bytes});
  }
  const std::vector<SourceTensor>& tensors() const override { return tensors_; }
  const SourceTensor* find(std::string_view name) const override {
    for (const SourceTensor& t : tensors_) {
      if (t.name == name) return &t;
    }
    return nullptr;
  }
  Weight load(std::string_view name, Residency) const override { return Tensor(DType::f32, find(name)->shape); }
  std::string origin(std::string_view) const override { return "fake"; }

 private:
  std::vector<SourceTensor> tensors_;
};

Json tiny_config(const std::string& type = "llama") {
  return Json::parse(R"({"model_type": ")" + type + R"(", "vocab_size": 8, "hidden_size": 4, "intermediate_size": 6,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2})",
                     "test");
}

TEST(Loader, ListsWhatDoesNotFitAllAtOnce) {
  FakeSource source;
  source.add("model.embed_tokens.weight", {8, 4});
  source.add("model.norm.weight", {5});
  Loader loader(source, {});
  test::expect_error(ErrorCode::format, "model.layers.0.input_layernorm.weight is missing",
                     [&] { build_model(tiny_config(), "config.json", loader); });
  Loader again(source, {});
  test::expect_error(ErrorCode::format, "and 10 more", [&] { build_model(tiny_config(), "config.json", again); });
}

TEST(Loader, DescribesAModelWithoutWeights) {
  const std::vector<Parameter> all = list_parameters(tiny_config(), "config.json");
  EXPECT_EQ(all.size(), 1u + 2 * 9 + 1 + 1);
  int64_t linears = 0;
  for (const Parameter& p : all) linears += p.role == Role::linear ? 1 : 0;
  EXPECT_EQ(linears, 14);
  EXPECT_EQ(all.back().name, "lm_head.weight");
  EXPECT_EQ(all.back().role, Role::head);
}

TEST(Loader, LeavesLayersBeyondTheMemoryLimitInTheirFile) {
  FakeSource source;
  for (const Parameter& p : list_parameters(tiny_config(), "config.json")) source.add(p.name, p.shape);
  LoadOptions options;
  options.memory_limit = 1000;
  Loader loader(source, options);
  build_model(tiny_config(), "config.json", loader);
  const std::vector<Placement>& placed = loader.placements();
  ASSERT_EQ(placed.size(), 5u);  // embedding, two layers, norm, head
  EXPECT_EQ(placed[0].residency, Residency::memory);
  EXPECT_EQ(placed[1].layer, "model.layers.0");
  EXPECT_EQ(placed[1].residency, Residency::memory);
  EXPECT_EQ(placed[2].layer, "model.layers.1");
  EXPECT_EQ(placed[2].residency, Residency::mapped);
  EXPECT_EQ(placed[3].residency, Residency::memory);  // small, fits beside the layer that did
  uint64_t in_memory = 0;
  for (const Placement& p : placed) in_memory += p.residency == Residency::memory ? p.bytes : 0;
  EXPECT_LE(in_memory, 1000u);
}

TEST(SkipNames, AreSuffixesAndDottedPrefixes) {
  EXPECT_TRUE(is_skipped("model.layers.1.mlp.up_proj", {"up_proj"}));
  EXPECT_TRUE(is_skipped("model.layers.1.mlp.up_proj", {"model.layers.1"}));
  EXPECT_FALSE(is_skipped("model.layers.10.mlp.up_proj", {"model.layers.1"}));
  EXPECT_FALSE(is_skipped("model.layers.1.mlp.up_proj", {"mlp"}));
  EXPECT_FALSE(is_skipped("model.layers.1.mlp.up_proj", {""}));
  EXPECT_TRUE(is_skipped("lm_head", {"lm_head"}));
}

TEST(SkipNames, ThatMeanNoLinearLayerAreRefused) {
  const std::vector<Parameter> all = list_parameters(tiny_config(), "config.json");
  check_skip_names({"q_proj", "model.layers.1", "lm_head"}, all);
  test::expect_error(ErrorCode::invalid_argument, "skip: 'down_prj' matches no layer, the nearest is 'down_proj'", [&] {
    check_skip_names({"q_proj", "down_prj"}, all);
  });
  test::expect_error(ErrorCode::invalid_argument, "'embed_tokens' matches no layer",
                     [&] { check_skip_names({"embed_tokens"}, all); });
}

}  // namespace
}  // namespace nibble
