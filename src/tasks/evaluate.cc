// Perplexity, KL divergence and what else a text tells about a model, as docs/evaluation.md defines them.
#include "nibble/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>

#include "core/error.h"
#include "core/progress.h"
#include "tasks/evaluate_chunks.h"
#include "tasks/evaluate_reference.h"
#include "tasks/evaluate_scoring.h"
#include "tasks/evaluate_statistics.h"
#include "tasks/loaded_model.h"

namespace nibble {
namespace {

constexpr int64_t kHeadRows = 64;  // positions whose logits exist at a time

/// Who predicts: a model, or a file of what one predicted.
struct Predictor {
  std::string name;
  /// Hidden states in front of each id of chunk `index` from place `first` on.
  std::function<Tensor(size_t index, const std::vector<int32_t>& ids, int64_t first)> hidden = {};
  std::function<Tensor(const Tensor& hidden)> logits = {};
  /// Where NaN begins when the predictions for a chunk have some.
  std::function<std::string(const std::vector<int32_t>& ids)> nonfinite = {};
  int64_t vocab_size = 0;
  uint64_t bytes = 0;
};

Tensor hidden_of(const Model& model, const std::vector<int32_t>& ids, DType kv_dtype) {
  if (kv_dtype == DType::f32) return model.hidden({.ids = ids}, nullptr, nullptr);
  KvCache cache = model.new_cache(static_cast<int64_t>(ids.size()), kv_dtype);
  return model.hidden({.ids = ids}, &cache, nullptr);
}

Predictor predictor_of(const CausalLM& causal_lm, DType kv_dtype) {
  const LoadedModel& loaded = causal_lm.internal();
  const Model& model = *loaded.model;
  Predictor p = {.name = loaded.path};
  p.hidden = [&model, kv_dtype](size_t, const std::vector<int32_t>& ids, int64_t first) {
    const Tensor all = hidden_of(model, ids, kv_dtype);
    return all.slice_rows(first - 1, all.rows() - 1);  // the last position has nothing to predict
  };
  p.logits = [&model](const Tensor& hidden) { return model.logits(hidden); };
  p.nonfinite = [&model, kv_dtype](const std::vector<int32_t>& ids) {
    return find_nonfinite([&] {
      const Tensor hidden = hidden_of(model, ids, kv_dtype);
      for (int64_t t = 0; t < hidden.rows(); t += kHeadRows) {
        model.logits(hidden.slice_rows(t, std::min(hidden.rows(), t + kHeadRows)));
      }
    });
  };
  p.vocab_size = causal_lm.vocab_size();
  p.bytes = causal_lm.weight_bytes();
  return p;
}

Predictor predictor_of(const SavedReference::Contents& file) {
  Predictor p = {.name = file.path()};
  p.hidden = [&file](size_t index, const std::vector<int32_t>& ids, int64_t first) {
    return file.hidden(index, static_cast<int64_t>(ids.size()) - first);
  };
  p.logits = [&file](const Tensor& hidden) { return file.logits(hidden); };
  p.nonfinite = [](const std::vector<int32_t>&) { return std::string("in the file"); };
  p.vocab_size = file.vocab_size;
  p.bytes = file.model_bytes;
  return p;
}

/// The model with the head that its files have; none when it has that itself. Only the head is used, so all of it stays
/// in the file.
std::optional<CausalLM> with_stored_head(const CausalLM& model, const EvaluateOptions& options) {
  const LoadedModel& loaded = model.internal();
  if (!options.head_cost || loaded.options.head == "keep") return std::nullopt;
  return AutoModelForCausalLM::from_pretrained(loaded.path, {.compute_dtype = loaded.options.compute_dtype,
                                                             .activations = loaded.options.activations,
                                                             .device_map = "disk",
                                                             .adapters = loaded.options.adapters});
}

/// Who predicts in one pass over the chunks.
struct Predictors {
  Predictor model;
  std::optional<Predictor> reference = {};
  std::optional<Predictor> stored_head = {};  // over the hidden states of `model`
};

class Run {
 public:
  Run(Predictors predictors, const EvaluateOptions& options, ReferenceWriter* writer)
      : model_(std::move(predictors.model)),
        reference_(std::move(predictors.reference)),
        stored_head_(std::move(predictors.stored_head)),
        options_(options),
        writer_(writer) {}

  void score_chunk(size_t index, const std::vector<int32_t>& ids) {
    const int64_t first = first_scored(index, ids.size(), options_);
    if (first == static_cast<int64_t>(ids.size())) return;
    const auto begin = std::chrono::steady_clock::now();
    const Tensor hidden = model_.hidden(index, ids, first);
    add_time(begin);
    const Tensor reference = reference_ ? reference_->hidden(index, ids, first) : Tensor();
    if (writer_) writer_->add(index, reference_ ? reference : hidden);
    for (int64_t t = 0; t < hidden.rows(); t += kHeadRows) {
      const int64_t end = std::min(hidden.rows(), t + kHeadRows);
      ScoredRows rows = {.chunk = static_cast<int32_t>(index),
                         .first = first + t,
                         .targets = std::span(ids).subspan(static_cast<size_t>(first + t))};
      const auto head_begin = std::chrono::steady_clock::now();
      rows.logits = model_.logits(hidden.slice_rows(t, end));
      add_time(head_begin);
      if (reference_) rows.reference = reference_->logits(reference.slice_rows(t, end));
      score(rows, positions_, reference_, ids);
      if (!stored_head_) continue;
      rows.reference = stored_head_->logits(hidden.slice_rows(t, end));
      score(rows, against_stored_head_, stored_head_, ids);
    }
    ids_ += static_cast<int64_t>(ids.size());
  }

  const std::vector<Position>& positions() const { return positions_; }
  /// The same with the stored head as the reference; empty without one.
  const std::vector<Position>& against_stored_head() const { return against_stored_head_; }
  double tokens_per_second() const { return static_cast<double>(ids_) / std::max(seconds_, 1e-9); }

 private:
  void add_time(std::chrono::steady_clock::time_point begin) {
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  /// @param reference  who rows.reference is of
  void score(const ScoredRows& rows, std::vector<Position>& positions, const std::optional<Predictor>& reference,
             const std::vector<int32_t>& ids) const {
    const size_t scored = positions.size();
    score_rows(rows, positions);
    for (const Position& p : std::span(positions).subspan(scored)) {
      const bool reference_is_finite = !std::isnan(p.reference_nll);
      if (!std::isnan(p.nll) && reference_is_finite) continue;
      const Predictor& culprit = std::isnan(p.nll) ? model_ : *reference;
      fail(ErrorCode::format, culprit.name + ": chunk " + std::to_string(p.chunk) + ", position " +
                                  std::to_string(p.place) + ": the logits are not finite; NaN or infinity appears " +
                                  "first " + culprit.nonfinite(ids));
    }
  }

  Predictor model_;
  std::optional<Predictor> reference_, stored_head_;
  const EvaluateOptions& options_;
  ReferenceWriter* writer_;
  std::vector<Position> positions_, against_stored_head_;
  int64_t ids_ = 0;
  double seconds_ = 0;
};

void check(const CausalLM& model, bool has_reference, const Chunks& chunks, const EvaluateOptions& options) {
  check_cut(options);
  check_kv_dtype(options.kv_dtype);
  if (!options.save_reference.empty() && !has_reference && options.kv_dtype != DType::f32) {
    fail(ErrorCode::invalid_argument, "save_reference: the model is the reference here, so kv_dtype has to be fp32");
  }
  size_t longest = 0;
  int64_t scored = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    longest = std::max(longest, chunks[i].size());
    scored += static_cast<int64_t>(chunks[i].size()) - first_scored(i, chunks[i].size(), options);
    for (const int32_t id : chunks[i]) {
      if (id < 0 || id >= model.vocab_size()) {
        fail(ErrorCode::invalid_argument,
             "token id " + std::to_string(id) + " is outside the vocabulary of " + std::to_string(model.vocab_size()));
      }
    }
  }
  if (scored < 1) fail(ErrorCode::invalid_argument, "nothing to score: at least two tokens are needed");
  if (static_cast<int64_t>(longest) > model.context_length()) {
    fail(ErrorCode::invalid_argument,
         "context: " + std::to_string(longest) + " is more than the model's " + std::to_string(model.context_length()));
  }
}

/// Ids mean the same only when the two models spell them the same.
void check_vocabularies(const CausalLM& model, const CausalLM& reference, const Chunks& chunks) {
  if (reference.vocab_size() != model.vocab_size()) {
    fail(ErrorCode::invalid_argument, "reference: has a vocabulary of " + std::to_string(reference.vocab_size()) +
                                          ", the model one of " + std::to_string(model.vocab_size()));
  }
  const auto &ours = model.internal().tokenizer, &theirs = reference.internal().tokenizer;
  if (!ours || !theirs) return;
  for (const auto& chunk : chunks) {
    for (const int32_t id : chunk) {
      const std::string piece = ours->piece(id), other = theirs->piece(id);
      if (piece == other) continue;
      fail(ErrorCode::invalid_argument, "reference: has another vocabulary: token " + std::to_string(id) + " is '" +
                                            printable(other, 60) + "', in the model '" + printable(piece, 60) + "'");
    }
  }
}

EvaluateReport run(const CausalLM& model, const std::optional<Predictor>& reference, const Chunks& chunks,
                   const EvaluateOptions& options, ReferenceWriter* writer) {
  const std::optional<CausalLM> kept = with_stored_head(model, options);
  Run run({.model = predictor_of(model, options.kv_dtype),
           .reference = reference,
           .stored_head = kept ? std::optional(predictor_of(*kept, DType::f32)) : std::nullopt},
          options, writer);
  EvaluateReport report;
  int64_t done = 0, total = 0;
  for (const auto& chunk : chunks) total += static_cast<int64_t>(chunk.size());
  for (size_t i = 0; i < chunks.size(); ++i) {
    check_interrupt();
    report.context = std::max(report.context, static_cast<int64_t>(chunks[i].size()));
    run.score_chunk(i, chunks[i]);
    done += static_cast<int64_t>(chunks[i].size());
    if (options.progress) options.progress({.unit = "tokens", .done = done, .total = total});
  }
  report.convention = convention_name(options);
  report.chunks = static_cast<int64_t>(chunks.size());
  report.has_reference = reference.has_value();
  report.bytes = model.weight_bytes();
  report.reference_bytes = reference ? reference->bytes : 0;
  report.tokens_per_second = run.tokens_per_second();
  summarize(run.positions(), options.seed, report);
  if (kept) add_head_cost(run.against_stored_head(), options.seed, report);
  return report;
}

}  // namespace

EvaluateReport evaluate(const CausalLM& model, const CausalLM* reference, const Chunks& chunks,
                        const EvaluateOptions& options) {
  check(model, reference != nullptr, chunks, options);
  if (reference) check_vocabularies(model, *reference, chunks);
  std::unique_ptr<ReferenceWriter> writer;
  if (!options.save_reference.empty()) {
    writer = std::make_unique<ReferenceWriter>(options.save_reference, reference ? *reference : model, chunks, options);
  }
  const std::optional<Predictor> predictor =
      reference ? std::optional(predictor_of(*reference, DType::f32)) : std::nullopt;
  EvaluateReport report = run(model, predictor, chunks, options, writer.get());
  if (writer) writer->finish();
  return report;
}

EvaluateReport evaluate(const CausalLM& model, const SavedReference& reference, const Chunks& chunks,
                        const EvaluateOptions& options) {
  check(model, true, chunks, options);
  if (!options.save_reference.empty()) {
    fail(ErrorCode::invalid_argument, "save_reference: the reference is in a file already");
  }
  reference.internal().check(model.vocab_size(), chunks, options);
  return run(model, predictor_of(reference.internal()), chunks, options, nullptr);
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
