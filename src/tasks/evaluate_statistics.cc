#include "tasks/evaluate_statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace nibble {
namespace {

constexpr int64_t kResamples = 1000;
constexpr int64_t kFewestBlocks = 5;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// The share of resamples left out on each side. Plain 2.5 % are too few for small samples, whose resamples spread less
/// than samples do. Source: Hesterberg, "What teachers should know about the bootstrap", arXiv 1411.5279, the expanded
/// percentile interval.
double tail_share(int64_t blocks) {
  const auto n = static_cast<double>(blocks);
  return normal_share(-std::sqrt(n / (n - 1)) * student_975(blocks - 1));
}

double quantile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (at - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

/// How often each block is drawn when as many are drawn as there are.
void draw(std::mt19937_64& random, std::vector<int32_t>& weights) {
  std::fill(weights.begin(), weights.end(), 0);
  for (size_t i = 0; i < weights.size(); ++i) ++weights[static_cast<size_t>(random() % weights.size())];
}

}  // namespace

double normal_share(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

double student_975(int64_t degrees) {
  // Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5); within 0.5 % from 4 degrees of freedom on.
  constexpr double z = 1.959963984540054;
  const auto v = static_cast<double>(degrees);
  const double z3 = z * z * z, z5 = z3 * z * z, z7 = z5 * z * z;
  return z + (z3 + z) / (4 * v) + (5 * z5 + 16 * z3 + 3 * z) / (96 * v * v) +
         (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * v * v * v);
}

Figure plain_figure(const std::string& name, double value) {
  return {.name = name, .value = value, .low = kNan, .high = kNan};
}

const Figure* find_figure(const std::vector<Figure>& figures, const std::string& name) {
  for (const Figure& figure : figures) {
    if (figure.name == name) return &figure;
  }
  return nullptr;
}

std::vector<Figure> with_intervals(const std::vector<std::string>& names, int64_t blocks, const FigureValues& values,
                                   uint64_t seed) {
  std::vector<int32_t> weights(static_cast<size_t>(blocks), 1);
  std::vector<double> row(names.size());
  values(weights, row);
  std::vector<Figure> figures;
  for (size_t i = 0; i < names.size(); ++i) figures.push_back(plain_figure(names[i], row[i]));
  if (blocks < kFewestBlocks) return figures;

  std::mt19937_64 random(seed);
  std::vector<std::vector<double>> resampled(names.size());
  for (int64_t r = 0; r < kResamples; ++r) {
    draw(random, weights);
    values(weights, row);
    for (size_t i = 0; i < names.size(); ++i) resampled[i].push_back(row[i]);
  }
  const double tail = tail_share(blocks);
  for (size_t i = 0; i < names.size(); ++i) {
    std::sort(resampled[i].begin(), resampled[i].end());
    figures[i].low = quantile(resampled[i], tail);
    figures[i].high = quantile(resampled[i], 1 - tail);
  }
  return figures;
}

void WeightedQuantiles::sort() { std::sort(values_.begin(), values_.end()); }

void WeightedQuantiles::at(std::span<const double> shares, std::span<const int32_t> weights,
                           std::span<double> out) const {
  int64_t total = 0;
  for (const auto& [value, block] : values_) total += weights[static_cast<size_t>(block)];
  size_t next = 0;
  int64_t passed = 0;  // members of the resample before this value
  double before = kNan;
  for (const auto& [value, block] : values_) {
    const int32_t weight = weights[static_cast<size_t>(block)];
    if (weight == 0) continue;
    passed += weight;
    while (next < shares.size()) {
      const double at = shares[next] * static_cast<double>(total - 1);
      const double low = std::floor(at);
      if (std::ceil(at) > static_cast<double>(passed - 1)) break;
      // The member at `low` is this value too, or the one before when this value's first member is the upper neighbour.
      const double lower = low >= static_cast<double>(passed - weight) ? value : before;
      out[next++] = lower + (at - low) * (value - lower);
    }
    before = value;
  }
}

std::string verdict_on(const Figure& loss, const VerdictWords& words) {
  const auto change = [&](double value) { return fmt::format("{:+.2f}{}", 100 * words.sign * value, words.unit); };
  if (std::isnan(loss.low)) {
    return fmt::format("too few data for a verdict: {} changes by {}", words.what, change(loss.value));
  }
  const double ends[] = {words.sign * loss.low, words.sign * loss.high};
  const auto [low, high] = std::minmax(ends[0], ends[1]);
  const std::string interval = fmt::format("{} changes by {} (95 % interval {:+.2f}{} to {:+.2f}{})", words.what,
                                           change(loss.value), 100 * low, words.unit, 100 * high, words.unit);
  if (loss.low > 0) return "measurably worse: " + interval;
  if (loss.high < 0) return "measurably better: " + interval;
  return "indistinguishable at this sample size: " + interval;
}

}  // namespace nibble
