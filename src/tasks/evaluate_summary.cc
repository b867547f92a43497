// From scored positions to the figures of a report.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "tasks/evaluate_scoring.h"
#include "tasks/evaluate_statistics.h"

namespace nibble {
namespace {

// Texts change their subject slowly, so the unit of the bootstrap is a chunk. A few chunks are cut into pieces, of at
// least so many positions: a piece must be long compared with the reach of a sentence.
constexpr int64_t kWantedBlocks = 16, kFewestPositions = 32;
constexpr int64_t kStretches = 32;  // of a chunk, for the figures by position

constexpr std::array<double, 7> kKlShares = {0.01, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999};
constexpr std::array<const char*, 7> kKlNames = {"kl_p1", "kl_p10", "kl_p50", "kl_p90", "kl_p95", "kl_p99", "kl_p99_9"};
// Those that llama.cpp's perplexity tool prints.
constexpr std::array<double, 11> kDeltaShares = {0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999};
constexpr std::array<const char*, 11> kDeltaNames = {"delta_p_p0_1", "delta_p_p1",  "delta_p_p5",   "delta_p_p10",
                                                     "delta_p_p25",  "delta_p_p50", "delta_p_p75",  "delta_p_p90",
                                                     "delta_p_p95",  "delta_p_p99", "delta_p_p99_9"};

/// The block of each position, numbered from 0. Positions of a chunk follow each other.
std::vector<int32_t> blocks_of(const std::vector<Position>& positions) {
  std::map<int32_t, int64_t> sizes;
  for (const Position& p : positions) ++sizes[p.chunk];
  const auto chunks = static_cast<int64_t>(sizes.size());
  std::vector<int32_t> blocks;
  int32_t next = 0;
  for (const auto& [chunk, size] : sizes) {
    const int64_t wanted = (kWantedBlocks + chunks - 1) / chunks;
    const int64_t pieces = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, size / kFewestPositions));
    for (int64_t i = 0; i < size; ++i) blocks.push_back(next + static_cast<int32_t>(i * pieces / size));
    next += static_cast<int32_t>(pieces);
  }
  return blocks;
}

struct Sums {
  double count = 0, nll = 0, reference_nll = 0, kl = 0, same_top1 = 0, delta_p = 0, delta_p_squared = 0;

  void add(const Sums& other, double weight) {
    count += weight * other.count;
    nll += weight * other.nll;
    reference_nll += weight * other.reference_nll;
    kl += weight * other.kl;
    same_top1 += weight * other.same_top1;
    delta_p += weight * other.delta_p;
    delta_p_squared += weight * other.delta_p_squared;
  }
};

Sums sums_of(const Position& p) {
  return {.count = 1,
          .nll = p.nll,
          .reference_nll = p.reference_nll,
          .kl = p.kl,
          .same_top1 = p.same_top1 ? 1.0 : 0.0,
          .delta_p = p.delta_p,
          .delta_p_squared = p.delta_p * p.delta_p};
}

const std::vector<std::string> kAlone = {"perplexity"};
const std::vector<std::string> kCompared = {"perplexity",     "reference_perplexity", "perplexity_increase", "kl_mean",
                                            "top1_agreement", "delta_p_mean",         "delta_p_rms"};

void figures_of(const Sums& s, std::span<double> out) {
  const double all[] = {std::exp(s.nll / s.count),
                        std::exp(s.reference_nll / s.count),
                        std::expm1((s.nll - s.reference_nll) / s.count),
                        s.kl / s.count,
                        s.same_top1 / s.count,
                        s.delta_p / s.count,
                        std::sqrt(s.delta_p_squared / s.count)};
  std::copy_n(all, out.size(), out.begin());
}

/// The mean figures, from sums per block.
std::vector<Figure> mean_figures(const std::vector<Position>& positions, const std::vector<int32_t>& blocks,
                                 const std::vector<std::string>& names, uint64_t seed) {
  const int64_t count = blocks.back() + 1;
  std::vector<Sums> sums(static_cast<size_t>(count));
  for (size_t i = 0; i < positions.size(); ++i) sums[static_cast<size_t>(blocks[i])].add(sums_of(positions[i]), 1);
  const auto values = [&](std::span<const int32_t> weights, std::span<double> out) {
    Sums total;
    for (size_t b = 0; b < sums.size(); ++b) total.add(sums[b], weights[b]);
    figures_of(total, out);
  };
  return with_intervals(names, count, values, seed);
}

template <size_t N>
void add_quantiles(const WeightedQuantiles& sample, const std::array<const char*, N>& names,
                   const std::array<double, N>& shares, uint64_t seed, EvaluateReport& report) {
  const auto values = [&](std::span<const int32_t> weights, std::span<double> out) { sample.at(shares, weights, out); };
  for (Figure& figure : with_intervals({names.begin(), names.end()}, report.blocks, values, seed)) {
    report.figures.push_back(std::move(figure));
  }
}

void add_all_quantiles(const std::vector<Position>& positions, const std::vector<int32_t>& blocks, uint64_t seed,
                       EvaluateReport& report) {
  WeightedQuantiles kl, delta_p;
  for (size_t i = 0; i < positions.size(); ++i) {
    kl.add(positions[i].kl, blocks[i]);
    delta_p.add(positions[i].delta_p, blocks[i]);
  }
  kl.sort();
  delta_p.sort();
  add_quantiles(kl, kKlNames, kKlShares, seed, report);
  report.figures.push_back(plain_figure("kl_max", kl.largest()));
  report.figures.push_back(plain_figure("delta_p_min", delta_p.smallest()));
  add_quantiles(delta_p, kDeltaNames, kDeltaShares, seed, report);
  report.figures.push_back(plain_figure("delta_p_max", delta_p.largest()));
}

std::vector<EvaluateReport::Stretch> by_position(const std::vector<Position>& positions, int64_t context) {
  const auto width = std::max<int64_t>(1, (context + kStretches - 1) / kStretches);
  std::map<int64_t, Sums> sums;
  for (const Position& p : positions) sums[p.place / width].add(sums_of(p), 1);
  std::vector<EvaluateReport::Stretch> out;
  for (const auto& [stretch, s] : sums) {
    out.push_back({.first = stretch * width,
                   .last = std::min(context, (stretch + 1) * width) - 1,
                   .perplexity = std::exp(s.nll / s.count),
                   .reference_perplexity = std::exp(s.reference_nll / s.count),
                   .kl_mean = s.kl / s.count});
  }
  return out;
}

double value_of(const EvaluateReport& report, const char* name) { return find_figure(report.figures, name)->value; }

}  // namespace

void summarize(const std::vector<Position>& positions, uint64_t seed, EvaluateReport& report) {
  const std::vector<int32_t> blocks = blocks_of(positions);
  report.tokens = static_cast<int64_t>(positions.size());
  report.blocks = blocks.back() + 1;
  report.figures = mean_figures(positions, blocks, report.has_reference ? kCompared : kAlone, seed);
  report.by_position = by_position(positions, report.context);
  report.perplexity = value_of(report, "perplexity");
  if (!report.has_reference) return;
  add_all_quantiles(positions, blocks, seed, report);
  report.reference_perplexity = value_of(report, "reference_perplexity");
  report.kl_mean = value_of(report, "kl_mean");
  report.kl_p50 = value_of(report, "kl_p50");
  report.kl_p90 = value_of(report, "kl_p90");
  report.kl_p99 = value_of(report, "kl_p99");
  report.kl_max = value_of(report, "kl_max");
  report.top1_agreement = value_of(report, "top1_agreement");
  report.verdict = report.kl_max == 0 ? "identical: every prediction is that of the reference"
                                      : verdict_on(*find_figure(report.figures, "perplexity_increase"),
                                                   {.what = "perplexity", .sign = 1, .unit = " %"});
}

void add_head_cost(const std::vector<Position>& positions, uint64_t seed, EvaluateReport& report) {
  const std::vector<Figure> figures = mean_figures(positions, blocks_of(positions), kCompared, seed);
  for (const char* name : {"perplexity_increase", "kl_mean", "top1_agreement"}) {
    Figure figure = *find_figure(figures, name);
    figure.name = "head_" + figure.name;
    report.figures.push_back(std::move(figure));
  }
}

}  // namespace nibble
