#include <fmt/format.h>

#include "cli/evaluate_output.h"
#include "cli/evaluate_tables.h"
#include "cli/print.h"

namespace nibble::cli {
namespace {

constexpr size_t kShownLayers = 10;

void print(const EvaluateReport& r) {
  print_table(text_rows(r));
  print_line("  " + text_summary(r));
  if (r.has_reference) {
    print_line();
    print_table(loss_rows(r));
    print_line("  " + r.verdict);
  }
  const Rows head = head_rows(r);
  if (head.empty()) return;
  print_line();
  print_table(head);
}

void print(const LabelReport& r) {
  print_table(label_rows(r));
  print_line("  " + label_summary(r));
  if (!r.has_reference) return;
  print_line(fmt::format("  {} texts get another label than from the reference", r.flips));
  print_line("  " + r.verdict);
}

void print(const std::vector<ChoiceReport>& tasks) {
  print_table(task_rows(tasks));
  for (const ChoiceReport& task : tasks) {
    if (task.truncated > 0) {
      print_line(
          fmt::format("  {}: {} questions did not fit the model and lost their beginning", task.task, task.truncated));
    }
    if (task.has_reference) print_line("  " + task.task + ": " + task.verdict);
  }
}

void print(const LayersReport& r) {
  print_line();
  print_table(worst_block_rows(r, kShownLayers));
  print_line();
  print_table(worst_layer_rows(r, kShownLayers));
  print_line(
      fmt::format("  the worst of {} blocks and {} layers, on {} tokens; docs/evaluation.md explains the columns",
                  r.blocks.size(), r.layers.size(), grouped(r.tokens)));
}

}  // namespace

void print_evaluation(const Evaluation& evaluation) {
  if (evaluation.text) print(*evaluation.text);
  if (evaluation.text && !evaluation.tasks.empty()) print_line();
  if (evaluation.labels) print(*evaluation.labels);
  if (!evaluation.tasks.empty()) print(evaluation.tasks);
  if (evaluation.layers) print(*evaluation.layers);
}

}  // namespace nibble::cli
