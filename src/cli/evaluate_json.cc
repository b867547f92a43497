#include <cmath>

#include "cli/evaluate_output.h"

namespace nibble::cli {
namespace {

/// Every figure under its name, and `intervals` with those that have one.
void set_figures(Json& out, const std::vector<Figure>& figures) {
  Json intervals = Json::object();
  for (const Figure& figure : figures) {
    out.set(figure.name, figure.value);
    if (!std::isnan(figure.low)) intervals.set(figure.name, Json::array({figure.low, figure.high}));
  }
  out.set("intervals", intervals);
}

void set_text(Json& out, const EvaluateReport& r) {
  out.set("tokens", r.tokens);
  out.set("chunks", r.chunks);
  out.set("context", r.context);
  out.set("convention", r.convention);
  set_figures(out, r.figures);
  out.set("interval_blocks", r.blocks);
  if (r.has_reference) {
    out.set("verdict", r.verdict);
    out.set("reference_bytes", r.reference_bytes);
  }
  Json stretches = Json::array();
  for (const EvaluateReport::Stretch& s : r.by_position) {
    Json stretch = Json::object({{"first", s.first}, {"last", s.last}, {"perplexity", s.perplexity}});
    if (r.has_reference) {
      stretch.set("reference_perplexity", s.reference_perplexity);
      stretch.set("kl_mean", s.kl_mean);
    }
    stretches.push_back(stretch);
  }
  out.set("by_position", stretches);
  out.set("bytes", r.bytes);
  out.set("tokens_per_second", r.tokens_per_second);
}

void set_labels(Json& out, const LabelReport& r) {
  out.set("texts", r.texts);
  set_figures(out, r.figures);
  if (r.has_reference) {
    out.set("flips", r.flips);
    out.set("verdict", r.verdict);
    out.set("reference_bytes", r.reference_bytes);
  }
  out.set("bytes", r.bytes);
  out.set("tokens_per_second", r.tokens_per_second);
}

Json task_json(const ChoiceReport& r) {
  Json out = Json::object({{"task", r.task}, {"questions", r.questions}, {"truncated", r.truncated}});
  set_figures(out, r.figures);
  if (r.has_reference) {
    out.set("flips", r.flips);
    out.set("verdict", r.verdict);
  }
  return out;
}

Json layers_json(const LayersReport& r) {
  Json layers = Json::array(), blocks = Json::array();
  for (const LayerError& layer : r.layers) {
    layers.push_back(Json::object({{"name", layer.name},
                                   {"format", layer.format},
                                   {"bytes", layer.bytes},
                                   {"weight_error", layer.weight_error},
                                   {"weight_sqnr_db", layer.weight_sqnr_db},
                                   {"output_error", layer.output_error},
                                   {"output_sqnr_db", layer.output_sqnr_db}}));
  }
  for (const BlockError& block : r.blocks) {
    blocks.push_back(Json::object({{"name", block.name}, {"hidden_error", block.hidden_error}, {"kl", block.kl}}));
  }
  return Json::object({{"tokens", r.tokens}, {"layers", layers}, {"blocks", blocks}});
}

Json gate_json(const Evaluation& evaluation) {
  if (!evaluation.is_gated) return Json();
  Json reasons = Json::array();
  for (const std::string& reason : evaluation.failed) reasons.push_back(reason);
  return Json::object({{"passed", evaluation.failed.empty()}, {"failed", reasons}});
}

}  // namespace

Json to_json(const Evaluation& evaluation) {
  Json out = Json::object();
  if (!evaluation.reference.empty()) out.set("reference", evaluation.reference);
  if (evaluation.text) set_text(out, *evaluation.text);
  if (evaluation.labels) set_labels(out, *evaluation.labels);
  if (!evaluation.tasks.empty()) {
    Json tasks = Json::array();
    for (const ChoiceReport& task : evaluation.tasks) tasks.push_back(task_json(task));
    out.set("tasks", tasks);
  }
  if (evaluation.layers) out.set("layers", layers_json(*evaluation.layers));
  out.set("gate", gate_json(evaluation));
  return out;
}

}  // namespace nibble::cli
