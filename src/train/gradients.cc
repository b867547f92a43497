// The output head of a decoder is large: one row of logits has a value per word. So its rows are taken in portions,
// only those with a label, and each portion goes forward and back before the next (Liger kernels, arXiv 2410.10989).
#include "train/gradients.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/kernels.h"
#include "ops/cross_entropy.h"
#include "ops/elementwise.h"

namespace nibble {
namespace {

constexpr int64_t kPortionLogits = int64_t{1} << 25;  // 128 MiB

/// Rows of the hidden states from which something is predicted.
struct Predictions {
  std::vector<int64_t> rows;
  std::vector<int32_t> labels;  // of these rows
  std::vector<float> targets;   // or, for regression, of all their logits
};

[[noreturn]] void refuse(const std::string& what, size_t found, int64_t expected) {
  fail(ErrorCode::invalid_argument,
       "batch: found " + std::to_string(found) + " " + what + ", expected " + std::to_string(expected));
}

Predictions next_tokens(const LabelledBatch& batch, const std::vector<int64_t>& lengths) {
  if (batch.labels.size() != batch.ids.size()) {
    refuse("labels", batch.labels.size(), static_cast<int64_t>(batch.ids.size()));
  }
  Predictions p;
  int64_t first = 0;
  for (const int64_t length : lengths) {
    for (int64_t t = first + 1; t < first + length; ++t) {
      const int32_t label = batch.labels[static_cast<size_t>(t)];
      if (label == kNoLabel) continue;
      p.rows.push_back(t - 1);
      p.labels.push_back(label);
    }
    first += length;
  }
  return p;
}

Predictions classes(const LabelledBatch& batch, const std::vector<int64_t>& lengths, const ModelInfo& info) {
  const auto outputs = static_cast<int64_t>(info.labels.size());
  const auto sequences = static_cast<int64_t>(lengths.size());
  const bool regression = !batch.targets.empty();
  if (regression && static_cast<int64_t>(batch.targets.size()) != sequences * outputs) {
    refuse("targets", batch.targets.size(), sequences * outputs);
  }
  if (!regression && static_cast<int64_t>(batch.labels.size()) != sequences) {
    refuse("labels", batch.labels.size(), sequences);
  }
  Predictions p = {.rows = {}, .labels = batch.labels, .targets = batch.targets};
  int64_t first = 0;
  for (const int64_t length : lengths) {
    p.rows.push_back(first + info.classified_row(length));
    first += length;
  }
  return p;
}

Batch inputs_of(const LabelledBatch& batch) {
  return {.ids = batch.ids, .lengths = batch.lengths, .token_type_ids = batch.token_type_ids};
}

Predictions predictions_of(const Model& model, const LabelledBatch& batch) {
  const std::vector<int64_t> lengths = sequence_lengths(inputs_of(batch));
  if (model.info().predicts_text()) return next_tokens(batch, lengths);
  return classes(batch, lengths, model.info());
}

/// The loss of rows [begin, end) of the predictions. The logits become the gradient of loss * weight.
double portion_loss(Tensor& logits, const Predictions& p, int64_t begin, int64_t end, float weight) {
  const auto first = static_cast<size_t>(begin), count = static_cast<size_t>(end - begin);
  if (p.targets.empty()) return cross_entropy(logits, std::span(p.labels).subspan(first, count), weight);
  const auto outputs = static_cast<size_t>(logits.cols());
  return squared_error(logits, std::span(p.targets).subspan(first * outputs, count * outputs), weight);
}

std::span<const int64_t> rows_of(const Predictions& p, int64_t begin, int64_t end) {
  return std::span(p.rows).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
}

/// The part of a pass behind the hidden states.
struct Head {
  const Model& model;
  const Predictions& predictions;
  const Tensor& hidden;
  float weight;
  Tape& tape;
  Tensor dhidden;  // the gradient of hidden so far
};

/// One portion, forward and back.
double run_portion(Head& head, int64_t begin, int64_t end) {
  const auto rows = rows_of(head.predictions, begin, end);
  const Tensor taken = take_rows(head.hidden, rows, nullptr);
  const bool goes_on = head.tape.slot(head.hidden) != Tape::kNone;
  Tape part = head.tape.child();
  if (goes_on) part.watch(taken);
  Tensor logits = head.model.logits(taken, &part);
  const double loss = portion_loss(logits, head.predictions, begin, end, head.weight);
  part.backward(logits, logits);
  head.tape.add_gradients_of(part);
  if (!goes_on) return loss;
  const int64_t cols = taken.cols();
  const float* gradient = part.gradient(taken).f32();
  for (size_t i = 0; i < rows.size(); ++i) {
    kernels().axpy(1.0f, gradient + static_cast<int64_t>(i) * cols, head.dhidden.f32() + rows[i] * cols, cols);
  }
  return loss;
}

/// fn(begin, end) for the portions of all rows.
template <class Fn>
void for_portions(const Model& model, const Predictions& p, Fn fn) {
  const int64_t step = positions_at_once(model.info().vocab_size);
  const auto rows = static_cast<int64_t>(p.rows.size());
  for (int64_t begin = 0; begin < rows; begin += step) fn(begin, std::min(rows, begin + step));
}

int64_t count_of(const Predictions& p) {
  if (!p.targets.empty()) return static_cast<int64_t>(p.targets.size());
  return static_cast<int64_t>(p.labels.size()) - std::count(p.labels.begin(), p.labels.end(), kNoLabel);
}

}  // namespace

int64_t positions_at_once(int64_t vocab_size) {
  return std::clamp<int64_t>(kPortionLogits / std::max<int64_t>(1, vocab_size), 16, 1024);
}

int64_t label_count(const Model& model, const LabelledBatch& batch) { return count_of(predictions_of(model, batch)); }

Loss loss_of(const Model& model, const LabelledBatch& batch) {
  const Predictions p = predictions_of(model, batch);
  const Tensor hidden = model.hidden(inputs_of(batch), nullptr, nullptr);
  Loss loss = {.count = count_of(p)};
  for_portions(model, p, [&](int64_t begin, int64_t end) {
    Tensor logits = model.logits(take_rows(hidden, rows_of(p, begin, end), nullptr));
    loss.sum += portion_loss(logits, p, begin, end, 0.0f);
  });
  return loss;
}

Loss add_gradients(const Model& model, const LabelledBatch& batch, int64_t total, Tape& tape) {
  const Predictions p = predictions_of(model, batch);
  const Tensor hidden = model.hidden(inputs_of(batch), nullptr, &tape);
  Head head = {.model = model,
               .predictions = p,
               .hidden = hidden,
               .weight = static_cast<float>(1.0 / static_cast<double>(total)),
               .tape = tape,
               .dhidden = Tensor(DType::f32, hidden.shape)};
  Loss loss = {.count = count_of(p)};
  for_portions(model, p, [&](int64_t begin, int64_t end) { loss.sum += run_portion(head, begin, end); });
  tape.backward(hidden, std::move(head.dhidden));
  return loss;
}

Tape tape_for(const std::vector<TrainedParameter>& parameters) {
  Tape tape;
  for (const TrainedParameter& p : parameters) tape.watch(p.value);
  return tape;
}

}  // namespace nibble
