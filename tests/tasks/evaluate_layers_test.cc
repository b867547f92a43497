// Errors by layer against what must hold: exact layers have none, the weights' are those of quantize, and blocks alone
// add up to about the whole.
#include "nibble/evaluate_layers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "nibble/evaluate.h"
#include "nibble/quantize.h"
#include "support/tiny_encoder.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

const std::vector<int32_t>& sample() {
  static const std::vector<int32_t> ids = evaluation_chunks(tiny(), heldout(), {.context = 256})[0];
  return ids;
}

LayersReport against_original(const LoadModelOptions& options) {
  return evaluate_layers(load(tiny_folder(), options), tiny(), sample());
}

const LayerError& layer(const LayersReport& report, const std::string& name) {
  return *std::find_if(report.layers.begin(), report.layers.end(), [&](const LayerError& l) { return l.name == name; });
}

TEST(EvaluateLayers, ListsLayersAndBlocksInTheOrderOfTheModel) {
  const LayersReport r = against_original({.format = "nf4"});
  EXPECT_EQ(r.tokens, 256);
  ASSERT_EQ(r.layers.size(), 3 * 7 + 1u);
  EXPECT_EQ(r.layers[0].name, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(r.layers.back().name, "lm_head");
  ASSERT_EQ(r.blocks.size(), 4u);
  EXPECT_EQ(r.blocks[2].name, "model.layers.2");
  EXPECT_EQ(r.blocks[3].name, "lm_head");
}

TEST(EvaluateLayers, WeightErrorsAreThoseOfQuantize) {
  const TempFolder folder;
  const QuantizeReport quantized = quantize((tiny_folder()).string(), (folder / "q").string(), {.format = "nf4"});
  const LayersReport r = evaluate_layers(load(folder / "q"), tiny(), sample(), {.tokens = 8});
  int compared = 0;
  for (const auto& tensor : quantized.tensors) {
    if (tensor.format != "nf4") continue;
    const LayerError& found = layer(r, tensor.name.substr(0, tensor.name.size() - std::string(".weight").size()));
    EXPECT_EQ(found.weight_error, tensor.relative_error) << tensor.name;
    EXPECT_EQ(found.format, "nf4");
    EXPECT_NEAR(found.output_sqnr_db, -20 * std::log10(found.output_error), 1e-9);
    ++compared;
  }
  EXPECT_EQ(compared, 21);
}

TEST(EvaluateLayers, ExactLayersHaveNoError) {
  const LayersReport r = against_original({.format = "nf4", .skip = {"model.layers.1"}});
  EXPECT_EQ(r.blocks[1].kl, 0);
  EXPECT_GT(r.blocks[0].kl, 0);
  EXPECT_GT(r.blocks[1].hidden_error, 0);  // it inherits what the first lost
  const LayerError& kept = layer(r, "model.layers.1.mlp.up_proj");
  EXPECT_EQ(kept.weight_error, 0);
  EXPECT_EQ(kept.output_error, 0);
  EXPECT_TRUE(std::isinf(kept.weight_sqnr_db));
  EXPECT_EQ(kept.format, "bf16");
  EXPECT_GT(layer(r, "model.layers.2.mlp.up_proj").output_error, 0.01);
}

// What one block does alone is exactly what evaluate() finds when only that block is quantized.
TEST(EvaluateLayers, TheKlOfABlockIsThatOfAModelWithOnlyThatBlock) {
  const LayersReport r = against_original({.format = "nf4"});
  for (size_t i = 0; i < 3; ++i) {
    LoadModelOptions options = {.format = "nf4"};
    for (size_t other = 0; other < 3; ++other) {
      if (other != i) options.skip.push_back("model.layers." + std::to_string(other));
    }
    std::vector<int32_t> ids = sample();
    ids.push_back(0);  // so that the last of the 256 positions is scored too
    const EvaluateReport alone = evaluate(load(tiny_folder(), options), &tiny(), {ids});
    EXPECT_NEAR(r.blocks[i].kl, alone.kl_mean, 1e-9) << i;
  }
  std::vector<int32_t> ids = sample();
  ids.push_back(0);
  const double whole = evaluate(load(tiny_folder(), {.format = "nf4"}), &tiny(), {ids}).kl_mean;
  EXPECT_NEAR((r.blocks[0].kl + r.blocks[1].kl + r.blocks[2].kl) / whole, 1, 0.2);
}

TEST(EvaluateLayers, TheHeadCountsWhenItIsQuantized) {
  NIBBLE_NEED_SHARED("goldens/models/llama");
  const auto folder = shared_folder() / "goldens/models/llama";
  const LayersReport r = evaluate_layers(load(folder, {.format = "int4", .block = 32, .quantize_head = true}),
                                         load(folder), {1, 2, 3, 4, 5});
  EXPECT_EQ(r.blocks.back().name, "lm_head");
  EXPECT_GT(r.blocks.back().kl, 0);
  EXPECT_EQ(r.layers.back().format, "int4");
}

TEST(EvaluateLayers, WorksForClassifiers) {
  const TempFolder folder;
  const std::string path = write_encoder(folder, "bert");
  const auto model = AutoModelForSequenceClassification::from_pretrained(path, {.format = "nf4"});
  const auto original = AutoModelForSequenceClassification::from_pretrained(path);
  const std::vector<TextInput> texts = {{.text = "the film is good ."}, {.text = "not so bad"}, {.text = "very bad"}};
  const LayersReport r = evaluate_layers(model, original, texts);
  EXPECT_EQ(r.tokens, 7 + 5 + 4);  // [CLS] and [SEP] included
  ASSERT_EQ(r.blocks.size(), 4u);
  EXPECT_EQ(r.blocks[1].name, "bert.encoder.layer.1");
  EXPECT_GT(r.blocks[1].kl, 0);
  EXPECT_GT(r.blocks[1].hidden_error, 0);
  EXPECT_EQ(r.blocks[3].name, "classifier");
  EXPECT_EQ(r.blocks[3].kl, 0);  // not quantized
  EXPECT_EQ(evaluate_layers(model, original, texts, {.tokens = 8}).tokens, 7);
}

TEST(EvaluateLayers, RefusesModelsThatDoNotMatch) {
  expect_error(ErrorCode::invalid_argument, "no tokens", [] { evaluate_layers(tiny(), tiny(), {}); });
  NIBBLE_NEED_SHARED("goldens/gguf/f32.gguf");
  const CausalLM other = load(shared_folder() / "goldens/gguf/f32.gguf");
  expect_error(ErrorCode::invalid_argument, "vocabulary", [&] { evaluate_layers(tiny(), other, {1, 2, 3}); });
}

}  // namespace
}  // namespace nibble
