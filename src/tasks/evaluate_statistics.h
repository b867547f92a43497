#pragma once
// Figures with intervals: the bootstrap over blocks of a sample, quantiles, and the sentence that sums a comparison up.
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "nibble/evaluate.h"
#include "tasks/evaluate_scoring.h"

namespace nibble {

/// Fills `out`, a number per figure, for a sample in which block b counts weights[b] times.
using FigureValues = std::function<void(std::span<const int32_t> weights, std::span<double> out)>;

/// The figures of the sample, each with its 95 % interval: percentiles over resamples of whole blocks, so that what
/// depends on each other inside a block does no harm, widened for a small number of blocks. Fewer than five blocks give
/// no intervals. The same seed gives the same intervals.
std::vector<Figure> with_intervals(const std::vector<std::string>& names, int64_t blocks, const FigureValues& values,
                                   uint64_t seed);

/// A figure without an interval.
Figure plain_figure(const std::string& name, double value);

/// Values of a sample with the block that each belongs to, sorted once, for quantiles of many resamples.
class WeightedQuantiles {
 public:
  void add(double value, int32_t block) { values_.emplace_back(value, block); }
  void sort();
  /// Linear between neighbours, as NumPy's default. @param shares  rising, 0 to 1
  void at(std::span<const double> shares, std::span<const int32_t> weights, std::span<double> out) const;
  double smallest() const { return values_.front().first; }
  double largest() const { return values_.back().first; }

 private:
  std::vector<std::pair<double, int32_t>> values_;
};

/// What a verdict speaks of.
struct VerdictWords {
  std::string what;  // "perplexity"
  double sign;       // of the change of `what` when something is lost
  std::string unit;  // of the change times 100: " %", " points"
};
/// "measurably worse: perplexity changes by +25.2 % (95 % interval +23.9 % to +26.4 %)" and its like.
/// @param loss  above 0 is worse
std::string verdict_on(const Figure& loss, const VerdictWords& words);

/// Fills a report whose context and has_reference are set from what was scored.
void summarize(const std::vector<Position>& positions, uint64_t seed, EvaluateReport& report);

/// Adds what the head costs to a report that summarize() has filled. positions: the same, the model with the head that
/// its files have as the reference.
void add_head_cost(const std::vector<Position>& positions, uint64_t seed, EvaluateReport& report);

/// The standard normal distribution's share below x, and Student's 97.5 % quantile for so many degrees of freedom.
double normal_share(double x);
double student_975(int64_t degrees);

}  // namespace nibble
