// Perplexity against transformers, KL and top-1 against what must hold, chunks by hand.
#include "nibble/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "nibble/system.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;
using Chunks = std::vector<std::vector<int32_t>>;

/// transformers computes in float32 as nibble does; sums run in another order.
constexpr double kPerplexityTolerance = 1e-4;

const Chunks& heldout_chunks() {
  static const Chunks chunks = evaluation_chunks(tiny(), heldout(), {.context = 128, .max_tokens = 2048});
  return chunks;
}

EvaluateReport against_original(const LoadModelOptions& options) {
  return evaluate(load(tiny_folder(), options), &tiny(), heldout_chunks());
}

std::vector<int32_t> counted(int32_t count) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < count; ++i) ids.push_back(i);
  return ids;
}

TEST(Evaluate, PerplexityIsWhatTransformersGives) {
  const Json expected = tiny_expected();
  for (const Json& row : expected.find("perplexity")->as_array("perplexity")) {
    const EvaluateOptions options{.context = row.find("context")->as_int("context")};
    const EvaluateReport report = evaluate(tiny(), nullptr, evaluation_chunks(tiny(), heldout(), options), options);
    const double perplexity = row.find("perplexity")->as_double("perplexity");
    EXPECT_NEAR(report.perplexity / perplexity, 1, kPerplexityTolerance) << "context " << options.context;
    EXPECT_EQ(report.tokens, row.find("tokens")->as_int("tokens"));
    EXPECT_FALSE(report.has_reference);
    EXPECT_GT(report.tokens_per_second, 0);
  }
}

TEST(Evaluate, NothingIsLostAgainstItself) {
  const EvaluateReport report = evaluate(tiny(), &tiny(), heldout_chunks());
  EXPECT_EQ(report.kl_mean, 0);
  EXPECT_EQ(report.kl_max, 0);
  EXPECT_EQ(report.top1_agreement, 1);
  EXPECT_EQ(report.perplexity, report.reference_perplexity);
  EXPECT_EQ(report.bytes, report.reference_bytes);
  // The model's weights are bf16: wider types hold the same values.
  EXPECT_EQ(against_original({.format = "fp32"}).kl_max, 0);
}

TEST(Evaluate, FewerBitsLoseMore) {
  const EvaluateReport int8 = against_original({.format = "int8"});
  const EvaluateReport nf4 = against_original({.format = "nf4"});
  const EvaluateReport fp4 = against_original({.format = "fp4"});
  const EvaluateReport nf4_large_blocks = against_original({.format = "nf4", .block = 4096});
  EXPECT_GT(int8.kl_mean, 0);
  EXPECT_LT(int8.kl_mean, nf4.kl_mean / 4);
  EXPECT_LT(nf4.kl_mean, fp4.kl_mean);
  EXPECT_LT(nf4.kl_mean, nf4_large_blocks.kl_mean);
  EXPECT_GT(int8.top1_agreement, nf4.top1_agreement);
  EXPECT_GT(nf4.top1_agreement, fp4.top1_agreement);
  EXPECT_LT(int8.perplexity, nf4.perplexity);
  EXPECT_LT(nf4.bytes, int8.bytes);
  EXPECT_LT(int8.bytes, int8.reference_bytes);
}

TEST(Evaluate, QuantilesAreInOrder) {
  const EvaluateReport r = against_original({.format = "nf4"});
  EXPECT_GT(r.kl_p50, 0);
  EXPECT_LT(r.kl_p50, r.kl_p90);
  EXPECT_LT(r.kl_p90, r.kl_p99);
  EXPECT_LT(r.kl_p99, r.kl_max);
  EXPECT_GT(r.kl_mean, r.kl_p50);  // the tail is on the right
}

TEST(Evaluate, DoesNotDependOnTheNumberOfThreads) {
  set_threads(1);
  const EvaluateReport one = against_original({.format = "nf4", .double_quant = true});
  set_threads(3);
  const EvaluateReport three = against_original({.format = "nf4", .double_quant = true});
  set_threads(0);
  EXPECT_EQ(one.perplexity, three.perplexity);
  EXPECT_EQ(one.kl_mean, three.kl_mean);
  EXPECT_EQ(one.kl_max, three.kl_max);
}

TEST(Evaluate, NanNeverPassesAGate) {
  const TempFolder folder;
  const CausalLM broken = load(patched_tiny(folder, {{"model.norm.weight", {{7, 0x7fc0}}}}));
  const EvaluateReport report = evaluate(broken, &tiny(), heldout_chunks());
  EXPECT_TRUE(std::isnan(report.perplexity));
  EXPECT_FALSE(report.kl_mean < 1e9);
  EXPECT_EQ(report.failed_gates({.max_kl = 1e9, .max_perplexity_increase = 1e9, .min_top1 = 0.5}).size(), 3u);
}

TEST(Evaluate, GatesCompareWithTheirLimits) {
  EvaluateReport r;
  r.perplexity = 10.3;
  r.reference_perplexity = 10;
  r.kl_mean = 0.05;
  r.top1_agreement = 0.9;
  EXPECT_TRUE(r.failed_gates({}).empty());
  EXPECT_TRUE(r.failed_gates({.max_kl = 0.05, .max_perplexity_increase = 0.0301, .min_top1 = 0.9}).empty());
  const auto failed = r.failed_gates({.max_kl = 0.049, .max_perplexity_increase = 0.0299, .min_top1 = 0.91});
  ASSERT_EQ(failed.size(), 3u);
  EXPECT_NE(failed[0].find("max_kl 0.049"), std::string::npos) << failed[0];
  EXPECT_NE(failed[1].find("max_perplexity_increase"), std::string::npos) << failed[1];
  EXPECT_NE(failed[2].find("min_top1 0.91"), std::string::npos) << failed[2];
}

TEST(Evaluate, RefusesWhatCannotBeScored) {
  expect_error(ErrorCode::invalid_argument, "nothing to score", [] { evaluate(tiny(), nullptr, {}); });
  expect_error(ErrorCode::invalid_argument, "nothing to score", [] { evaluate(tiny(), nullptr, {{1}, {2}}); });
  expect_error(ErrorCode::invalid_argument, "512", [] { evaluate(tiny(), nullptr, {{1, 512}}); });
  expect_error(ErrorCode::invalid_argument, "-3", [] { evaluate(tiny(), nullptr, {{1, -3}}); });
  expect_error(ErrorCode::invalid_argument, "600", [] { evaluate(tiny(), nullptr, {std::vector<int32_t>(600, 1)}); });
}

TEST(Evaluate, RefusesAReferenceWithAnotherVocabulary) {
  NIBBLE_NEED_SHARED("goldens/gguf/f32.gguf");
  const CausalLM other = load(shared_folder() / "goldens/gguf/f32.gguf");
  expect_error(ErrorCode::invalid_argument, "vocabulary", [&] { evaluate(tiny(), &other, {{1, 2, 3}}); });
}

TEST(EvaluationChunks, CutWithoutOverlapAndDropTheShortRest) {
  const Chunks chunks = evaluation_chunks(counted(10), {.context = 4});
  EXPECT_EQ(chunks, Chunks({{0, 1, 2, 3}, {4, 5, 6, 7}}));
  EXPECT_EQ(evaluation_chunks(counted(8), {.context = 4}).size(), 2u);
  EXPECT_EQ(evaluation_chunks(counted(3), {.context = 4}), Chunks({{0, 1, 2}}));  // the only one stays
  EXPECT_EQ(evaluation_chunks(counted(10), {.context = 4, .max_tokens = 5}), Chunks({{0, 1, 2, 3}}));
  EXPECT_EQ(evaluation_chunks(counted(10), {.context = 4, .max_tokens = 100}).size(), 2u);
  EXPECT_TRUE(evaluation_chunks(std::vector<int32_t>{}, {.context = 4}).empty());
  expect_error(ErrorCode::invalid_argument, "context", [] { evaluation_chunks(counted(3), {.context = 0}); });
}

TEST(EvaluationChunks, TheTextIsTokenizedInOneGo) {
  const std::vector<int32_t> ids = tiny().encode(heldout(), false);
  EXPECT_EQ(static_cast<int64_t>(ids.size()), tiny_expected().find("heldout_tokens")->as_int("heldout_tokens"));
  const Chunks chunks = evaluation_chunks(tiny(), heldout(), {.context = 100});
  EXPECT_EQ(chunks.size(), ids.size() / 100);
  EXPECT_EQ(chunks[7], std::vector<int32_t>(ids.begin() + 700, ids.begin() + 800));
}

// A tokenizer that begins every text with an id of its own.
TEST(EvaluationChunks, EveryChunkBeginsAsTheTokenizerBeginsTexts) {
  Json tokenizer = Json::parse_file((tiny_folder() / "tokenizer.json").string());
  tokenizer.set("post_processor", Json::parse(R"({"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
      "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}})",
                                              "post_processor"));
  const TempFolder folder;
  const CausalLM model = load(tiny_variant(folder, "bos", {{"tokenizer.json", tokenizer.dump()}}));
  const std::string text = "Anne was tenderness itself.";
  const std::vector<int32_t> ids = tiny().encode(text, false);
  ASSERT_EQ(ids.size(), 13u);
  ASSERT_EQ(model.encode(text).front(), 0);
  const Chunks chunks = evaluation_chunks(model, text, {.context = 5});
  ASSERT_EQ(chunks.size(), 3u);  // 4 + 4 + 4 ids, one is left over
  for (size_t i = 0; i < chunks.size(); ++i) {
    std::vector<int32_t> want = {0};
    want.insert(want.end(), ids.begin() + static_cast<int64_t>(4 * i), ids.begin() + static_cast<int64_t>(4 * i + 4));
    EXPECT_EQ(chunks[i], want);
  }
  expect_error(ErrorCode::invalid_argument, "context", [&] { evaluation_chunks(model, text, {.context = 1}); });
}

}  // namespace
}  // namespace nibble
