#include "tasks/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "kernels/kernels.h"

namespace nibble {
namespace {

void require(bool ok, const char* what) {
  if (!ok) fail(ErrorCode::invalid_argument, what);
}

}  // namespace

Sampler::Sampler(const GenerateOptions& options) : options_(options), random_(options.seed) {
  require(options.temperature >= 0 && std::isfinite(options.temperature), "temperature: expected a number >= 0");
  require(options.top_k >= 0, "top_k: expected an integer >= 0");
  require(options.top_p > 0 && options.top_p <= 1, "top_p: expected a number above 0 and at most 1");
  require(options.min_p >= 0 && options.min_p < 1, "min_p: expected a number from 0 to below 1");
  require(options.repeat_penalty > 0 && std::isfinite(options.repeat_penalty),
          "repeat_penalty: expected a number above 0");
}

// CTRL, arXiv 1909.05858, as transformers applies it: each id once, however often it was seen.
void Sampler::penalize(std::span<float> logits, std::span<const int32_t> seen) {
  if (options_.repeat_penalty == 1.0f) return;
  penalized_.assign(logits.size(), false);
  for (const int32_t id : seen) {
    const auto i = static_cast<size_t>(id);
    if (penalized_[i]) continue;
    penalized_[i] = true;
    logits[i] = logits[i] > 0 ? logits[i] / options_.repeat_penalty : logits[i] * options_.repeat_penalty;
  }
}

/// Fills candidates_ with what top_k leaves, likeliest first as far as top_p needs it. min_p thins them out here where
/// that changes nothing; top_p's share is one of what there was before min_p.
void Sampler::keep_likeliest(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  const bool early = options_.min_p > 0 && options_.top_p == 1.0f;
  const float floor = early ? largest + std::log(options_.min_p) * options_.temperature : -INFINITY;
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] >= floor) candidates_.push_back({static_cast<int32_t>(i), logits[i]});
  }
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
  };
  const auto k = static_cast<size_t>(options_.top_k);
  if (k > 0 && k < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<int64_t>(k) - 1, candidates_.end(),
                     likelier);
    candidates_.resize(k);
  }
  if (options_.top_p < 1.0f || options_.top_k > 0) std::sort(candidates_.begin(), candidates_.end(), likelier);
}

int32_t Sampler::next(std::span<float> logits, std::span<const int32_t> seen) {
  const auto count = static_cast<int64_t>(logits.size());
  if (std::isnan(kernels().absmax(logits.data(), count))) {
    fail(ErrorCode::format,
         "the model predicts NaN: its weights hold values that are not finite ('nibble quantize' lists them), or a "
         "computation overflowed (a cache in fp16 holds values up to 65504: kv_dtype fp32 or bf16 holds more)");
  }
  penalize(logits, seen);
  if (options_.temperature == 0.0f) {
    const float largest = kernels().extent(logits.data(), count).high;
    return static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
  }
  keep_likeliest(logits);
  float largest = -INFINITY;
  for (const Candidate& c : candidates_) largest = std::max(largest, c.logit);
  std::vector<double> weights(candidates_.size());
  double total = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    total += weights[i] = std::exp(static_cast<double>(candidates_[i].logit - largest) / options_.temperature);
  }
  if (options_.top_p < 1.0f) {  // candidates are sorted: cut after the one that reaches p
    double sum = 0;
    size_t kept = 0;
    while (kept < weights.size() && sum < options_.top_p * total) sum += weights[kept++];
    weights.resize(kept);
    while (weights.back() < options_.min_p) weights.pop_back();  // the first is 1
    total = std::accumulate(weights.begin(), weights.end(), 0.0);
  }
  // 53 random bits, so that the sequence is the same with every standard library.
  double target = static_cast<double>(random_() >> 11) * 0x1p-53 * total;
  for (size_t i = 0; i < weights.size(); ++i) {
    target -= weights[i];
    if (target < 0) return candidates_[i].id;
  }
  return candidates_[weights.size() - 1].id;
}

}  // namespace nibble
