// Sentence vectors: pooling and settings on a tiny encoder.
#include "nibble/embed.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/tiny_encoder.h"
#include "tasks/loaded_model.h"

namespace nibble {
namespace {

using namespace nibble::test;
using Vector = std::vector<float>;

constexpr const char* kModules = R"([{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
  {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})";
constexpr const char* kNormalize = R"(, {"idx": 2, "path": "2_N", "type": "sentence_transformers.models.Normalize"}])";

class Embed : public ::testing::Test {
 protected:
  Embed()
      : path_(write_encoder(folder_, "model", {.config = replaced(kTinyBert, "ForSequenceClassification", "Model")})) {}

  void set_pooling(const std::string& mode, const std::string& last_module) {
    folder_.write("model/modules.json", std::string(kModules) + last_module);
    folder_.write("model/1_Pooling/config.json",
                  R"({"word_embedding_dimension": 32, "pooling_mode_)" + mode + "\": true}");
  }
  /// As sentence-transformers writes it since 5.4.
  void name_pooling(const std::string& json) {
    folder_.write("model/modules.json", std::string(kModules) + "]");
    folder_.write("model/1_Pooling/config.json",
                  R"({"embedding_dimension": 32, "pooling_mode": )" + json + R"(, "include_prompt": true})");
  }
  Vector embed(const std::string& text) const { return SentenceTransformer::from_pretrained(path_).embed({text})[0]; }

  /// Token vectors of "the film is good".
  Tensor hidden() const {
    const std::vector<int32_t> ids = {2, 5, 6, 7, 9, 3};
    return load_model(path_, {})->model->hidden({.ids = ids}, nullptr, nullptr);
  }
  /// Of each column: pooled by `fn(values)`.
  template <class Fn>
  Vector pooled(Fn fn) const {
    const Tensor h = hidden();
    Vector out;
    for (int64_t c = 0; c < h.cols(); ++c) {
      Vector column;
      for (int64_t t = 0; t < h.rows(); ++t) column.push_back(h.f32()[t * h.cols() + c]);
      out.push_back(fn(column));
    }
    return out;
  }

  TempFolder folder_;
  std::string path_;
};

float mean(const Vector& v) {
  double sum = 0;
  for (const float x : v) sum += x;
  return static_cast<float>(sum / static_cast<double>(v.size()));
}

void expect_near(const Vector& a, const Vector& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-6) << i;
}

Vector normalized(Vector v) {
  double squares = 0;
  for (const float x : v) squares += static_cast<double>(x) * x;
  for (float& x : v) x = static_cast<float>(x / std::sqrt(squares));
  return v;
}

TEST_F(Embed, IsTheNormalizedMeanWithoutModules) { expect_near(embed("the film is good"), normalized(pooled(mean))); }

TEST_F(Embed, PoolsAsTheModulesSay) {
  set_pooling("mean_tokens", "]");
  expect_near(embed("the film is good"), pooled(mean));
  set_pooling("mean_tokens", kNormalize);
  expect_near(embed("the film is good"), normalized(pooled(mean)));
  set_pooling("cls_token", "]");
  expect_near(embed("the film is good"), pooled([](const Vector& v) { return v[0]; }));
  set_pooling("max_tokens", "]");
  expect_near(embed("the film is good"), pooled([](const Vector& v) { return *std::max_element(v.begin(), v.end()); }));
  set_pooling("mean_sqrt_len_tokens", "]");
  expect_near(embed("the film is good"), pooled([](const Vector& v) { return mean(v) * std::sqrt(6.0f); }));
}

TEST_F(Embed, PoolingsMayBeNamed) {
  constexpr const char* kNames[][2] = {{"mean_tokens", R"("mean")"},
                                       {"cls_token", R"(["cls"])"},
                                       {"max_tokens", R"("max")"},
                                       {"mean_sqrt_len_tokens", R"("mean_sqrt_len_tokens")"}};
  for (const auto& [flag, name] : kNames) {
    set_pooling(flag, "]");
    const Vector expected = embed("the film is good");
    name_pooling(name);
    EXPECT_EQ(embed("the film is good"), expected) << name;
  }
}

TEST_F(Embed, SettingsOfTheFolderCount) {
  folder_.write("model/sentence_bert_config.json", R"({"max_seq_length": 6, "do_lower_case": false})");
  EXPECT_EQ(embed("the film is good"), embed("the film is good so very bad"));
  folder_.write("model/sentence_bert_config.json", R"({"max_seq_length": 4096})");
  EXPECT_NE(embed("the film is good"), embed("the film is good so very bad"));
  EXPECT_EQ(embed("so so so so so so so so so so"), embed("so so so so so so so so so so so so so"));  // 12 positions
}

TEST_F(Embed, TheTokenizersLimitCountsWhereTheFolderNamesNone) {
  const std::string limit = "model/tokenizer_config.json", settings = "model/sentence_bert_config.json";
  const Vector whole = embed("the film is good so very bad");
  folder_.write(limit, R"({"model_max_length": 6})");
  EXPECT_EQ(embed("the film is good so very bad"), embed("the film is good"));
  folder_.write(settings, R"({"max_seq_length": null, "do_lower_case": false})");
  EXPECT_EQ(embed("the film is good so very bad"), embed("the film is good"));
  folder_.write(settings, R"({"max_seq_length": 9})");
  EXPECT_EQ(embed("the film is good so very bad"), whole);
  folder_.write(settings, "{}");
  for (const char* any_length : {"1000000000000000019884624838656", "1e30", "null", "-1", "512"}) {
    folder_.write(limit, R"({"model_max_length": )" + std::string(any_length) + "}");
    EXPECT_EQ(embed("the film is good so very bad"), whole) << any_length;
  }
  folder_.write(limit, R"({"model_max_length": "6"})");
  expect_error(ErrorCode::format, "model_max_length: found a string", [&] { embed("bad"); });
}

TEST_F(Embed, UnknownModulesAndPoolingsAreNamed) {
  const auto refused = [&](ErrorCode code, const std::string& fragment) {
    expect_error(code, fragment, [&] { SentenceTransformer::from_pretrained(path_); });
  };
  set_pooling("lasttoken", "]");
  refused(ErrorCode::unsupported, "pooling_mode_lasttoken is not supported");
  set_pooling("mean_tokens\": true, \"pooling_mode_cls_token", "]");
  refused(ErrorCode::unsupported, "several poolings at once");
  set_pooling("mean_tokens\": false, \"pooling_mode_cls_token\": false, \"x", "]");
  refused(ErrorCode::format, "names no pooling");
  name_pooling(R"(["mean", "cls"])");
  refused(ErrorCode::unsupported, "several poolings at once");
  name_pooling("[]");
  refused(ErrorCode::format, "names no pooling");
  name_pooling(R"("lasttoken")");
  refused(ErrorCode::unsupported, "pooling_mode: 'lasttoken' is not supported");
  set_pooling("mean_tokens", R"(, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}])");
  refused(ErrorCode::unsupported, "module 'sentence_transformers.models.Dense' is not supported");
  folder_.write("model/modules.json", R"([{"path": "../1_Pooling", "type": "sentence_transformers.models.Pooling"}])");
  refused(ErrorCode::format, "../1_Pooling");
}

TEST_F(Embed, BatchesKeepTheOrder) {
  const SentenceTransformer model = SentenceTransformer::from_pretrained(path_);
  const std::vector<std::string> texts = {"the film was not so very bad", "bad", "so good", "bad"};
  const std::vector<Vector> all = model.embed(texts);
  for (size_t i = 0; i < texts.size(); ++i) EXPECT_EQ(all[i], model.embed({texts[i]})[0]) << texts[i];
}

}  // namespace
}  // namespace nibble
