// Quantization-aware training through the public headers.
#include "nibble/qat.h"

#include <gtest/gtest.h>

#include <cmath>

#include "nibble/classify.h"
#include "nibble/lora.h"
#include "support/goldens.h"
#include "support/tiny_encoder.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

const std::vector<int32_t> kIds = {5, 17, 99, 3, 64, 101, 12, 80};

struct Row {
  QatConfig config;
  LoadModelOptions load;
};

class QatModelTest : public ::testing::TestWithParam<Row> {};

// Prepared, written and converted it gives the same bits, and the loss falls.
TEST_P(QatModelTest, GivesTheBitsOfWhatItWrites) {
  const auto& [config, options] = GetParam();
  const TempFolder temp;
  const CausalLM model = load(tiny_folder(), options);
  QatModel qat = prepare_qat(model, config);
  EXPECT_EQ(qat.modules().size(), 3u * 7u);
  const double first = qat.train_step({{.ids = kIds}}, 1e-3);
  for (int step = 0; step < 4; ++step)
    qat.train_step({{.ids = kIds}, {.ids = {9, 8, 7}, .labels = {9, -100, 7}}}, 1e-3);
  qat.freeze_ranges();
  EXPECT_LT(qat.train_step({{.ids = kIds}}, 1e-3), 0.9 * first);
  const std::vector<float> prepared = model.logits(kIds);
  const std::string out = (temp / "out").string();
  qat.save_pretrained(out);
  EXPECT_EQ(load(out, options).logits(kIds), prepared);
  expect_error(ErrorCode::exists, "out", [&] { qat.save_pretrained(out); });
  const uint64_t bytes = model.weight_bytes();
  qat.convert();
  EXPECT_EQ(model.logits(kIds), prepared);
  EXPECT_LT(model.weight_bytes(), bytes);
  expect_error(ErrorCode::invalid_argument, "is converted already", [&] { qat.train_step({{.ids = kIds}}, 1e-3); });
  expect_error(ErrorCode::invalid_argument, "is converted already", [&] { qat.convert(); });
}

INSTANTIATE_TEST_SUITE_P(Formats, QatModelTest,
                         ::testing::Values(Row{{.format = "int4"}, {}}, Row{{.format = "int4", .block = 32}, {}},
                                           Row{{.format = "nf4", .double_quant = true}, {.activations = "fp32"}},
                                           Row{{.format = "int8"}, {}}, Row{{.format = "int8-dynamic"}, {}},
                                           Row{{.format = "int8-dynamic", .activations = "observed"},
                                               {.reduce_range = true}}));

TEST(QatModels, AreTrainedAsClassifiers) {
  NIBBLE_NEED_SHARED("goldens/models/bert");
  const TempFolder temp;
  const auto model =
      AutoModelForSequenceClassification::from_pretrained((shared_folder() / "goldens/models/bert").string());
  QatModel qat = prepare_qat(model, {.format = "int4"}, {"output.dense"});
  const std::vector<QatSample> samples = {{.ids = kIds, .labels = {1}},
                                          {.ids = {4, 5}, .labels = {0}, .token_type_ids = {0, 1}}};
  const double first = qat.train_step(samples, 1e-3);
  for (int step = 0; step < 4; ++step) qat.train_step(samples, 1e-3);
  EXPECT_LT(qat.train_step(samples, 1e-3), first);
  qat.save_pretrained((temp / "out").string());
  const auto written = AutoModelForSequenceClassification::from_pretrained((temp / "out").string());
  const std::vector<EncodedText> texts = {{.ids = kIds}};
  EXPECT_EQ(written.classify(texts)[0].logits, model.classify(texts)[0].logits);
  expect_error(ErrorCode::invalid_argument, "8 ids has 8 labels, expected 1",
               [&] { qat.train_step({{.ids = kIds, .labels = kIds}}, 1e-3); });
}

TEST(QatModels, ADecoderIsTrainedAsAClassifierToo) {
  const TempFolder temp;
  const auto model = AutoModelForSequenceClassification::from_pretrained(write_encoder(temp, "decoder", {.config = R"({
    "model_type": "llama", "architectures": ["LlamaForSequenceClassification"], "vocab_size": 16, "hidden_size": 64,
    "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 12,
    "num_labels": 3})"}));
  QatModel qat = prepare_qat(model, {.format = "int4"});
  const std::vector<QatSample> samples = {{.ids = {1, 5, 9}, .labels = {2}}, {.ids = {4, 5}, .labels = {0}}};
  const double first = qat.train_step(samples, 1e-3);
  for (int step = 0; step < 4; ++step) qat.train_step(samples, 1e-3);
  EXPECT_LT(qat.train_step(samples, 1e-3), first);
}

TEST(QatModels, WhatCannotBeIsRefused) {
  const TempFolder temp;
  const CausalLM model = load(tiny_folder());
  expect_error(ErrorCode::invalid_argument, "is not a quantized one", [&] { prepare_qat(model, {.format = "bf16"}); });
  expect_error(ErrorCode::invalid_argument, "nothing", [&] { prepare_qat(model, {}, {"nothing"}); });
  QatModel qat = prepare_qat(model, {});
  expect_error(ErrorCode::invalid_argument, "is prepared already", [&] { prepare_qat(model, {}); });
  expect_error(ErrorCode::invalid_argument, "no samples", [&] { qat.train_step({}, 1e-3); });
  for (const double rate : {-1e-3, 1e18, std::nan("")}) {
    expect_error(ErrorCode::invalid_argument, "learning_rate: found", [&] { qat.train_step({{.ids = kIds}}, rate); });
  }
  expect_error(ErrorCode::invalid_argument, "has no ids", [&] { qat.train_step({{.ids = {}}}, 1e-3); });
  expect_error(ErrorCode::invalid_argument, "of 8 ids has 1 labels, expected 8",
               [&] { qat.train_step({{.ids = kIds, .labels = {1}}}, 1e-3); });
  expect_error(ErrorCode::invalid_argument, "8 ids and 1 token_type_ids",
               [&] { qat.train_step({{.ids = kIds, .token_type_ids = {1}}}, 1e-3); });
  expect_error(ErrorCode::unsupported, "has quantized weights",
               [&] { prepare_qat(load(tiny_folder(), {.format = "nf4"}), {}); });
  const CausalLM adapted = load(tiny_folder());
  get_peft_model(adapted, {});
  expect_error(ErrorCode::unsupported, "has adapters", [&] { prepare_qat(adapted, {}); });
  const CausalLM broken = load(patched_tiny(temp, {{"model.layers.1.mlp.up_proj.weight", {{5, 0x7fc0}}}}));
  QatModel not_finite = prepare_qat(broken, {.format = "int8"});
  expect_error(ErrorCode::internal, "a value is not finite, first in",
               [&] { not_finite.train_step({{.ids = kIds}}, 1e-3); });
}

}  // namespace
}  // namespace nibble
