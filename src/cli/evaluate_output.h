#pragma once
// What `nibble evaluate` found, as JSON, as text and as a page.
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "nibble/evaluate.h"
#include "nibble/evaluate_choices.h"
#include "nibble/evaluate_layers.h"
#include "nibble/report.h"

namespace nibble::cli {

struct Evaluation {
  std::string model, reference;  // as the user named them; reference "" = none
  std::optional<EvaluateReport> text = {};
  std::optional<LabelReport> labels = {};
  std::vector<ChoiceReport> tasks = {};
  std::optional<LayersReport> layers = {};
  bool is_gated = false;
  std::vector<std::string> failed = {};  // gates that are not met
};

Json to_json(const Evaluation& evaluation);
void print_evaluation(const Evaluation& evaluation);
/// @param json  what the page embeds
ReportPage page_of(const Evaluation& evaluation, const std::string& json);

}  // namespace nibble::cli
