#include "cli/finetune_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/print.h"
#include "nibble/system.h"

namespace nibble::cli {
namespace {

constexpr size_t kPoints = 400;        // in a line; more would lie on the same pixels
constexpr size_t kFewSteps = 20;       // shown one by one
constexpr double kSmoothedShare = 20;  // the moving average reaches over about this part of the run

using Points = std::vector<std::pair<double, double>>;

/// At most kPoints, each the mean of its neighbours that are finite.
Points thinned(const Points& all) {
  if (all.size() <= kPoints) return all;
  Points out;
  for (size_t i = 0; i < kPoints; ++i) {
    const size_t begin = i * all.size() / kPoints, end = (i + 1) * all.size() / kPoints;
    double sum = 0, count = 0;
    for (size_t j = begin; j < end; ++j) {
      if (!std::isfinite(all[j].second)) continue;
      sum += all[j].second;
      ++count;
    }
    out.emplace_back(all[(begin + end - 1) / 2].first, sum / count);
  }
  return out;
}

/// Exponential moving average, the first values counted as what they are and not as a way up from zero.
Points smoothed(const Points& all) {
  const double kept = 1 - 2 / (std::max(4.0, static_cast<double>(all.size()) / kSmoothedShare) + 1);
  Points out;
  double sum = 0, weight = 0;
  for (const auto& [x, y] : all) {
    if (std::isfinite(y)) {
      sum = kept * sum + (1 - kept) * y;
      weight = kept * weight + (1 - kept);
    }
    out.emplace_back(x, sum / weight);
  }
  return out;
}

Points points_of(const std::vector<FinetuneStep>& steps, double FinetuneStep::*value) {
  Points points;
  for (const FinetuneStep& s : steps) points.emplace_back(static_cast<double>(s.step), s.*value);
  return points;
}

/// The values of all steps with their average; of a short run the values alone.
std::vector<LinePlot::Line> with_average(const Points& points, const std::string& name) {
  if (points.size() < kFewSteps) return {{.name = name, .points = points, .look = LinePlot::Look::marked}};
  return {{.name = name + ", smoothed", .points = thinned(smoothed(points))},
          {.name = "each step", .points = thinned(points), .look = LinePlot::Look::background}};
}

LinePlot loss_plot(const FinetuneRun& run) {
  LinePlot plot = {.title = "Loss",
                   .note = "Mean over the trained tokens, before the step that follows from them.",
                   .x_label = "step",
                   .y_label = run.report.task == "seq_cls" ? "loss" : "nats per token",
                   .lines = with_average(points_of(run.steps, &FinetuneStep::loss), "training"),
                   .floor = LinePlot::Floor::values};
  LinePlot::Line held_out = {.name = "held out", .points = {}, .look = LinePlot::Look::marked};
  for (const FinetuneStep& s : run.steps) {
    if (s.eval_loss) held_out.points.emplace_back(static_cast<double>(s.step), *s.eval_loss);
  }
  // Second, for the colour that differs most from the first.
  if (!held_out.points.empty()) plot.lines.insert(plot.lines.begin() + 1, held_out);
  return plot;
}

LinePlot rate_plot(const FinetuneRun& run) {
  return {.title = "Learning rate",
          .note = run.report.options.schedule + (run.report.options.warmup > 0 ? " with warmup" : "") + ", " +
                  run.report.options.optimizer,
          .x_label = "step",
          .y_label = "learning rate",
          .lines = {{.name = "rate", .points = thinned(points_of(run.steps, &FinetuneStep::learning_rate))}}};
}

LinePlot norm_plot(const FinetuneRun& run) {
  const double most = run.report.options.max_grad_norm;
  return {.title = "Length of the gradient",
          .note = most > 0 ? fmt::format("Before clipping; longer ones are scaled down to {}.", most) : "",
          .x_label = "step",
          .y_label = "norm",
          .lines = with_average(points_of(run.steps, &FinetuneStep::grad_norm), "norm")};
}

LinePlot speed_plot(const FinetuneRun& run) {
  return {.title = "Speed",
          .note = "All tokens that went through the model, forward and back.",
          .x_label = "step",
          .y_label = "tokens/s",
          .lines = with_average(points_of(run.steps, &FinetuneStep::tokens_per_second), "speed")};
}

std::string loss_text(const std::optional<double>& loss) {
  if (!loss) return "not measured";
  return std::isfinite(*loss) ? fixed(*loss, 4) : "not finite";
}

ReportTable result_table(const FinetuneReport& r) {
  ReportTable table = {.title = "Result", .note = "Written to " + r.output + ".", .rows = {{"", "value"}}};
  table.rows.push_back({"steps", grouped(r.steps) + (r.stopped_early ? ", stopped early" : "")});
  table.rows.push_back({"loss of the last step", fixed(r.final_loss, 4)});
  table.rows.push_back({"held-out loss, last", loss_text(r.eval_loss)});
  table.rows.push_back({"held-out loss, best", loss_text(r.best_eval_loss)});
  table.rows.push_back({"skipped steps", grouped(r.skipped_steps)});
  table.rows.push_back({"trained values", grouped(r.trainable_parameters)});
  table.rows.push_back({"tokens", grouped(r.tokens)});
  table.rows.push_back({"tokens/s", fixed(r.tokens_per_second, 0)});
  table.rows.push_back({"peak memory", human_bytes(peak_rss_bytes())});
  return table;
}

std::string targets_text(const ModuleChoice& choice) {
  std::string text = choice.pattern;
  for (const std::string& name : choice.names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "usual ones" : text;
}

using Rows = std::vector<std::vector<std::string>>;

void add_adapter_rows(Rows& rows, const FinetuneOptions& o) {
  const LoraConfig& c = o.lora;
  if (!o.init_adapter.empty()) rows.push_back({"adapter begun with", o.init_adapter});
  rows.push_back({"rank, alpha", fmt::format("{}, {}{}", c.r, c.lora_alpha, c.use_rslora ? ", rslora" : "")});
  rows.push_back({"layers", targets_text(c.target_modules)});
  if (o.init_adapter.empty()) {
    rows.push_back({"begins with", c.init_lora_weights == "true" ? "B zero" : c.init_lora_weights});
  }
  if (c.use_dora) rows.push_back({"DoRA", "yes"});
  if (c.lora_dropout > 0) rows.push_back({"dropout", fmt::format("{}", c.lora_dropout)});
  if (!o.merge_aware.empty()) rows.push_back({"trained for a merge into", o.merge_aware});
}

/// With what belongs to it: "nf4, double quantization, blocks of 32".
std::string format_text(const FinetuneOptions& o) {
  if (o.format.empty()) return "as it is stored";
  return o.format + (o.double_quant ? ", double quantization" : "") +
         (o.block ? fmt::format(", blocks of {}", o.block) : "") +
         (o.granularity == "channel" ? "" : ", one scale per " + o.granularity);
}

ReportTable settings_table(const FinetuneRun& run) {
  const FinetuneOptions& o = run.report.options;
  ReportTable table = {
      .title = "Settings", .note = "All of them are in the data of this page.", .rows = {{"", "value"}}};
  Rows& rows = table.rows;
  rows.push_back({"model", run.model});
  rows.push_back({"method", o.method});
  if (o.method == "qlora") rows.push_back({"format of the base", format_text(o)});
  if (o.method == "qat") rows.push_back({"format of the result", format_text(o)});
  if (o.use_lora) add_adapter_rows(rows, o);
  rows.push_back({"optimizer", o.optimizer});
  rows.push_back({"learning rate", fmt::format("{:.3g}, {}", o.learning_rate.value_or(0), o.schedule)});
  rows.push_back({"samples in a step", fmt::format("{} x {}{}", o.batch, o.grad_accum, o.packing ? ", packed" : "")});
  rows.push_back({"longest sample", grouped(o.max_length) + " tokens"});
  rows.push_back({"weight decay", fmt::format("{}", o.weight_decay)});
  rows.push_back({"seed", std::to_string(o.seed)});
  return table;
}

ReportTable data_table(const FinetuneRun& run) {
  const FinetuneData& d = run.report.data;
  ReportTable table = {.title = "Data", .note = "", .rows = {{"", "value"}}};
  table.rows.push_back({"file", run.report.options.data});
  if (!run.report.options.eval_data.empty()) table.rows.push_back({"held out", run.report.options.eval_data});
  const auto share =
      100.0 * static_cast<double>(d.trained_tokens) / static_cast<double>(std::max<int64_t>(1, d.tokens));
  table.rows.push_back({"samples", grouped(d.samples)});
  table.rows.push_back({"tokens", grouped(d.tokens)});
  table.rows.push_back({"trained of them", fmt::format("{} ({:.0f} %)", grouped(d.trained_tokens), share)});
  table.rows.push_back({"longest", grouped(d.longest)});
  table.rows.push_back({"cut off", grouped(d.truncated)});
  table.rows.push_back({"left out", grouped(d.dropped)});
  for (const std::string& warning : d.warnings()) table.note += (table.note.empty() ? "" : " ") + warning + ".";
  return table;
}

std::string headline(const FinetuneRun& run) {
  const FinetuneReport& r = run.report;
  std::string text = fmt::format("{} steps", grouped(r.steps));
  std::vector<double> losses;
  for (const FinetuneStep& s : run.steps) {
    if (std::isfinite(s.loss)) losses.push_back(s.loss);
  }
  if (!losses.empty()) text += fmt::format(", training loss {:.4f} to {:.4f}", losses.front(), losses.back());
  if (r.best_eval_loss) text += fmt::format(", held-out loss {:.4f} at best", *r.best_eval_loss);
  return text;
}

}  // namespace

ReportPage page_of(const FinetuneRun& run) {
  ReportPage page = {.title = "nibble finetune: " + run.model, .headlines = {headline(run)}};
  if (run.report.stopped_early) page.headlines.emplace_back("Stopped early: the held-out loss no longer fell.");
  if (run.report.skipped_steps > 0) {
    page.headlines.push_back(fmt::format("{} steps were skipped: a value was not finite.", run.report.skipped_steps));
  }
  page.parts = {loss_plot(run),           rate_plot(run),      norm_plot(run), speed_plot(run),
                result_table(run.report), settings_table(run), data_table(run)};
  return page;
}

}  // namespace nibble::cli
