// What an encoder's configuration and its inputs may be, and what they may not.
#include <gtest/gtest.h>

#include "models/harness.h"
#include "support/tiny_encoder.h"

namespace nibble {
namespace {

using namespace nibble::test;

constexpr const char* kTinyRoberta = R"({"model_type": "roberta", "architectures": ["RobertaModel"], "vocab_size": 16,
  "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 1,
  "max_position_embeddings": 8, "type_vocab_size": 1})";

const std::vector<int32_t> kIds = {2, 5, 6, 7, 9, 3};

struct Bad {
  ErrorCode code;
  const char *from, *to, *fragment;
};

TEST(EncoderConfig, NamesTheKeyThatIsWrong) {
  constexpr Bad kBad[] = {
      {ErrorCode::format, R"("vocab_size": 16, )", "", "vocab_size: is missing"},
      {ErrorCode::format, R"("num_attention_heads": 2)", R"("num_attention_heads": 5)",
       "num_attention_heads: 5 does not divide hidden_size 32"},
      {ErrorCode::format, R"("type_vocab_size": 2)", R"("type_vocab_size": 0)", "type_vocab_size: found 0"},
      {ErrorCode::format, R"("1": "fair")", R"("7": "fair")", "id2label: has no \"1\", expected 0 to 2"},
      {ErrorCode::format, R"("1": "fair")", R"("1": 1)", "id2label: 1: found an integer, expected a string"},
      {ErrorCode::format, R"("type_vocab_size": 2)", R"("type_vocab_size": 2, "num_labels": 2)",
       "id2label: has 3 labels, but num_labels is 2"},
      {ErrorCode::unsupported, R"("type_vocab_size": 2)", R"("type_vocab_size": 2, "is_decoder": true)",
       "is_decoder: "},
      {ErrorCode::unsupported, R"("type_vocab_size": 2)",
       R"("type_vocab_size": 2, "position_embedding_type": "relative_key")",
       "position_embedding_type: 'relative_key' is not supported, only absolute is"},
      {ErrorCode::unsupported, R"("type_vocab_size": 2)", R"("type_vocab_size": 2, "hidden_act": "mish")",
       "hidden_act: activation 'mish' is not supported"},
      {ErrorCode::unsupported, "BertForSequenceClassification", "BertForTokenClassification",
       "architectures: 'BertForTokenClassification' is not supported (known: BertModel, "
       "BertForSequenceClassification)"},
  };
  for (const Bad& bad : kBad) {
    const Json config = Json::parse(replaced(kTinyBert, bad.from, bad.to), "config.json");
    expect_error(bad.code, bad.fragment, [&] { list_parameters(config, "config.json"); });
  }
}

TEST(EncoderConfig, LabelsHaveDefaults) {
  const TempFolder folder;
  const std::string ids = R"(, "id2label": {"0": "bad", "1": "fair", "2": "good"})";
  const auto labels = [&](const std::string& name, const std::string& instead) {
    return load(write_encoder(folder, name, {.config = replaced(kTinyBert, ids, instead)}))->info().labels;
  };
  EXPECT_EQ(labels("two", ""), (std::vector<std::string>{"LABEL_0", "LABEL_1"}));
  EXPECT_EQ(labels("one", R"(, "num_labels": 1)"), (std::vector<std::string>{"LABEL_0"}));
  EXPECT_EQ(load(write_encoder(folder, "named"))->info().labels, (std::vector<std::string>{"bad", "fair", "good"}));
}

TEST(EncoderWeights, AreFoundWithAndWithoutPrefix) {
  const TempFolder folder;
  const auto with = load(write_encoder(folder, "with"));
  const auto without = load(write_encoder(folder, "without", {.drop_prefix = "bert."}));
  const Batch batch = {.ids = kIds};
  EXPECT_EQ(floats(with->hidden(batch, nullptr, nullptr)), floats(without->hidden(batch, nullptr, nullptr)));
}

TEST(EncoderWeights, NormsMayHaveTensorFlowsNames) {
  const TempFolder folder;
  const auto modern = load(write_encoder(folder, "modern")),
             old = load(write_encoder(folder, "old", {.old_norms = true}));
  const Batch batch = {.ids = kIds};
  EXPECT_EQ(floats(modern->hidden(batch, nullptr, nullptr)), floats(old->hidden(batch, nullptr, nullptr)));
}

TEST(EncoderWeights, AnEncoderAloneNeedsNoPooler) {
  const TempFolder folder;
  const std::string config = replaced(kTinyBert, "BertForSequenceClassification", "BertModel");
  const auto all = load(write_encoder(folder, "all", {.config = config}));
  const auto bare = load(write_encoder(folder, "bare", {.config = config, .without = "pooler.dense.weight"}));
  const Batch batch = {.ids = kIds};
  EXPECT_EQ(floats(all->hidden(batch, nullptr, nullptr)), floats(bare->hidden(batch, nullptr, nullptr)));
  expect_error(ErrorCode::unsupported, "has no classifier", [&] { all->logits(all->hidden(batch, nullptr, nullptr)); });
}

TEST(EncoderWeights, AHeadWithAnotherNumberOfLabelsIsRefused) {
  const TempFolder folder;
  const std::string path = write_encoder(folder, "model");
  folder.write("model/config.json", replaced(kTinyBert, R"(, "2": "good")", ""));
  expect_error(ErrorCode::format, "classifier.weight: found [3, 32], expected [2, 32]", [&] { load(path); });
}

TEST(EncoderInput, IsChecked) {
  const TempFolder folder;
  const auto model = load(write_encoder(folder, "model"));
  const auto refused = [&](const std::string& fragment, const Batch& batch) {
    expect_error(ErrorCode::invalid_argument, fragment, [&] { model->hidden(batch, nullptr, nullptr); });
  };
  const std::vector<int32_t> outside = {2, 16, 3}, negative = {2, -1, 3}, types = {0, 0, 2}, long_ids(13, 5);
  refused("token id 16 is outside the vocabulary of 16", {.ids = outside});
  refused("token id -1 is outside", {.ids = negative});
  refused("token type id 2 is outside 0 to 1", {.ids = std::span(kIds).first(3), .token_type_ids = types});
  refused("3 token type ids for 6 ids", {.ids = kIds, .token_type_ids = types});
  refused("a sequence has 13 tokens, expected 1 to 12", {.ids = long_ids});
  refused("a sequence has 0 tokens", {.ids = {}});
  refused("do not add up", {.ids = kIds, .lengths = {2, 3}});
}

TEST(Roberta, PositionsBeginBehindThePaddingId) {
  const TempFolder folder;
  const auto model = load(write_encoder(folder, "model", {.config = kTinyRoberta}));
  EXPECT_EQ(model->info().context_length, 6);
  const std::vector<int32_t> six(6, 5), seven(7, 5);
  EXPECT_EQ(model->hidden({.ids = six}, nullptr, nullptr).rows(), 6);
  expect_error(ErrorCode::invalid_argument, "has 7 tokens, expected 1 to 6",
               [&] { model->hidden({.ids = seven}, nullptr, nullptr); });
}

TEST(EncoderQuantization, KeepsTheClassifierUnlessAsked) {
  const TempFolder folder;
  const std::string path = write_encoder(folder, "model");
  LoadOptions options;
  options.format = &find_format("int8-dynamic");
  const ModelFiles files = open_model(path);
  const auto bytes = [&](bool quantize_head) {
    options.quantize_head = quantize_head;
    Loader loader(*files.weights, options);
    build_model(files.config, path, loader);
    return loader.bytes();
  };
  // 3 rows of 32 f32 values become 32 codes, a scale and a zero point each.
  EXPECT_EQ(bytes(false) - bytes(true), 3u * (32 * 4 - (32 + 4 + 4)));
}

}  // namespace
}  // namespace nibble
