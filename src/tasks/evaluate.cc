// Perplexity, KL divergence and top-1 agreement, as docs/cli.md defines them.
#include "nibble/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "core/parallel.h"
#include "core/progress.h"
#include "kernels/kernels.h"
#include "tasks/loaded_model.h"

namespace nibble {
namespace {

constexpr int64_t kHeadRows = 64;  // positions whose logits exist at a time

/// What is known of one scored position.
struct Position {
  double nll = 0, reference_nll = 0, kl = 0;
  bool same_top1 = false;
};

size_t argmax(const float* x, int64_t count) { return static_cast<size_t>(std::max_element(x, x + count) - x); }

double log_sum_exp(const float* x, int64_t count) {
  const float largest = *std::max_element(x, x + count);
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(std::exp(x[i] - largest));
  return largest + std::log(sum);
}

/// KL(reference || model) in nats, from two rows of logits and their log-sums.
double kl_divergence(const float* reference, double reference_sum, const float* model, double model_sum,
                     int64_t count) {
  double kl = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double log_p = reference[i] - reference_sum;
    if (std::isinf(log_p)) continue;  // p = 0 contributes nothing
    kl += std::exp(log_p) * (log_p - (model[i] - model_sum));
  }
  return std::isnan(kl) ? INFINITY : std::max(kl, 0.0);  // a model that predicts NaN could not be further off
}

Position score(const float* model, const float* reference, int64_t vocab, int32_t target) {
  Position p;
  const double model_sum = log_sum_exp(model, vocab);
  p.nll = model_sum - model[target];
  if (reference == nullptr) return p;
  const double reference_sum = log_sum_exp(reference, vocab);
  p.reference_nll = reference_sum - reference[target];
  p.kl = kl_divergence(reference, reference_sum, model, model_sum, vocab);
  p.same_top1 = argmax(model, vocab) == argmax(reference, vocab);
  return p;
}

class Scorer {
 public:
  Scorer(const CausalLM& model, const CausalLM* reference)
      : model_(*model.internal().model), reference_(reference ? reference->internal().model.get() : nullptr) {}

  void score_chunk(const std::vector<int32_t>& ids) {
    const auto start = std::chrono::steady_clock::now();
    const Tensor hidden = model_.hidden({.ids = ids}, nullptr, nullptr);
    add_time(start);
    const Tensor reference_hidden = reference_ ? reference_->hidden({.ids = ids}, nullptr, nullptr) : Tensor();
    const auto scored = static_cast<int64_t>(ids.size()) - 1;  // the last position has nothing to predict
    for (int64_t t = 0; t < scored; t += kHeadRows) {
      const int64_t end = std::min(scored, t + kHeadRows);
      const auto head_start = std::chrono::steady_clock::now();
      const Tensor logits = model_.logits(hidden.slice_rows(t, end));
      add_time(head_start);
      const Tensor reference = reference_ ? reference_->logits(reference_hidden.slice_rows(t, end)) : Tensor();
      score_rows(logits, reference, std::span(ids).subspan(static_cast<size_t>(t) + 1));
    }
    ids_ += static_cast<int64_t>(ids.size());
  }

  const std::vector<Position>& positions() const { return positions_; }
  double tokens_per_second() const { return static_cast<double>(ids_) / std::max(seconds_, 1e-9); }

 private:
  void add_time(std::chrono::steady_clock::time_point start) {
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  void score_rows(const Tensor& logits, const Tensor& reference, std::span<const int32_t> targets) {
    const size_t first = positions_.size();
    const int64_t rows = logits.rows(), vocab = logits.cols();
    positions_.resize(first + static_cast<size_t>(rows));
    parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const float* reference_row = reference.empty() ? nullptr : reference.f32() + r * vocab;
        positions_[first + static_cast<size_t>(r)] =
            score(logits.f32() + r * vocab, reference_row, vocab, targets[static_cast<size_t>(r)]);
      }
    });
  }

  const Model& model_;
  const Model* reference_;
  std::vector<Position> positions_;
  int64_t ids_ = 0;
  double seconds_ = 0;
};

double quantile(const std::vector<double>& sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (at - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

void fill_report(const std::vector<Position>& positions, EvaluateReport& report) {
  const auto count = static_cast<double>(positions.size());
  double nll = 0, reference_nll = 0, same = 0;
  std::vector<double> kl;
  for (const Position& p : positions) {
    nll += p.nll;
    reference_nll += p.reference_nll;
    same += p.same_top1 ? 1 : 0;
    kl.push_back(p.kl);
  }
  report.tokens = static_cast<int64_t>(positions.size());
  report.perplexity = std::exp(nll / count);
  if (!report.has_reference) return;
  report.reference_perplexity = std::exp(reference_nll / count);
  report.top1_agreement = same / count;
  for (const double value : kl) report.kl_mean += value / count;
  std::sort(kl.begin(), kl.end());
  report.kl_p50 = quantile(kl, 0.5);
  report.kl_p90 = quantile(kl, 0.9);
  report.kl_p99 = quantile(kl, 0.99);
  report.kl_max = kl.back();
}

void check(const CausalLM& model, const CausalLM* reference, const std::vector<std::vector<int32_t>>& chunks) {
  if (reference && reference->vocab_size() != model.vocab_size()) {
    fail(ErrorCode::invalid_argument, "reference: has a vocabulary of " + std::to_string(reference->vocab_size()) +
                                          ", the model one of " + std::to_string(model.vocab_size()));
  }
  size_t longest = 0;
  for (const auto& chunk : chunks) {
    longest = std::max(longest, chunk.size());
    for (const int32_t id : chunk) {
      if (id < 0 || id >= model.vocab_size()) {
        fail(ErrorCode::invalid_argument,
             "token id " + std::to_string(id) + " is outside the vocabulary of " + std::to_string(model.vocab_size()));
      }
    }
  }
  if (longest < 2) fail(ErrorCode::invalid_argument, "nothing to score: at least two tokens are needed");
  if (static_cast<int64_t>(longest) > model.context_length()) {
    fail(ErrorCode::invalid_argument,
         "context: " + std::to_string(longest) + " is more than the model's " + std::to_string(model.context_length()));
  }
}

std::vector<std::vector<int32_t>> cut(std::span<const int32_t> ids, const EvaluateOptions& options,
                                      const std::vector<int32_t>& prefix) {
  const int64_t step = options.context - static_cast<int64_t>(prefix.size());
  if (step < 1) fail(ErrorCode::invalid_argument, "context: " + std::to_string(options.context) + " is too short");
  if (options.max_tokens > 0) ids = ids.first(std::min(ids.size(), static_cast<size_t>(options.max_tokens)));
  std::vector<std::vector<int32_t>> chunks;
  for (size_t at = 0; at < ids.size(); at += static_cast<size_t>(step)) {
    const size_t count = std::min(static_cast<size_t>(step), ids.size() - at);
    if (count < static_cast<size_t>(step) && !chunks.empty()) break;
    std::vector<int32_t> chunk = prefix;
    chunk.insert(chunk.end(), ids.begin() + static_cast<int64_t>(at), ids.begin() + static_cast<int64_t>(at + count));
    chunks.push_back(std::move(chunk));
  }
  return chunks;
}

}  // namespace

std::vector<std::vector<int32_t>> evaluation_chunks(const CausalLM& model, const std::string& text,
                                                    const EvaluateOptions& options) {
  const Tokenizer& tokenizer = model.internal().require_tokenizer();
  std::vector<int32_t> prefix;
  if (tokenizer.adds_bos() && tokenizer.special().bos) prefix.push_back(*tokenizer.special().bos);
  return cut(tokenizer.encode(text, {.add_special_tokens = false}), options, prefix);
}

std::vector<std::vector<int32_t>> evaluation_chunks(const std::vector<int32_t>& ids, const EvaluateOptions& options) {
  return cut(ids, options, {});
}

EvaluateReport evaluate(const CausalLM& model, const CausalLM* reference,
                        const std::vector<std::vector<int32_t>>& chunks, const EvaluateOptions& options) {
  check(model, reference, chunks);
  Scorer scorer(model, reference);
  EvaluateReport report;
  int64_t done = 0, total = 0;
  for (const auto& chunk : chunks) total += static_cast<int64_t>(chunk.size());
  for (const auto& chunk : chunks) {
    check_interrupt();
    if (chunk.size() >= 2) scorer.score_chunk(chunk);
    done += static_cast<int64_t>(chunk.size());
    if (options.progress) options.progress({.unit = "tokens", .done = done, .total = total});
  }
  report.chunks = static_cast<int64_t>(chunks.size());
  report.has_reference = reference != nullptr;
  fill_report(scorer.positions(), report);
  report.bytes = model.weight_bytes();
  report.reference_bytes = reference ? reference->weight_bytes() : 0;
  report.tokens_per_second = scorer.tokens_per_second();
  return report;
}

std::vector<std::string> EvaluateReport::failed_gates(const EvaluateGates& gates) const {
  std::vector<std::string> failed;
  if (gates.max_kl && !(kl_mean <= *gates.max_kl)) {
    failed.push_back(fmt::format("kl_mean {:.6g} is above max_kl {:.6g}", kl_mean, *gates.max_kl));
  }
  const double increase = perplexity / reference_perplexity - 1.0;
  if (gates.max_perplexity_increase && !(increase <= *gates.max_perplexity_increase)) {
    failed.push_back(fmt::format("perplexity rose by {:.6g}, above max_perplexity_increase {:.6g}", increase,
                                 *gates.max_perplexity_increase));
  }
  if (gates.min_top1 && !(top1_agreement >= *gates.min_top1)) {
    failed.push_back(fmt::format("top1_agreement {:.6g} is below min_top1 {:.6g}", top1_agreement, *gates.min_top1));
  }
  return failed;
}

}  // namespace nibble
