// Labels, scores and batches on a tiny encoder; what they mean is checked by hand.
#include "nibble/classify.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "io/model_files.h"
#include "nibble/evaluate.h"
#include "nibble/quantize.h"
#include "nibble/quantize_dynamic.h"
#include "support/tiny_encoder.h"
#include "tasks/loaded_model.h"

namespace nibble {
namespace {

using namespace nibble::test;

const std::vector<std::string> kTexts = {
    "the film is good", "bad", "the film was not so very bad.", "Good, very GOOD", "so so", "the the the the the film",
};

std::vector<TextInput> inputs_of(const std::vector<std::string>& texts) {
  std::vector<TextInput> inputs;
  for (const std::string& text : texts) inputs.push_back({.text = text});
  return inputs;
}

SequenceClassifier load(const std::string& path, const LoadModelOptions& options = {}) {
  return AutoModelForSequenceClassification::from_pretrained(path, options);
}

/// The folder of a tiny classifier, with something in its configuration replaced.
std::string tiny(const TempFolder& folder, const std::string& from = "", const std::string& to = "") {
  return write_encoder(folder, "tiny", {.config = from.empty() ? kTinyBert : replaced(kTinyBert, from, to)});
}

TEST(Classify, LabelIsTheLargestLogitAndScoreItsSoftmax) {
  const TempFolder folder;
  const SequenceClassifier model = load(tiny(folder));
  EXPECT_EQ(model.encode({.text = kTexts[0]}).ids, (std::vector<int32_t>{2, 5, 6, 7, 9, 3}));
  const Prediction p = model.classify(kTexts[0]);
  ASSERT_EQ(p.logits.size(), 3u);
  double sum = 0;
  for (const float logit : p.logits) {
    EXPECT_LE(logit, p.logits[static_cast<size_t>(p.label_id)]);
    sum += std::exp(logit);
  }
  EXPECT_NEAR(p.score, std::exp(p.logits[static_cast<size_t>(p.label_id)]) / sum, 1e-6);
  EXPECT_EQ(p.label, (std::vector<std::string>{"bad", "fair", "good"})[static_cast<size_t>(p.label_id)]);
}

TEST(Classify, ScoreFollowsTheProblemType) {
  const TempFolder folder;
  const auto type = [](const std::string& name) { return "\"problem_type\": \"" + name + "\", \"vocab_size\""; };
  const Prediction many = load(tiny(folder, "\"vocab_size\"", type("multi_label_classification"))).classify("bad film");
  const float logit = many.logits[static_cast<size_t>(many.label_id)];
  EXPECT_NEAR(many.score, 1 / (1 + std::exp(-logit)), 1e-6);
  const Prediction value = load(tiny(folder, "\"vocab_size\"", type("regression"))).classify("bad film");
  EXPECT_EQ(value.score, value.logits[static_cast<size_t>(value.label_id)]);
  const std::string names = R"("id2label": {"0": "bad", "1": "fair", "2": "good"})";
  const Prediction single = load(tiny(folder, names, R"("num_labels": 1)")).classify("bad film");
  EXPECT_NEAR(single.score, 1 / (1 + std::exp(-single.logits[0])), 1e-6);
}

TEST(Classify, ABatchGivesTheSameBitsAsEachTextAlone) {
  const TempFolder folder;
  const std::string path = tiny(folder);
  const LoadModelOptions kOptions[] = {{},
                                       {.format = "nf4"},
                                       {.format = "int8"},
                                       {.format = "int8-dynamic"},
                                       {.format = "int8-dynamic", .activation_range = "tensor"},
                                       {.format = "int8-dynamic", .activation_range = "tensor", .quantize_head = true}};
  for (const LoadModelOptions& options : kOptions) {
    const SequenceClassifier model = load(path, options);
    const std::vector<Prediction> together = model.classify(inputs_of(kTexts));
    ASSERT_EQ(together.size(), kTexts.size());
    for (size_t i = 0; i < kTexts.size(); ++i) {
      EXPECT_EQ(together[i].logits, model.classify(kTexts[i]).logits) << options.format << ": " << kTexts[i];
    }
  }
}

TEST(Classify, PairsHaveTwoSegments) {
  const TempFolder folder;
  const SequenceClassifier model = load(tiny(folder));
  const EncodedText both = model.encode({.text = "so good", .pair = "not bad"});
  EXPECT_EQ(both.ids, (std::vector<int32_t>{2, 12, 9, 3, 11, 10, 3}));
  EXPECT_EQ(both.token_type_ids, (std::vector<int32_t>{0, 0, 0, 0, 1, 1, 1}));
  const EncodedText one_segment = {.ids = both.ids};
  EXPECT_NE(model.classify(std::vector{both})[0].logits, model.classify(std::vector{one_segment})[0].logits);
}

TEST(Classify, LongTextsAreRefusedOrCut) {
  const TempFolder folder;
  const SequenceClassifier model = load(tiny(folder));
  const std::string eleven = "the the the the the the the the the the the";
  expect_error(ErrorCode::invalid_argument, "text 2: has 13 tokens, the model has positions for 12", [&] {
    model.classify(inputs_of({"bad", eleven}));
  });
  const ClassifyOptions cut = {.long_text = LongText::truncate};
  const EncodedText text = model.encode({.text = eleven}, cut);
  EXPECT_EQ(text.ids.size(), 12u);
  EXPECT_EQ(text.ids.back(), 3);  // [SEP] stays
  EXPECT_EQ(model.encode({.text = "bad"}, cut).ids, model.encode({.text = "bad"}).ids);
  // 9 places for 3 and 11 words: the longer text gives. Then for 7 and 6: 4 and 5, the odd one to the longer.
  const EncodedText pair = model.encode({.text = "bad bad bad", .pair = eleven}, cut);
  EXPECT_EQ(pair.ids, (std::vector<int32_t>{2, 10, 10, 10, 3, 5, 5, 5, 5, 5, 5, 3}));
  const EncodedText both =
      model.encode({.text = "bad bad bad bad bad bad bad", .pair = "the the the the the the"}, cut);
  EXPECT_EQ(both.ids, (std::vector<int32_t>{2, 10, 10, 10, 10, 10, 3, 5, 5, 5, 5, 3}));
}

TEST(Classify, TheTokenizersLimitCutsToo) {
  const TempFolder folder;
  const std::string path = tiny(folder);
  folder.write("tiny/tokenizer_config.json", R"({"model_max_length": 4})");
  const SequenceClassifier model = load(path);
  EXPECT_EQ(model.encode({.text = "the film is good"}, {.long_text = LongText::truncate}).ids,
            (std::vector<int32_t>{2, 5, 6, 3}));
  EXPECT_EQ(model.encode({.text = "the film is good"}).ids.size(), 6u);
}

constexpr const char* kTinyDecoder = R"({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"],
  "vocab_size": 16, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
  "max_position_embeddings": 12, "id2label": {"0": "bad", "1": "fair", "2": "good"}})";

TEST(Classify, ADecoderIsReadAtItsLastToken) {
  const TempFolder folder;
  const std::string path = write_encoder(folder, "decoder", {.config = kTinyDecoder});
  const SequenceClassifier model = load(path);
  const std::vector<Prediction> together = model.classify(inputs_of(kTexts));
  const auto loaded = load_model(path, {});
  const Tensor score = formula_values("score.weight", {3, 64});
  for (size_t i = 0; i < kTexts.size(); ++i) {
    const std::vector<int32_t> ids = model.encode({.text = kTexts[i]}).ids;
    const Tensor hidden = loaded->model->hidden({.ids = ids}, nullptr, nullptr);
    const float* last = hidden.f32() + (hidden.rows() - 1) * 64;
    ASSERT_EQ(together[i].logits.size(), 3u);
    for (size_t label = 0; label < 3; ++label) {
      const double expected = std::inner_product(last, last + 64, score.f32() + label * 64, 0.0);
      EXPECT_NEAR(together[i].logits[label], expected, 1e-5) << kTexts[i];
    }
  }
}

TEST(Classify, ADecodersHeadStaysAsItIs) {
  const TempFolder folder;
  const std::string path = write_encoder(folder, "decoder", {.config = kTinyDecoder}), nf4 = (folder / "nf4").string();
  quantize(path, nf4, {.format = "nf4"});
  EXPECT_EQ(load(nf4).classify("so so").logits, load(path, {.format = "nf4"}).classify("so so").logits);
  EXPECT_NE(load(nf4).classify("so so").logits, load(path).classify("so so").logits);
  EXPECT_EQ(open_model(nf4).weights->find("score.weight")->format, "fp32");
  expect_error(ErrorCode::unsupported, "is a classifier and predicts no text; use classify",
               [&] { AutoModelForCausalLM::from_pretrained(path); });
  expect_error(ErrorCode::invalid_argument, "is a classifier; head is for language models",
               [&] { load(path, {.head = "nf4"}); });
}

TEST(Classify, WrongInputsAndModelsAreNamed) {
  const TempFolder folder;
  const SequenceClassifier model = load(tiny(folder));
  const auto refused = [&](const std::string& fragment, const EncodedText& text) {
    expect_error(ErrorCode::invalid_argument, fragment, [&] { model.classify(std::vector{text}); });
  };
  refused("text 1: has no tokens", {});
  refused("token id 99 is outside the vocabulary", {.ids = {2, 99, 3}});
  refused("text 1: has 2 token type ids for 3 ids", {.ids = {2, 5, 3}, .token_type_ids = {0, 0}});
  refused("token type id 7 is outside", {.ids = {2, 5, 3}, .token_type_ids = {0, 7, 0}});
  expect_error(ErrorCode::unsupported, "BertModel has no classifier",
               [&] { load(tiny(folder, "BertForSequenceClassification", "BertModel")); });
  expect_error(ErrorCode::unsupported, "llama without a classifier predicts text",
               [] { load(std::string(NIBBLE_SOURCE_DIR) + "/tests/data/tiny-llama"); });
  expect_error(ErrorCode::unsupported, "is an encoder and predicts no text",
               [&] { AutoModelForCausalLM::from_pretrained(tiny(folder)); });
  expect_error(ErrorCode::invalid_argument, "activation_range: found 'row', expected token or tensor",
               [&] { load(tiny(folder), {.format = "int8-dynamic", .activation_range = "row"}); });
  const std::string small = tiny(folder);
  folder.write("tiny/vocab.txt", std::string(kTinyVocabulary) + "more\n");
  expect_error(ErrorCode::format, "the tokenizer has 17 ids, the embedding only 16 rows", [&] { load(small); });
}

TEST(QuantizeDynamic, TakesAllLinearLayersAndLeavesTheModel) {
  const TempFolder folder;
  const SequenceClassifier model = load(tiny(folder));
  const std::vector<float> before = model.classify("the film is good").logits;
  const SequenceClassifier quantized = quantize_dynamic(model, {"Linear"}, DType::i8);
  const SequenceClassifier on_load = load(tiny(folder), {.format = "int8-dynamic", .quantize_head = true});
  EXPECT_EQ(quantized.classify("the film is good").logits, on_load.classify("the film is good").logits);
  EXPECT_EQ(quantized.weight_bytes(), on_load.weight_bytes());
  EXPECT_EQ(model.classify("the film is good").logits, before);
  const SequenceClassifier half = quantize_dynamic(model, {"Linear"}, DType::f16);
  EXPECT_LT(quantized.weight_bytes(), half.weight_bytes());
  EXPECT_LT(half.weight_bytes(), model.weight_bytes());
}

TEST(QuantizeDynamic, RefusesWhatItCannotDo) {
  const TempFolder folder;
  const SequenceClassifier model = load(tiny(folder));
  expect_error(ErrorCode::invalid_argument, "modules: found 'LSTM', only \"Linear\"", [&] {
    quantize_dynamic(model, {"Linear", "LSTM"});
  });
  expect_error(ErrorCode::invalid_argument, "dtype: found bf16, expected int8 or fp16",
               [&] { quantize_dynamic(model, {"Linear"}, DType::bf16); });
  const SequenceClassifier quantized = quantize_dynamic(model, {"Linear"});
  expect_error(ErrorCode::unsupported, "was quantized while loading already",
               [&] { quantize_dynamic(quantized, {"Linear"}); });
}

TEST(QuantizeEncoder, KeepsTheClassifierAndComputesAsOnLoad) {
  const TempFolder folder;
  const std::string path = write_encoder(folder, "bare", {.drop_prefix = "bert."});
  for (const std::string format : {"nf4", "int8", "int8-dynamic"}) {
    const std::string out = (folder / format).string();
    const QuantizeReport report = quantize(path, out, {.format = format});
    EXPECT_EQ(report.skipped, std::vector<std::string>{"classifier"}) << format;
    EXPECT_EQ(report.tensors.size(), 13u) << format;  // two blocks of six, and the pooler
    EXPECT_EQ(load(out).classify("very good").logits, load(path, {.format = format}).classify("very good").logits)
        << format;
  }
}

TEST(QuantizeEncoder, WritesModernNamesOfNorms) {
  const TempFolder folder;
  quantize(write_encoder(folder, "old", {.old_norms = true}), (folder / "q").string(), {.format = "nf4"});
  const SafetensorsFile written(folder / "q/model.safetensors");
  EXPECT_NE(written.find("bert.embeddings.LayerNorm.weight"), nullptr);
  EXPECT_EQ(written.find("bert.embeddings.LayerNorm.gamma"), nullptr);
}

Prediction predicted(int64_t label, size_t labels) { return {.label_id = label, .logits = std::vector<float>(labels)}; }

TEST(ScoreLabels, AccuracyAndF1ByHand) {
  std::vector<Prediction> two;
  for (const int64_t label : {1, 1, 0, 0, 1}) two.push_back(predicted(label, 2));
  const LabelScores binary = score_labels(two, {1, 0, 1, 0, 1});
  EXPECT_DOUBLE_EQ(binary.accuracy, 3.0 / 5);
  EXPECT_DOUBLE_EQ(binary.f1, 2.0 * 2 / (2 * 2 + 1 + 1));  // of label 1: 2 right, 1 too many, 1 missed
  std::vector<Prediction> four;
  for (const int64_t label : {0, 0, 1, 2}) four.push_back(predicted(label, 4));
  const LabelScores macro = score_labels(four, {0, 1, 1, 0});
  EXPECT_DOUBLE_EQ(macro.accuracy, 0.5);
  EXPECT_DOUBLE_EQ(macro.f1, (0.5 + 2.0 / 3 + 0) / 3);  // label 3 occurs nowhere
  expect_error(ErrorCode::invalid_argument, "1 labels for 4 predictions", [&] { score_labels(four, {0}); });
}

TEST(LabelIds, AreNamesOrNumbers) {
  const TempFolder folder;
  const SequenceClassifier model = load(tiny(folder));
  EXPECT_EQ(label_ids(model, {.labels = {"good", "0", "fair"}}), (std::vector<int64_t>{2, 0, 1}));
  for (const char* wrong : {"great", "3", "-1", "1.0", ""}) {
    expect_error(ErrorCode::format, "text 2: the model has no label '" + std::string(wrong) + "'", [&] {
      label_ids(model, {.labels = {"bad", wrong}});
    });
  }
  const auto many =
      load(tiny(folder, "\"vocab_size\"", "\"problem_type\": \"multi_label_classification\", \"vocab_size\""));
  expect_error(ErrorCode::unsupported, "multi_label_classification", [&] { label_ids(many, {.labels = {"bad"}}); });
}

TEST(EvaluateLabels, CountsFlipsAndChecksTheGate) {
  const TempFolder folder;
  const SequenceClassifier model = load(tiny(folder));
  LabelledTexts data = {.inputs = inputs_of(kTexts)};
  const std::vector<Prediction> own = model.classify(data.inputs);
  for (const Prediction& p : own) data.labels.push_back(p.label);
  const LabelReport same = evaluate_labels(model, &model, data);
  EXPECT_EQ(same.accuracy, 1.0);
  EXPECT_EQ(same.flips, 0);
  EXPECT_TRUE(same.failed_gates({.max_accuracy_drop = 0.0}).empty());
  data.labels[0] = data.labels[0] == "bad" ? "good" : "bad";
  EXPECT_DOUBLE_EQ(evaluate_labels(model, nullptr, data).accuracy, 5.0 / 6);
  LabelReport worse = same;
  worse.accuracy = 0.9;
  EXPECT_TRUE(worse.failed_gates({.max_accuracy_drop = 0.11}).empty());
  ASSERT_EQ(worse.failed_gates({.max_accuracy_drop = 0.05}).size(), 1u);
  EXPECT_EQ(worse.failed_gates({.max_accuracy_drop = 0.05})[0], "accuracy fell by 0.1, above max_accuracy_drop 0.05");
  data.labels.clear();
  expect_error(ErrorCode::invalid_argument, "have no labels", [&] { evaluate_labels(model, nullptr, data); });
}

}  // namespace
}  // namespace nibble
