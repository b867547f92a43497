#include "tasks/evaluate_scoring.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/parallel.h"
#include "ops/linear.h"
#include "ops/linear_observer.h"

namespace nibble {
namespace {

size_t argmax(std::span<const float> x) {
  return static_cast<size_t>(std::max_element(x.begin(), x.end()) - x.begin());
}

double log_sum_exp(std::span<const float> x) {
  const float largest = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const float value : x) sum += static_cast<double>(std::exp(value - largest));  // NaN stays NaN
  return std::isfinite(largest) && std::isfinite(sum) ? largest + std::log(sum)
                                                      : std::numeric_limits<double>::quiet_NaN();
}

bool all_finite(const Tensor& values) {
  const std::span<const float> x(values.f32(), static_cast<size_t>(values.count()));
  return std::all_of(x.begin(), x.end(), [](float value) { return std::isfinite(value); });
}

std::span<const float> row(const Tensor& logits, int64_t r) {
  return {logits.f32() + r * logits.cols(), static_cast<size_t>(logits.cols())};
}

}  // namespace

LogSoftmax::LogSoftmax(std::span<const float> values) : logits(values), sum(log_sum_exp(values)) {}

double kl_divergence(const LogSoftmax& reference, const LogSoftmax& model) {
  double kl = 0;
  for (size_t id = 0; id < model.logits.size(); ++id) {
    const double log_p = reference(id);
    if (std::isinf(log_p)) continue;
    kl += std::exp(log_p) * (log_p - model(id));
  }
  return std::isnan(kl) ? kl : std::max(kl, 0.0);
}

void score_rows(const ScoredRows& rows, std::vector<Position>& positions) {
  const size_t begin_at = positions.size();
  positions.resize(begin_at + static_cast<size_t>(rows.logits.rows()));
  parallel_for(rows.logits.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      Position& p = positions[begin_at + static_cast<size_t>(r)];
      p.chunk = rows.chunk;
      p.place = static_cast<int32_t>(rows.first + r);
      const auto target = static_cast<size_t>(rows.targets[static_cast<size_t>(r)]);
      const LogSoftmax model(row(rows.logits, r));
      p.nll = -model(target);
      if (rows.reference.empty()) continue;
      const LogSoftmax reference(row(rows.reference, r));
      p.reference_nll = -reference(target);
      p.kl = kl_divergence(reference, model);
      p.delta_p = std::exp(-p.nll) - std::exp(-p.reference_nll);
      p.same_top1 = argmax(model.logits) == argmax(reference.logits);
    }
  });
}

std::string find_nonfinite(const std::function<void()>& pass) {
  std::string found;
  const LinearObserver observer([&](const LinearCall& call) {
    if (!found.empty()) return;
    if (!all_finite(call.x)) {
      found = "in front of " + call.layer.name + " (its input)";
    } else if (!all_finite(call.y)) {
      found = "in the output of " + call.layer.name;
    }
  });
  pass();
  return found;
}

}  // namespace nibble
