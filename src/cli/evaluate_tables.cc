#include "cli/evaluate_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "cli/print.h"

namespace nibble::cli {
namespace {

/// How a kind of number is written.
struct Style {
  double scale = 1;
  int digits = 4;
  const char* unit = "";
  bool is_signed = false;

  std::string number(double value) const {
    return is_signed ? fmt::format("{:+.{}f}", scale * value, digits) : fmt::format("{:.{}f}", scale * value, digits);
  }
  std::string text(double value) const { return number(value) + unit; }
  std::string interval(const Figure& figure) const {
    return std::isnan(figure.low) ? "" : number(figure.low) + " to " + number(figure.high);
  }
};

constexpr Style kPlain = {.digits = 4};
constexpr Style kNats = {.digits = 5};
constexpr Style kShare = {.scale = 100, .digits = 2, .unit = " %"};
constexpr Style kChange = {.scale = 100, .digits = 2, .unit = " %", .is_signed = true};
constexpr Style kSize = {.scale = 100, .digits = 2, .unit = " points"};
constexpr Style kPoints = {.scale = 100, .digits = 2, .unit = " points", .is_signed = true};

struct NamedFigure {
  const char* name;  // in the report
  const char* title;
  Style style;
};

constexpr NamedFigure kLosses[] = {
    {"perplexity_increase", "perplexity", kChange},
    {"kl_mean", "KL (nats), mean", kNats},
    {"kl_p50", "KL, median", kNats},
    {"kl_p90", "KL, 90 %", kNats},
    {"kl_p99", "KL, 99 %", kNats},
    {"kl_max", "KL, largest", kNats},
    {"top1_agreement", "same likeliest token", kShare},
    {"delta_p_mean", "p of the right token, mean", kPoints},
    {"delta_p_rms", "p of the right token, RMS", kSize},
    {"delta_p_p1", "p of the right token, 1 %", kPoints},
    {"delta_p_p5", "p of the right token, 5 %", kPoints},
    {"delta_p_p50", "p of the right token, median", kPoints},
    {"delta_p_p95", "p of the right token, 95 %", kPoints},
    {"delta_p_p99", "p of the right token, 99 %", kPoints},
};

constexpr NamedFigure kHeadCosts[] = {
    {"head_perplexity_increase", "perplexity", kChange},
    {"head_kl_mean", "KL (nats), mean", kNats},
    {"head_top1_agreement", "same likeliest token", kShare},
};

/// A row for each of `named` that was measured, with its interval.
Rows rows_of(const std::vector<Figure>& figures, std::span<const NamedFigure> named, const std::string& title) {
  Rows rows = {{title, "value", "95 % interval"}};
  for (const NamedFigure& row : named) {
    const Figure* figure = find_figure(figures, row.name);
    if (figure) rows.push_back({row.title, row.style.text(figure->value), row.style.interval(*figure)});
  }
  return rows;
}

/// A row for a figure and that of the reference; none when it was not measured.
void add_row(Rows& rows, const std::vector<Figure>& figures, const NamedFigure& named) {
  const Figure* own = find_figure(figures, named.name);
  if (own == nullptr) return;
  const Figure* reference = find_figure(figures, "reference_" + std::string(named.name));
  rows.push_back({named.title, named.style.text(own->value), named.style.interval(*own),
                  reference ? named.style.text(reference->value) : ""});
}

Rows head() { return {{"", "model", "95 % interval", "reference"}}; }

void add_weights(Rows& rows, uint64_t bytes, uint64_t reference_bytes, bool has_reference) {
  rows.push_back({"weights", human_bytes(bytes), "", has_reference ? human_bytes(reference_bytes) : ""});
}

/// Without a reference the columns about it would be empty.
void drop_last(Rows& rows, size_t columns) {
  for (std::vector<std::string>& row : rows) row.resize(row.size() - columns);
}

/// The `count` members with the largest key, largest first.
template <class T, class Key>
std::vector<T> worst(std::vector<T> all, size_t count, Key key) {
  std::stable_sort(all.begin(), all.end(), [&](const T& a, const T& b) { return key(a) > key(b); });
  all.resize(std::min(all.size(), count));
  return all;
}

}  // namespace

Rows text_rows(const EvaluateReport& report) {
  Rows rows = head();
  add_row(rows, report.figures, {"perplexity", "perplexity", kPlain});
  add_weights(rows, report.bytes, report.reference_bytes, report.has_reference);
  if (!report.has_reference) drop_last(rows, 1);
  return rows;
}

Rows label_rows(const LabelReport& report) {
  Rows rows = head();
  add_row(rows, report.figures, {"accuracy", "accuracy", kShare});
  add_row(rows, report.figures, {"f1", "F1", kShare});
  add_weights(rows, report.bytes, report.reference_bytes, report.has_reference);
  if (!report.has_reference) drop_last(rows, 1);
  return rows;
}

Rows loss_rows(const EvaluateReport& report) {
  return report.has_reference ? rows_of(report.figures, kLosses, "against the reference") : Rows();
}

Rows head_rows(const EvaluateReport& report) {
  const bool measured = find_figure(report.figures, kHeadCosts[0].name) != nullptr;
  return measured ? rows_of(report.figures, kHeadCosts, "--head against the head kept") : Rows();
}

Rows task_rows(const std::vector<ChoiceReport>& tasks) {
  Rows rows = {{"task", "questions", "figure", "model", "95 % interval", "reference", "other answers"}};
  for (const ChoiceReport& task : tasks) {
    Rows own;
    add_row(own, task.figures, {"accuracy", "accuracy", kShare});
    add_row(own, task.figures, {"accuracy_norm", "accuracy by length", kShare});
    add_row(own, task.figures, {"perplexity", "perplexity", kPlain});
    for (size_t i = 0; i < own.size(); ++i) {
      rows.push_back({i == 0 ? task.task : "", i == 0 ? grouped(task.questions) : "", own[i][0], own[i][1], own[i][2],
                      own[i][3], i == 0 && task.has_reference ? grouped(task.flips) : ""});
    }
  }
  const auto has_reference = [](const ChoiceReport& task) { return task.has_reference; };
  if (std::none_of(tasks.begin(), tasks.end(), has_reference)) drop_last(rows, 2);
  return rows;
}

Rows worst_layer_rows(const LayersReport& report, size_t count) {
  Rows rows = {{"layer", "output error", "weight error", "SQNR", "format"}};
  for (const LayerError& layer : worst(report.layers, count, [](const LayerError& l) { return l.output_error; })) {
    rows.push_back({layer.name, kShare.text(layer.output_error), kShare.text(layer.weight_error),
                    std::isinf(layer.weight_sqnr_db) ? "exact" : fixed(layer.weight_sqnr_db, 1) + " dB", layer.format});
  }
  return rows;
}

Rows worst_block_rows(const LayersReport& report, size_t count) {
  Rows rows = {{"block", "KL alone", "hidden error"}};
  for (const BlockError& block : worst(report.blocks, count, [](const BlockError& b) { return b.kl; })) {
    rows.push_back({block.name, kNats.text(block.kl), kShare.text(block.hidden_error)});
  }
  return rows;
}

std::string text_summary(const EvaluateReport& r) {
  const std::string cut = r.convention == "chunks" ? "" : " (" + r.convention + ")";
  return fmt::format("{} tokens scored in {} chunks of {} ids{}, {:.1f} tokens/s", grouped(r.tokens), grouped(r.chunks),
                     grouped(r.context), cut, r.tokens_per_second);
}

std::string label_summary(const LabelReport& r) {
  return fmt::format("{} texts, {:.1f} tokens/s", grouped(r.texts), r.tokens_per_second);
}

}  // namespace nibble::cli
