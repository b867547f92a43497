#pragma once
// The tables that the terminal and the page of an evaluation share.
#include <string>
#include <vector>

#include "cli/evaluate_output.h"

namespace nibble::cli {

using Rows = std::vector<std::vector<std::string>>;

/// A row per figure: model, 95 % interval, reference.
Rows text_rows(const EvaluateReport& report);
Rows label_rows(const LabelReport& report);
/// What was lost on a text, a row per figure with its interval; empty without a reference.
Rows loss_rows(const EvaluateReport& report);
/// What --head alone costs; empty where the head is kept.
Rows head_rows(const EvaluateReport& report);
/// A row per task.
Rows task_rows(const std::vector<ChoiceReport>& tasks);
/// The layers and blocks that lost most.
Rows worst_layer_rows(const LayersReport& report, size_t count);
Rows worst_block_rows(const LayersReport& report, size_t count);

/// "8,176 tokens scored in 16 chunks of 512 ids, 619.5 tokens/s".
std::string text_summary(const EvaluateReport& report);
std::string label_summary(const LabelReport& report);

}  // namespace nibble::cli
