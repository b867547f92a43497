// A real model, when it is there, against transformers in float32: perplexity of an NF4 model chunk by chunk, and the
// answers to the first questions of three public sets.
#include <gtest/gtest.h>

#include <cmath>

#include "nibble/evaluate.h"
#include "nibble/evaluate_choices.h"
#include "support/goldens.h"
#include "support/real_models.h"

namespace nibble {
namespace {

using namespace nibble::test;

constexpr const char* kExpected = "real/expected/smollm2-135m.json";

class RealEvaluate : public ::testing::Test {
 protected:
  void SetUp() override {
    NIBBLE_NEED_SHARED(kExpected);
    if (!std::filesystem::exists(folder())) GTEST_SKIP() << "no real model in " << real_models();
    expected_ = shared_json(kExpected);
  }
  static std::filesystem::path folder() { return real_models() / "smollm2-135m"; }
  static CausalLM model(const LoadModelOptions& options = {}) {
    return AutoModelForCausalLM::from_pretrained(folder().string(), options);
  }
  const Json& at(std::initializer_list<const char*> keys) const {
    const Json* value = &expected_;
    for (const char* key : keys) value = value->find(key);
    return *value;
  }
  /// exp of the mean over the first chunks.
  double perplexity(const char* variant, size_t chunks) const {
    const auto& nll = at({"anchor_losses", variant, "wikitext2", "chunk_mean_nll"}).as_array("nll");
    double sum = 0;
    for (size_t i = 0; i < chunks; ++i) sum += nll[i].as_double("nll");
    return std::exp(sum / static_cast<double>(chunks));
  }
  Json expected_;
};

TEST_F(RealEvaluate, PerplexityAndKlOfNf4) {
  const EvaluateOptions options{.max_tokens = 4 * 512};
  const CausalLM original = model();
  const std::string text = read_file(shared_folder() / "real/data/wikitext2/valid_tokenised.txt");
  const auto chunks = evaluation_chunks(original, text, options);
  ASSERT_EQ(chunks.size(), 4u);
  const EvaluateReport report = evaluate(model({.format = "nf4", .activations = "fp32"}), &original, chunks, options);
  EXPECT_NEAR(report.reference_perplexity / perplexity("fp32", 4), 1, 2e-4);
  EXPECT_NEAR(report.perplexity / perplexity("nf4", 4), 1, 2e-4);
  EXPECT_NEAR(report.kl_mean, 0.2700, 0.0005);  // no outside figure for these four; all 16 chunks have 0.2260
  EXPECT_TRUE(report.verdict.starts_with("measurably worse: perplexity changes by +35.")) << report.verdict;
}

TEST_F(RealEvaluate, AnswersToQuestions) {
  const CausalLM original = model();
  for (const char* set : {"piqa", "arc_easy"}) {
    const ChoiceTask task =
        read_choice_task((shared_folder() / "real/data/eval" / (std::string(set) + ".jsonl")).string(), 25);
    const ChoiceReport report = evaluate_choices(original, nullptr, task);
    const auto& sums = at({set, "sum_logprob"}).as_array("sums");
    for (size_t q = 0; q < 25; ++q) {
      const auto& row = sums[q].as_array("row");
      double best = -INFINITY;
      for (const Json& sum : row) best = std::max(best, sum.as_double("sum"));
      const double chosen = row[static_cast<size_t>(report.answers[q])].as_double("sum");
      EXPECT_NEAR(chosen, best, 0.01) << set << " question " << q + 1;
    }
  }
}

TEST_F(RealEvaluate, LastWordsOfLambada) {
  const ChoiceTask task = read_choice_task((shared_folder() / "real/data/eval/lambada_openai.jsonl").string(), 40);
  const ChoiceReport report = evaluate_choices(model(), nullptr, task);
  double nll = 0;
  for (size_t i = 0; i < 40; ++i) {
    EXPECT_EQ(report.answers[i], at({"lambada", "correct"}).as_array("correct")[i].as_int("correct")) << i;
    nll += at({"lambada", "nll"}).as_array("nll")[i].as_double("nll");
  }
  EXPECT_NEAR(find_figure(report.figures, "perplexity")->value / std::exp(nll / 40), 1, 1e-3);
}

}  // namespace
}  // namespace nibble
