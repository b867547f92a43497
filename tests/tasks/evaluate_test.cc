// Perplexity against transformers, KL and top-1 against what must hold, chunks by hand.
#include "nibble/evaluate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

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

constexpr uint16_t kNanBits = 0x7fc0;  // bf16

TEST(Evaluate, NanIsAnErrorThatNamesTheLayer) {
  const TempFolder folder;
  const std::string down = "model.layers.1.mlp.down_proj";
  const CausalLM matrix = load(patched_tiny(folder, {{down + ".weight", {{7, kNanBits}}}}));
  expect_error(ErrorCode::format,
               "chunk 0, position 1: the logits are not finite; NaN or infinity appears first in the "
               "output of " +
                   down,
               [&] { evaluate(matrix, nullptr, heldout_chunks()); });
  const TempFolder other;
  const CausalLM norm = load(patched_tiny(other, {{"model.norm.weight", {{7, kNanBits}}}}));
  expect_error(ErrorCode::format, "in front of lm_head", [&] { evaluate(norm, &tiny(), heldout_chunks()); });
  expect_error(ErrorCode::format, other.path().string() + "/patched",
               [&] { evaluate(tiny(), &norm, heldout_chunks()); });
}

TEST(Evaluate, NanNeverPassesAGate) {
  EvaluateReport r;
  r.perplexity = r.kl_mean = r.top1_agreement = std::nan("");
  r.reference_perplexity = 10;
  EXPECT_EQ(r.failed_gates({.max_kl = 1e9, .max_perplexity_increase = 1e9, .min_top1 = 0.5}).size(), 3u);
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

TEST(Evaluate, RefusesAReferenceThatSpellsIdsOtherwise) {
  Json tokenizer = Json::parse_file((tiny_folder() / "tokenizer.json").string());
  std::string text = tokenizer.dump();
  for (const auto& [from, to] : {std::pair{"\"a\":", "\"@@\":"}, std::pair{"\"b\":", "\"a\":"}}) {
    ASSERT_NE(text.find(from), std::string::npos);
    text.replace(text.find(from), std::string(from).size(), to);
  }
  text.replace(text.find("\"@@\":"), 5, "\"b\":");
  const TempFolder folder;
  const CausalLM other = load(tiny_variant(folder, "other", {{"tokenizer.json", text}}));
  const std::vector<int32_t> ids = tiny().encode("b", false);
  expect_error(ErrorCode::invalid_argument, "has another vocabulary: token", [&] {
    evaluate(tiny(), &other, {{1, 2, ids[0]}});
  });
  EXPECT_EQ(evaluate(tiny(), &other, {{1, 2, 0}}).kl_max, 0);
}

TEST(Evaluate, RefusesAReferenceWithAnotherVocabulary) {
  NIBBLE_NEED_SHARED("goldens/gguf/f32.gguf");
  const CausalLM other = load(shared_folder() / "goldens/gguf/f32.gguf");
  expect_error(ErrorCode::invalid_argument, "vocabulary", [&] { evaluate(tiny(), &other, {{1, 2, 3}}); });
}

/// Means over all scored positions, from the logits of every position.
struct ByHand {
  double nll = 0, kl = 0, delta_p = 0, delta_p_squared = 0, same = 0;
  int64_t count = 0;

  void add(const CausalLM& model, const CausalLM& reference, const std::vector<int32_t>& ids, size_t first) {
    const std::vector<float> a = model.logits(ids), b = reference.logits(ids);
    const auto vocab = static_cast<size_t>(model.vocab_size());
    for (size_t t = first; t < ids.size(); ++t) {
      const float *ours = a.data() + (t - 1) * vocab, *theirs = b.data() + (t - 1) * vocab;
      double our_sum = 0, their_sum = 0;
      for (size_t i = 0; i < vocab; ++i) our_sum += std::exp(static_cast<double>(ours[i]));
      for (size_t i = 0; i < vocab; ++i) their_sum += std::exp(static_cast<double>(theirs[i]));
      const auto log_q = [&](size_t i) { return static_cast<double>(ours[i]) - std::log(our_sum); };
      const auto log_p = [&](size_t i) { return static_cast<double>(theirs[i]) - std::log(their_sum); };
      const auto id = static_cast<size_t>(ids[t]);
      nll -= log_q(id);
      const double change = std::exp(log_q(id)) - std::exp(log_p(id));
      delta_p += change;
      delta_p_squared += change * change;
      for (size_t i = 0; i < vocab; ++i) kl += std::exp(log_p(i)) * (log_p(i) - log_q(i));
      same += std::max_element(ours, ours + vocab) - ours == std::max_element(theirs, theirs + vocab) - theirs;
      ++count;
    }
  }
  double mean(double sum) const { return sum / static_cast<double>(count); }
};

void expect_equal(const EvaluateReport& report, const ByHand& want) {
  constexpr double kTolerance = 1e-5;  // sums of 512 exponentials in f32 here, in double there
  EXPECT_EQ(report.tokens, want.count);
  EXPECT_NEAR(report.perplexity, std::exp(want.mean(want.nll)), kTolerance * report.perplexity);
  EXPECT_NEAR(report.kl_mean, want.mean(want.kl), kTolerance);
  EXPECT_NEAR(report.top1_agreement, want.mean(want.same), 1e-12);
  EXPECT_NEAR(find_figure(report.figures, "delta_p_mean")->value, want.mean(want.delta_p), kTolerance);
  EXPECT_NEAR(find_figure(report.figures, "delta_p_rms")->value, std::sqrt(want.mean(want.delta_p_squared)),
              kTolerance);
}

TEST(Evaluate, FiguresAreThoseOfTheDefinition) {
  const CausalLM model = load(tiny_folder(), {.format = "nf4"});
  const EvaluateOptions options{.context = 96, .max_tokens = 300};
  const Chunks chunks = evaluation_chunks(tiny(), heldout(), options);
  ByHand want;
  for (const auto& chunk : chunks) want.add(model, tiny(), chunk, 1);
  expect_equal(evaluate(model, &tiny(), chunks, options), want);
}

TEST(Evaluate, AStrideScoresEveryIdOnceBehindAsMuchAsFits) {
  const CausalLM model = load(tiny_folder(), {.format = "nf4"});
  const EvaluateOptions options{.context = 64, .max_tokens = 150, .stride = 24};
  const std::vector<int32_t> ids = tiny().encode(heldout(), false);
  const Chunks chunks = evaluation_chunks(tiny(), heldout(), options);
  ASSERT_EQ(chunks.size(), 5u);  // beginning at 0, 24, 48, 72, 96; the last one has 54 ids
  EXPECT_EQ(chunks[4], std::vector<int32_t>(ids.begin() + 96, ids.begin() + 150));
  ByHand want;
  want.add(model, tiny(), chunks[0], 1);
  for (size_t i = 1; i < chunks.size(); ++i) want.add(model, tiny(), chunks[i], 64 - 24);
  EXPECT_EQ(want.count, 149);
  const EvaluateReport report = evaluate(model, &tiny(), chunks, options);
  expect_equal(report, want);
  EXPECT_EQ(report.convention, "stride 24");
  EvaluateOptions whole = options;
  whole.stride = 0;
  EXPECT_LT(report.perplexity, evaluate(model, nullptr, evaluation_chunks(tiny(), heldout(), whole), whole).perplexity);
  whole.stride = 65;
  expect_error(ErrorCode::invalid_argument, "stride: found 65, expected 0 to 64",
               [&] { evaluation_chunks(tiny(), heldout(), whole); });
}

TEST(Evaluate, TheSecondHalfIsThatOfLlamaCpp) {
  const CausalLM model = load(tiny_folder(), {.format = "nf4"});
  const EvaluateOptions options{.context = 64, .max_tokens = 200, .scored = ScoredPart::second_half};
  const Chunks chunks = evaluation_chunks(tiny(), heldout(), options);
  ASSERT_EQ(chunks.size(), 3u);
  ByHand want;  // predictions of positions n/2 to n - 2, of the ids behind them
  for (const auto& chunk : chunks) want.add(model, tiny(), chunk, 33);
  EXPECT_EQ(want.count, 3 * 31);
  const EvaluateReport report = evaluate(model, &tiny(), chunks, options);
  expect_equal(report, want);
  EXPECT_EQ(report.convention, "second half");
  expect_error(ErrorCode::invalid_argument, "has 10 ids, fewer than the context of 64",
               [] { evaluation_chunks(counted(10), {.context = 64, .scored = ScoredPart::second_half}); });
  expect_error(ErrorCode::invalid_argument, "choose one", [] {
    evaluation_chunks(counted(100), {.context = 64, .stride = 8, .scored = ScoredPart::second_half});
  });
}

TEST(Evaluate, IntervalsHoldTheFigureAndDependOnTheSeed) {
  const EvaluateReport r = against_original({.format = "nf4"});
  EXPECT_EQ(r.blocks, 16);  // chunks of 128
  for (const Figure& figure : r.figures) {
    if (std::isnan(figure.low)) continue;
    EXPECT_LE(figure.low, figure.value) << figure.name;
    EXPECT_GE(figure.high, figure.value) << figure.name;
    EXPECT_LT(figure.low, figure.high) << figure.name;
  }
  EXPECT_TRUE(std::isnan(find_figure(r.figures, "kl_max")->low));
  EXPECT_EQ(find_figure(r.figures, "no_such_figure"), nullptr);
  const CausalLM model = load(tiny_folder(), {.format = "nf4"});
  const double low = find_figure(r.figures, "kl_mean")->low;
  EXPECT_EQ(find_figure(evaluate(model, &tiny(), heldout_chunks()).figures, "kl_mean")->low, low);
  EXPECT_NE(find_figure(evaluate(model, &tiny(), heldout_chunks(), {.seed = 1}).figures, "kl_mean")->low, low);
}

TEST(Evaluate, TheVerdictIsASentence) {
  EXPECT_EQ(evaluate(tiny(), nullptr, heldout_chunks()).verdict, "");
  EXPECT_EQ(against_original({.format = "fp32"}).verdict, "identical: every prediction is that of the reference");
  EXPECT_TRUE(against_original({.format = "fp4"}).verdict.starts_with("measurably worse: perplexity changes by +"));
  const EvaluateReport int8 = against_original({.format = "int8"});
  EXPECT_TRUE(int8.verdict.starts_with("indistinguishable at this sample size: ")) << int8.verdict;
}

TEST(Evaluate, FewChunksAreCutIntoBlocks) {
  const EvaluateOptions options{.context = 512, .max_tokens = 512};
  const EvaluateReport r = evaluate(tiny(), nullptr, evaluation_chunks(tiny(), heldout(), options), options);
  EXPECT_EQ(r.chunks, 1);
  EXPECT_EQ(r.blocks, 15);  // of 34 positions; 16 would be shorter than 32
  EXPECT_LT(find_figure(r.figures, "perplexity")->low, r.perplexity);
  const EvaluateReport tiny_text = evaluate(tiny(), nullptr, {{1, 2, 3, 4}});
  EXPECT_TRUE(std::isnan(find_figure(tiny_text.figures, "perplexity")->low));
}

TEST(Evaluate, StretchesCoverTheChunk) {
  const EvaluateReport r = against_original({.format = "nf4"});
  ASSERT_EQ(r.by_position.size(), 32u);
  EXPECT_EQ(r.by_position.front().first, 0);
  EXPECT_EQ(r.by_position.back().last, 127);
  double kl = 0, count = 0;
  for (const auto& s : r.by_position) {
    const auto scored = static_cast<double>(s.last - std::max<int64_t>(s.first, 1) + 1);
    kl += s.kl_mean * scored;
    count += scored;
  }
  EXPECT_NEAR(kl / count, r.kl_mean, 1e-12);
  EXPECT_GT(r.by_position.front().perplexity, r.by_position.back().perplexity);
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
