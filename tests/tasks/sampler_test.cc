// Choosing ids. Distributions are drawn with fixed seeds and compared with the exact probabilities.
#include "tasks/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "support/files.h"

namespace nibble {
namespace {

using test::expect_error;

constexpr int kDraws = 40'000;
/// Five standard deviations of a binomial count: a right sampler fails once in 1.7 million comparisons, and the seeds
/// are fixed.
constexpr double kDeviations = 5;

std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

std::vector<int32_t> draw(const std::vector<float>& logits, const GenerateOptions& options, int count) {
  Sampler sampler(options);
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) {
    std::vector<float> row = logits;
    ids.push_back(sampler.next(row, {}));
  }
  return ids;
}

int32_t greedy(std::vector<float> logits, const std::vector<int32_t>& seen, float penalty) {
  const GenerateOptions options{.repeat_penalty = penalty};
  return Sampler(options).next(logits, seen);
}

void expect_distribution(const std::vector<float>& logits, const GenerateOptions& options,
                         const std::vector<double>& probabilities) {
  std::vector<int> counts(logits.size());
  for (const int32_t id : draw(logits, options, kDraws)) ++counts[static_cast<size_t>(id)];
  for (size_t i = 0; i < counts.size(); ++i) {
    const double p = probabilities[i];
    EXPECT_NEAR(counts[i], kDraws * p, kDeviations * std::sqrt(kDraws * p * (1 - p))) << "id " << i;
  }
}

std::set<int32_t> support_of(const std::vector<double>& probabilities, const GenerateOptions& options) {
  const std::vector<int32_t> ids = draw(logits_of(probabilities), options, 2000);
  return {ids.begin(), ids.end()};
}

const std::vector<double> kFour = {0.15, 0.5, 0.05, 0.3};

TEST(Sampler, TemperatureZeroTakesTheLikeliestAndTheFirstOfEquals) {
  EXPECT_EQ(greedy({1, 3, 3, 2}, {}, 1.0f), 1);
  EXPECT_EQ(greedy({-5, -3, -1}, {}, 1.0f), 2);
}

TEST(Sampler, DrawsFromTheSoftmax) { expect_distribution(logits_of(kFour), {.temperature = 1.0f, .seed = 1}, kFour); }

TEST(Sampler, TemperatureSharpensAndFlattens) {
  for (const float temperature : {0.5f, 2.0f}) {
    std::vector<double> expected;
    double total = 0;
    for (const double p : kFour) total += std::pow(p, 1 / temperature);
    for (const double p : kFour) expected.push_back(std::pow(p, 1 / temperature) / total);
    expect_distribution(logits_of(kFour), {.temperature = temperature, .seed = 2}, expected);
  }
}

TEST(Sampler, TopKKeepsTheKLikeliest) {
  expect_distribution(logits_of(kFour), {.temperature = 1.0f, .top_k = 2, .seed = 3}, {0, 0.625, 0, 0.375});
  EXPECT_EQ(support_of(kFour, {.temperature = 1.0f, .top_k = 1}), std::set<int32_t>({1}));
  EXPECT_EQ(support_of(kFour, {.temperature = 1.0f, .top_k = 9}).size(), 4u);
  // Of equals the smaller ids stay.
  EXPECT_EQ(support_of({0.25, 0.25, 0.25, 0.25}, {.temperature = 1.0f, .top_k = 2}), std::set<int32_t>({0, 1}));
}

TEST(Sampler, TopPKeepsTheFewestThatReachP) {
  struct Row {
    float top_p;
    std::set<int32_t> kept;
  };
  const std::vector<Row> rows = {{0.01f, {1}},    {0.49f, {1}},       {0.51f, {1, 3}},
                                 {0.79f, {1, 3}}, {0.81f, {0, 1, 3}}, {0.96f, {0, 1, 2, 3}}};
  for (const Row& row : rows) {
    EXPECT_EQ(support_of(kFour, {.temperature = 1.0f, .top_p = row.top_p}), row.kept) << row.top_p;
  }
  expect_distribution(logits_of(kFour), {.temperature = 1.0f, .top_p = 0.6f, .seed = 4}, {0, 0.625, 0, 0.375});
}

TEST(Sampler, MinPIsRelativeToTheLikeliest) {
  EXPECT_EQ(support_of(kFour, {.temperature = 1.0f, .min_p = 0.09f}).size(), 4u);
  EXPECT_EQ(support_of(kFour, {.temperature = 1.0f, .min_p = 0.25f}), std::set<int32_t>({0, 1, 3}));
  EXPECT_EQ(support_of(kFour, {.temperature = 1.0f, .min_p = 0.5f}), std::set<int32_t>({1, 3}));
  // At temperature 2 the likelihoods are the square roots: 0.3 / 0.5 becomes 0.77, 0.15 / 0.5 becomes 0.55.
  EXPECT_EQ(support_of(kFour, {.temperature = 2.0f, .min_p = 0.7f}), std::set<int32_t>({1, 3}));
  EXPECT_EQ(support_of(kFour, {.temperature = 2.0f, .min_p = 0.5f}), std::set<int32_t>({0, 1, 3}));
}

// As transformers: min_p looks at what top_p keeps of the whole, and not the other way round.
TEST(Sampler, MinPComesBehindTopP) {
  // min_p alone keeps 0.5, 0.3 and 0.15, of which 0.8 / 0.95 would be enough for a top_p of 0.81.
  EXPECT_EQ(support_of(kFour, {.temperature = 1.0f, .top_p = 0.81f, .min_p = 0.25f}), std::set<int32_t>({0, 1, 3}));
  EXPECT_EQ(support_of(kFour, {.temperature = 1.0f, .top_p = 0.81f, .min_p = 0.4f}), std::set<int32_t>({1, 3}));
  EXPECT_EQ(support_of(kFour, {.temperature = 1.0f, .top_k = 3, .top_p = 0.7f, .min_p = 0.7f}), std::set<int32_t>({1}));
  expect_distribution(logits_of(kFour), {.temperature = 1.0f, .top_p = 0.81f, .min_p = 0.4f, .seed = 5},
                      {0, 0.625, 0, 0.375});
}

TEST(Sampler, RepeatPenaltyCountsAnIdOnce) {
  EXPECT_EQ(greedy({2.0f, 1.9f}, {}, 1.1f), 0);
  EXPECT_EQ(greedy({2.0f, 1.9f}, {0}, 1.1f), 1);        // 2 / 1.1 = 1.82
  EXPECT_EQ(greedy({2.0f, 1.7f}, {0, 0, 0}, 1.1f), 0);  // 1.82 still, not 2 / 1.1^3 = 1.50
  EXPECT_EQ(greedy({-1.0f, -1.05f}, {0}, 1.1f), 1);     // negative ones are multiplied: -1.1
  EXPECT_EQ(greedy({2.0f, 1.9f, 0.5f}, {0, 1}, 5), 2);  // 0.4, 0.38
  EXPECT_EQ(greedy({2.0f, 1.9f}, {1}, 0.5f), 1);        // below 1 it attracts: 3.8
}

TEST(Sampler, TheSeedDecidesEverything) {
  const std::vector<float> logits(512, 0.0f);
  const std::vector<int32_t> one = draw(logits, {.temperature = 1.0f, .seed = 7}, 200);
  EXPECT_EQ(draw(logits, {.temperature = 1.0f, .seed = 7}, 200), one);
  EXPECT_NE(draw(logits, {.temperature = 1.0f, .seed = 8}, 200), one);
}

TEST(Sampler, ImpossibleIdsAreNeverDrawn) {
  std::vector<float> logits(64, -INFINITY);
  logits[63] = 0;
  logits[5] = 0;
  const std::vector<int32_t> ids = draw(logits, {.temperature = 1.0f}, 500);
  EXPECT_EQ(std::set<int32_t>(ids.begin(), ids.end()), std::set<int32_t>({5, 63}));
}

TEST(Sampler, RefusesLogitsThatAreNotNumbers) {
  for (const float temperature : {0.0f, 1.0f}) {
    const GenerateOptions options{.temperature = temperature};
    std::vector<float> logits = {1, NAN, 2};
    expect_error(ErrorCode::format, "NaN", [&] { Sampler(options).next(logits, {}); });
  }
}

TEST(Sampler, RefusesOptionsOutOfRange) {
  struct Row {
    const char* name;
    GenerateOptions options;
  };
  const std::vector<Row> rows = {{"temperature", {.temperature = -0.1f}},
                                 {"temperature", {.temperature = INFINITY}},
                                 {"temperature", {.temperature = NAN}},
                                 {"top_k", {.top_k = -1}},
                                 {"top_p", {.top_p = 0}},
                                 {"top_p", {.top_p = 1.01f}},
                                 {"min_p", {.min_p = 1}},
                                 {"min_p", {.min_p = -0.1f}},
                                 {"repeat_penalty", {.repeat_penalty = 0}},
                                 {"repeat_penalty", {.repeat_penalty = INFINITY}}};
  for (const Row& row : rows) {
    expect_error(ErrorCode::invalid_argument, row.name, [&] { Sampler sampler(row.options); });
  }
}

}  // namespace
}  // namespace nibble
