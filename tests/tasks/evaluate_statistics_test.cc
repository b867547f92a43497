// The bootstrap against its own promise, quantiles against the sample written out, percentiles against tables.
#include "tasks/evaluate_statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace nibble {
namespace {

TEST(Statistics, StudentsQuantilesAreThoseOfTheTables) {
  // Any table of the t distribution, two-sided 95 %.
  const std::pair<int64_t, double> rows[] = {{4, 2.7764}, {5, 2.5706}, {9, 2.2622}, {15, 2.1314}, {30, 2.0423}};
  for (const auto& [degrees, value] : rows) EXPECT_NEAR(student_975(degrees) / value, 1, 0.005) << degrees;
  EXPECT_NEAR(student_975(100000), 1.95996, 1e-4);
  EXPECT_NEAR(normal_share(-1.959964), 0.025, 1e-7);
  EXPECT_EQ(normal_share(0), 0.5);
}

TEST(Statistics, QuantilesOfAResampleAreThoseOfItsMembers) {
  std::mt19937 random(5);
  std::vector<std::pair<double, int32_t>> sample;
  WeightedQuantiles quantiles;
  for (int32_t i = 0; i < 57; ++i) {
    sample.emplace_back(static_cast<double>(random() % 20) / 7, i % 6);  // with equal values
    quantiles.add(sample.back().first, sample.back().second);
  }
  quantiles.sort();
  const std::vector<double> shares = {0, 0.01, 0.1, 0.25, 0.5, 0.77, 0.9, 0.999, 1};
  for (const std::vector<int32_t>& weights :
       {std::vector<int32_t>{1, 1, 1, 1, 1, 1}, {0, 3, 0, 1, 2, 0}, {0, 0, 0, 0, 0, 6}, {2, 0, 0, 0, 0, 4}}) {
    std::vector<double> members;
    for (const auto& [value, block] : sample) {
      members.insert(members.end(), static_cast<size_t>(weights[static_cast<size_t>(block)]), value);
    }
    std::sort(members.begin(), members.end());
    std::vector<double> found(shares.size());
    quantiles.at(shares, weights, found);
    for (size_t i = 0; i < shares.size(); ++i) {
      const double at = shares[i] * static_cast<double>(members.size() - 1);
      const auto low = static_cast<size_t>(at), high = std::min(low + 1, members.size() - 1);
      EXPECT_NEAR(found[i], members[low] + (at - static_cast<double>(low)) * (members[high] - members[low]), 1e-12)
          << shares[i];
    }
  }
  EXPECT_EQ(quantiles.smallest(), std::min_element(sample.begin(), sample.end())->first);
}

std::vector<Figure> mean_of(const std::vector<double>& values, uint64_t seed) {
  return with_intervals(
      {"mean"}, static_cast<int64_t>(values.size()),
      [&](std::span<const int32_t> weights, std::span<double> out) {
        out[0] = 0;
        for (size_t i = 0; i < values.size(); ++i) out[0] += weights[i] * values[i];
        out[0] /= static_cast<double>(values.size());
      },
      seed);
}

// The interval has to hold the truth in about 95 of 100 samples, also for samples as small as ours are.
TEST(Statistics, IntervalsCoverTheTruthAsOftenAsTheyPromise) {
  std::mt19937_64 random(11);
  std::normal_distribution<double> normal(3, 2);
  for (const size_t blocks : {8u, 16u, 40u}) {
    int held = 0;
    constexpr int kSamples = 400;
    for (int s = 0; s < kSamples; ++s) {
      std::vector<double> values(blocks);
      for (double& value : values) value = normal(random);
      const Figure mean = mean_of(values, static_cast<uint64_t>(s))[0];
      held += mean.low <= 3 && 3 <= mean.high;
    }
    // Three standard errors of a share of 0.95 in 400 are 0.033.
    EXPECT_NEAR(held / static_cast<double>(kSamples), 0.95, 0.033) << blocks << " blocks";
  }
}

TEST(Statistics, TooFewBlocksHaveNoInterval) {
  EXPECT_TRUE(std::isnan(mean_of({1, 2, 3, 4}, 0)[0].low));
  EXPECT_EQ(mean_of({1, 2, 3, 4}, 0)[0].value, 2.5);
  EXPECT_FALSE(std::isnan(mean_of({1, 2, 3, 4, 5}, 0)[0].low));
}

TEST(Statistics, VerdictsSayWhatTheIntervalSays) {
  const VerdictWords perplexity = {.what = "perplexity", .sign = 1, .unit = " %"};
  const VerdictWords accuracy = {.what = "accuracy", .sign = -1, .unit = " points"};
  EXPECT_EQ(verdict_on({"", 0.25, 0.24, 0.26}, perplexity),
            "measurably worse: perplexity changes by +25.00 % (95 % interval +24.00 % to +26.00 %)");
  EXPECT_EQ(verdict_on({"", 0.001, -0.002, 0.004}, perplexity),
            "indistinguishable at this sample size: perplexity changes by +0.10 % (95 % interval -0.20 % to +0.40 %)");
  EXPECT_EQ(verdict_on({"", 0.02, 0.01, 0.03}, accuracy),
            "measurably worse: accuracy changes by -2.00 points (95 % interval -3.00 points to -1.00 points)");
  EXPECT_EQ(verdict_on({"", -0.02, -0.03, -0.01}, accuracy),
            "measurably better: accuracy changes by +2.00 points (95 % interval +1.00 points to +3.00 points)");
  EXPECT_EQ(verdict_on(plain_figure("", 0.5), perplexity),
            "too few data for a verdict: perplexity changes by +50.00 %");
}

}  // namespace
}  // namespace nibble
