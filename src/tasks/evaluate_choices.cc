// Questions answered by log-likelihood: the answer is the choice whose tokens are likeliest after the question.
#include "nibble/evaluate_choices.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <span>

#include "core/error.h"
#include "core/progress.h"
#include "tasks/evaluate_scoring.h"
#include "tasks/evaluate_statistics.h"
#include "tasks/loaded_model.h"

namespace nibble {
namespace {

constexpr int64_t kHeadRows = 64;  // positions whose logits exist at a time

/// What a model says of one choice.
struct ChoiceScore {
  double log_likelihood = 0;  // sum over its tokens
  bool is_greedy = true;      // each of its tokens is the likeliest
};

struct EncodedChoice {
  std::vector<int32_t> ids;  // question and choice
  size_t first = 0;          // the choice's first id
  bool truncated = false;
};

class ChoiceScorer {
 public:
  ChoiceScorer(const CausalLM& model, DType kv_dtype) : model_(model), loaded_(model.internal()), kv_dtype_(kv_dtype) {}

  /// By choice.
  std::vector<ChoiceScore> score(const ChoiceQuestion& question, const std::string& where) {
    std::vector<EncodedChoice> choices;
    for (const std::string& choice : question.choices) choices.push_back(encode(question.context, choice, where));
    truncated_ += choices[0].truncated ? 1 : 0;
    const size_t shared = loaded_.mixes_tokens ? 0 : common_ids(choices);
    KvCache cache = loaded_.model->new_cache(longest(choices), kv_dtype_);
    if (shared > 0) loaded_.model->hidden({.ids = std::span(choices[0].ids).first(shared)}, &cache, nullptr);
    std::vector<ChoiceScore> scores;
    for (const EncodedChoice& choice : choices) {
      check_interrupt();
      cache.truncate(static_cast<int64_t>(shared));
      scores.push_back(score(choice, shared, cache));
      if (std::isnan(scores.back().log_likelihood)) fail_nonfinite(choice, where);
    }
    return scores;
  }

  int64_t truncated() const { return truncated_; }

 private:
  /// The choice's ids are those that follow the question's when both are encoded together. Where they do not fit the
  /// model, the beginning of the question is left out.
  EncodedChoice encode(const std::string& context, const std::string& choice, const std::string& where) const {
    const Tokenizer& tokenizer = loaded_.require_tokenizer();
    EncodedChoice out;
    if (tokenizer.adds_bos() && tokenizer.special().bos) out.ids.push_back(*tokenizer.special().bos);
    const std::vector<int32_t> all = tokenizer.encode(context + " " + choice, {.add_special_tokens = false});
    out.first = out.ids.size() + tokenizer.encode(context, {.add_special_tokens = false}).size();
    out.ids.insert(out.ids.end(), all.begin(), all.end());
    if (out.first >= out.ids.size() || out.first == 0) {
      fail(ErrorCode::format, where + ": the question or a choice has no tokens");
    }
    const auto room = static_cast<size_t>(model_.context_length());
    if (out.ids.size() <= room) return out;
    const size_t extra = out.ids.size() - room;
    if (extra >= out.first) fail(ErrorCode::format, where + ": a choice alone is longer than the model's context");
    out.ids.erase(out.ids.begin(), out.ids.begin() + static_cast<int64_t>(extra));
    out.first -= extra;
    out.truncated = true;
    return out;
  }

  static int64_t longest(const std::vector<EncodedChoice>& choices) {
    size_t ids = 0;
    for (const EncodedChoice& choice : choices) ids = std::max(ids, choice.ids.size());
    return static_cast<int64_t>(ids);
  }

  /// How many ids all choices begin with, at most the question without its last: what follows it is scored.
  static size_t common_ids(const std::vector<EncodedChoice>& choices) {
    const std::vector<int32_t>& ids = choices[0].ids;
    size_t common = choices[0].first - 1;
    for (const EncodedChoice& other : choices) {
      const size_t limit = std::min(common, other.first - 1);
      common = static_cast<size_t>(
          std::mismatch(ids.begin(), ids.begin() + static_cast<int64_t>(limit), other.ids.begin()).first - ids.begin());
    }
    return common;
  }

  /// The cache holds the first `shared` ids.
  ChoiceScore score(const EncodedChoice& choice, size_t shared, KvCache& cache) const {
    const Model& model = *loaded_.model;
    const auto rest = std::span(choice.ids).subspan(shared, choice.ids.size() - 1 - shared);
    const Tensor all = model.hidden({.ids = rest}, &cache, nullptr);
    const Tensor hidden = all.slice_rows(static_cast<int64_t>(choice.first - 1 - shared), all.rows());
    ChoiceScore score;
    for (int64_t t = 0; t < hidden.rows(); t += kHeadRows) {
      const Tensor logits = model.logits(hidden.slice_rows(t, std::min(hidden.rows(), t + kHeadRows)));
      for (int64_t r = 0; r < logits.rows(); ++r) {
        const LogSoftmax row({logits.f32() + r * logits.cols(), static_cast<size_t>(logits.cols())});
        const auto id = static_cast<size_t>(choice.ids[choice.first + static_cast<size_t>(t + r)]);
        score.log_likelihood += row(id);
        score.is_greedy &=
            std::max_element(row.logits.begin(), row.logits.end()) == row.logits.begin() + static_cast<int64_t>(id);
      }
    }
    return score;
  }

  [[noreturn]] void fail_nonfinite(const EncodedChoice& choice, const std::string& where) const {
    const std::string place = find_nonfinite([&] { loaded_.model->forward({.ids = choice.ids}, nullptr, nullptr); });
    fail(ErrorCode::format,
         loaded_.path + ": " + where + ": the logits are not finite; NaN or infinity appears first " + place);
  }

  const CausalLM& model_;
  const LoadedModel& loaded_;
  DType kv_dtype_;
  int64_t truncated_ = 0;
};

/// One model's answers.
struct Answers {
  std::vector<int64_t> plain, normalized;  // index of the choice; a single choice: 1 = greedy
  std::vector<double> nll;                 // of the right choice
};

/// Characters as lm-evaluation-harness counts them: Unicode code points.
double length_of(const std::string& text) {
  const auto points = std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
  return static_cast<double>(std::max<int64_t>(points, 1));
}

void add_answer(const ChoiceQuestion& question, const std::vector<ChoiceScore>& scores, Answers& answers) {
  answers.nll.push_back(-scores[static_cast<size_t>(question.gold)].log_likelihood);
  if (scores.size() == 1) {
    answers.plain.push_back(scores[0].is_greedy ? 1 : 0);
    return;
  }
  size_t plain = 0, normalized = 0;
  const auto per_character = [&](size_t i) { return scores[i].log_likelihood / length_of(question.choices[i]); };
  for (size_t i = 1; i < scores.size(); ++i) {
    if (scores[i].log_likelihood > scores[plain].log_likelihood) plain = i;
    if (per_character(i) > per_character(normalized)) normalized = i;
  }
  answers.plain.push_back(static_cast<int64_t>(plain));
  answers.normalized.push_back(static_cast<int64_t>(normalized));
}

struct Pass {
  const ChoiceTask& task;
  const ChoiceOptions& options;
  int64_t done = 0, total = 0;  // questions, of both models
};

Answers answer(const CausalLM& model, DType kv_dtype, Pass& pass, int64_t& truncated) {
  ChoiceScorer scorer(model, kv_dtype);
  Answers answers;
  for (size_t i = 0; i < pass.task.questions.size(); ++i) {
    const ChoiceQuestion& question = pass.task.questions[i];
    const std::string where = pass.task.name + ": question " + std::to_string(i + 1);
    add_answer(question, scorer.score(question, where), answers);
    if (pass.options.progress) {
      pass.options.progress({.unit = "questions", .done = ++pass.done, .total = pass.total});
    }
  }
  truncated = scorer.truncated();
  return answers;
}

/// Names of a model's own figures, of the reference's, and of what changes.
struct FigureNames {
  std::vector<std::string> own, reference, change;
};

const FigureNames kManyChoices = {{"accuracy", "accuracy_norm"},
                                  {"reference_accuracy", "reference_accuracy_norm"},
                                  {"accuracy_drop", "accuracy_norm_drop", "flip_share"}};
const FigureNames kOneChoice = {{"accuracy", "perplexity"},
                                {"reference_accuracy", "reference_perplexity"},
                                {"accuracy_drop", "perplexity_increase", "flip_share"}};

bool has_one_choice(const ChoiceTask& task) { return task.questions[0].choices.size() == 1; }

/// Accuracy, and accuracy by length or the perplexity of the right choice.
std::pair<double, double> own_figures(const ChoiceTask& task, const Answers& answers,
                                      std::span<const int32_t> weights) {
  double plain = 0, second = 0, total = 0;
  const bool one = has_one_choice(task);
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t right = one ? 1 : task.questions[i].gold;
    total += weights[i];
    plain += answers.plain[i] == right ? weights[i] : 0;
    second += one ? weights[i] * answers.nll[i] : (answers.normalized[i] == right ? weights[i] : 0);
  }
  return {plain / total, one ? std::exp(second / total) : second / total};
}

std::vector<Figure> figures_of(const ChoiceTask& task, const Answers& model, const Answers* reference, uint64_t seed) {
  const FigureNames& names = has_one_choice(task) ? kOneChoice : kManyChoices;
  std::vector<std::string> all = names.own;
  if (reference) {
    all.insert(all.end(), names.reference.begin(), names.reference.end());
    all.insert(all.end(), names.change.begin(), names.change.end());
  }
  const auto values = [&](std::span<const int32_t> weights, std::span<double> out) {
    const auto [accuracy, second] = own_figures(task, model, weights);
    out[0] = accuracy;
    out[1] = second;
    if (reference == nullptr) return;
    const auto [before, second_before] = own_figures(task, *reference, weights);
    out[2] = before;
    out[3] = second_before;
    out[4] = before - accuracy;
    out[5] = has_one_choice(task) ? second / second_before - 1 : second_before - second;
    out[6] = 0;
    for (size_t i = 0; i < weights.size(); ++i) out[6] += model.plain[i] != reference->plain[i] ? weights[i] : 0;
    out[6] /= static_cast<double>(weights.size());
  };
  return with_intervals(all, static_cast<int64_t>(task.questions.size()), values, seed);
}

}  // namespace

ChoiceReport evaluate_choices(const CausalLM& model, const CausalLM* reference, const ChoiceTask& task,
                              const ChoiceOptions& options) {
  if (task.questions.empty()) fail(ErrorCode::invalid_argument, task.name + ": has no questions");
  const bool one = task.questions[0].choices.size() == 1;
  for (const ChoiceQuestion& q : task.questions) {
    const auto choices = static_cast<int64_t>(q.choices.size());
    if (choices == 0 || q.gold < 0 || q.gold >= choices || (choices == 1) != one) {
      fail(ErrorCode::invalid_argument,
           task.name + ": a question has no choices, no right one, or another kind of choices than the first");
    }
  }
  ChoiceReport report = {.task = task.name, .questions = static_cast<int64_t>(task.questions.size())};
  Pass pass = {.task = task, .options = options, .total = report.questions * (reference ? 2 : 1)};
  const Answers answers = answer(model, options.kv_dtype, pass, report.truncated);
  Answers original;
  int64_t truncated_by_reference = 0;
  if (reference) original = answer(*reference, DType::f32, pass, truncated_by_reference);
  report.figures = figures_of(task, answers, reference ? &original : nullptr, options.seed);
  report.accuracy = find_figure(report.figures, "accuracy")->value;
  report.answers = answers.plain;
  if (reference == nullptr) return report;
  report.has_reference = true;
  report.reference_accuracy = find_figure(report.figures, "reference_accuracy")->value;
  for (size_t i = 0; i < answers.plain.size(); ++i) report.flips += answers.plain[i] != original.plain[i];
  report.verdict =
      verdict_on(*find_figure(report.figures, "accuracy_drop"), {.what = "accuracy", .sign = -1, .unit = " points"});
  return report;
}

std::vector<std::string> ChoiceReport::failed_gates(const EvaluateGates& gates) const {
  const double drop = reference_accuracy - accuracy;
  if (!gates.max_accuracy_drop || drop <= *gates.max_accuracy_drop) return {};
  return {
      fmt::format("{}: accuracy fell by {:.6g}, above max_accuracy_drop {:.6g}", task, drop, *gates.max_accuracy_drop)};
}

}  // namespace nibble
