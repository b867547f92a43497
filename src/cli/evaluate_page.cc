#include <algorithm>
#include <cmath>
#include <set>

#include "cli/evaluate_output.h"
#include "cli/evaluate_tables.h"
#include "cli/print.h"

namespace nibble::cli {
namespace {

constexpr size_t kShownLayers = 10;
constexpr double kMiB = 1 << 20;

/// "3" of "model.layers.3"; the name itself where it has no number.
std::string short_name(const std::string& block) {
  const size_t dot = block.rfind('.');
  return dot == std::string::npos ? block : block.substr(dot + 1);
}

/// The number of a layer's block, for the first of its layers only.
std::string block_tick(const std::string& layer, std::set<std::string>& seen) {
  for (size_t begin = 0; begin < layer.size();) {
    const size_t end = std::min(layer.find('.', begin), layer.size());
    const std::string part = layer.substr(begin, end - begin);
    if (part.find_first_not_of("0123456789") == std::string::npos) return seen.insert(part).second ? part : "";
    begin = end + 1;
  }
  return "";
}

LinePlot kl_by_position(const EvaluateReport& r) {
  LinePlot plot = {.title = "KL by position",
                   .note = "Mean over the tokens that lie so far behind the beginning of their chunk.",
                   .x_label = "position in the chunk",
                   .y_label = "KL (nats)"};
  plot.lines.push_back({.name = "KL"});
  for (const auto& s : r.by_position) {
    plot.lines[0].points.emplace_back(static_cast<double>(s.first + s.last) / 2, s.kl_mean);
  }
  return plot;
}

/// Loss and not perplexity: that of the first tokens would leave no room for the others.
LinePlot loss_by_position(const EvaluateReport& r) {
  LinePlot plot = {.title = "Loss by position",
                   .note = "ln of the perplexity. Falls where the model makes use of what it has read.",
                   .x_label = "position in the chunk",
                   .y_label = "nats per token"};
  plot.lines.push_back({.name = "model"});
  if (r.has_reference) plot.lines.push_back({.name = "reference"});
  for (const auto& s : r.by_position) {
    const double middle = static_cast<double>(s.first + s.last) / 2;
    plot.lines[0].points.emplace_back(middle, std::log(s.perplexity));
    if (r.has_reference) plot.lines[1].points.emplace_back(middle, std::log(s.reference_perplexity));
  }
  return plot;
}

ScatterPlot size_and_perplexity(const EvaluateReport& r) {
  return {
      .title = "Size and perplexity",
      .note = "Weights in memory. To the left and below is better.",
      .x_label = "MiB",
      .y_label = "perplexity",
      .dots = {{.name = "model", .x = static_cast<double>(r.bytes) / kMiB, .y = r.perplexity},
               {.name = "reference", .x = static_cast<double>(r.reference_bytes) / kMiB, .y = r.reference_perplexity}}};
}

BarChart kl_by_block(const LayersReport& r) {
  BarChart chart = {.title = "KL by layer",
                    .note =
                        "Of the reference when this layer alone is taken from the model: what keeping it in 16 bits "
                        "would save at most.",
                    .x_label = "layer",
                    .y_label = "KL (nats)"};
  for (const BlockError& b : r.blocks) {
    chart.bars.push_back({.name = b.name, .tick = short_name(b.name), .value = b.kl});
  }
  return chart;
}

BarChart sqnr_by_layer(const LayersReport& r) {
  BarChart chart = {.title = "SQNR of the weights by layer",
                    .note =
                        "Signal to quantization noise of each matrix; higher is better. Matrices that are stored "
                        "exactly have no bar.",
                    .x_label = "layer",
                    .y_label = "dB"};
  std::set<std::string> seen;
  for (const LayerError& l : r.layers) {
    chart.bars.push_back({.name = l.name, .tick = block_tick(l.name, seen), .value = l.weight_sqnr_db});
  }
  return chart;
}

BarChart output_error_by_layer(const LayersReport& r) {
  BarChart chart = {.title = "Error of the outputs by layer",
                    .note = "On this text, each matrix given what the reference gives it.",
                    .x_label = "layer",
                    .y_label = "relative error, %"};
  std::set<std::string> seen;
  for (const LayerError& l : r.layers) {
    chart.bars.push_back({.name = l.name, .tick = block_tick(l.name, seen), .value = 100 * l.output_error});
  }
  return chart;
}

LinePlot hidden_error_by_block(const LayersReport& r) {
  LinePlot plot = {.title = "Error of the hidden states",
                   .note = "Behind each layer, both models on their own: what has added up.",
                   .x_label = "layer",
                   .y_label = "relative error, %"};
  plot.lines.push_back({.name = "error"});
  for (size_t i = 0; i < r.blocks.size(); ++i) {
    const double error = r.blocks[i].hidden_error;
    if (error != 0) plot.lines[0].points.emplace_back(static_cast<double>(i), 100 * error);
  }
  return plot;
}

void add_text(ReportPage& page, const EvaluateReport& r) {
  if (r.has_reference) page.headlines.push_back(r.verdict);
  page.parts.push_back(ReportTable{.title = "Text", .note = text_summary(r), .rows = text_rows(r)});
  if (r.has_reference) {
    page.parts.push_back(
        ReportTable{.title = "What was lost",
                    .note = "Intervals by bootstrap over " + std::to_string(r.blocks) + " stretches of the text.",
                    .rows = loss_rows(r)});
    page.parts.push_back(kl_by_position(r));
    page.parts.push_back(size_and_perplexity(r));
  }
  const Rows head = head_rows(r);
  if (!head.empty()) {
    page.parts.push_back(ReportTable{
        .title = "What the head costs", .note = "This model against itself with the head kept.", .rows = head});
  }
  page.parts.push_back(loss_by_position(r));
}

void add_layers(ReportPage& page, const LayersReport& r) {
  page.parts.push_back(kl_by_block(r));
  page.parts.push_back(sqnr_by_layer(r));
  page.parts.push_back(output_error_by_layer(r));
  page.parts.push_back(hidden_error_by_block(r));
  page.parts.push_back(ReportTable{
      .title = "Layers that cost most",
      .note = "On " + grouped(r.tokens) + " tokens. Hidden error: behind the block, both models on their own.",
      .rows = worst_block_rows(r, kShownLayers)});
  page.parts.push_back(ReportTable{.title = "Matrices with the largest errors",
                                   .note = "All of them are in the data of this page.",
                                   .rows = worst_layer_rows(r, kShownLayers)});
}

}  // namespace

ReportPage page_of(const Evaluation& evaluation, const std::string& json) {
  ReportPage page = {.title = "nibble evaluate: " + evaluation.model, .json = json};
  if (!evaluation.reference.empty()) page.title += " against " + evaluation.reference;
  if (evaluation.text) add_text(page, *evaluation.text);
  if (evaluation.labels) {
    if (evaluation.labels->has_reference) page.headlines.push_back(evaluation.labels->verdict);
    page.parts.push_back(ReportTable{
        .title = "Labels", .note = label_summary(*evaluation.labels), .rows = label_rows(*evaluation.labels)});
  }
  if (!evaluation.tasks.empty()) {
    for (const ChoiceReport& task : evaluation.tasks) {
      if (task.has_reference) page.headlines.push_back(task.task + ": " + task.verdict);
    }
    page.parts.push_back(ReportTable{.title = "Questions", .rows = task_rows(evaluation.tasks)});
  }
  if (evaluation.layers) add_layers(page, *evaluation.layers);
  for (const std::string& reason : evaluation.failed) page.headlines.push_back("gate failed: " + reason);
  return page;
}

}  // namespace nibble::cli
