#include <fmt/format.h>

#include <cctype>
#include <charconv>

#include "cli/commands.h"
#include "cli/print.h"
#include "core/error.h"
#include "nibble/recommend.h"
#include "tasks/plan_text.h"

namespace nibble::cli {
namespace {

struct Given {
  std::string model, task = "inference", device = "server", accuracy = "balanced";
  std::optional<std::string> memory, text;
  bool measure = false;
  RecommendOptions options;

  void declare(Args& args);
  RecommendOptions resolve(const Common& common) const;
};

void Given::declare(Args& args) {
  RecommendOptions& o = options;
  args.positional("MODEL", model, "folder, config.json, .gguf file, hub id, or a built-in name (plan --names)");
  args.option("--memory", memory, "SIZE", "what there is, for example 8GB; default: what is free here");
  args.option("--task", task, "TASK", "inference (default), finetune or train");
  args.option("--device", device, "DEVICE", "where it is to run: server (default), edge or gpu");
  args.option("--accuracy", accuracy, "WISH", "best, balanced (default), smallest, or the largest KL in nats: 0.05");
  args.option("--context", o.context, "positions per sequence; 0 = the model's own, at most 4096");
  args.option("--batch", o.batch, "sequences at the same time");
  args.option("--prompt-tokens", o.prompt_tokens, "the longest prompt; 0 = as long as the context");
  args.option("--lora-r", o.lora_r, "finetune: rank of the adapters");
  args.flag("--measure", measure, "also evaluate what fits on --text, and rank by KL per byte saved");
  args.option("--text", text, "FILE", "with --measure: text of the kind the model is used on");
  args.option("--max-tokens", o.measure_tokens, "with --measure: use the first N ids of the text; 0 = all");
}

/// A word, or a number as the largest KL.
void read_accuracy(const std::string& wish, RecommendOptions& o) {
  if (wish.empty() || !(std::isdigit(static_cast<unsigned char>(wish[0])) || wish[0] == '.')) {
    o.accuracy = parse_accuracy_wish(wish);
    return;
  }
  double kl = 0;
  const char* last = wish.data() + wish.size();
  const auto [end, error] = std::from_chars(wish.data(), last, kl);
  if (error != std::errc() || end != last) {
    fail(ErrorCode::invalid_argument, "--accuracy: '" + wish + "' is neither a word nor a number of nats such as 0.05");
  }
  o.max_kl = kl;
}

RecommendOptions Given::resolve(const Common& common) const {
  RecommendOptions o = options;
  o.goal = parse_goal(task);
  o.device = parse_device(device);
  read_accuracy(accuracy, o);
  if (memory) o.memory = parse_size(*memory, "--memory");
  if (measure != text.has_value()) fail(ErrorCode::invalid_argument, "--measure and --text FILE go together");
  if (text) o.measure_text = *text;
  o.progress = progress_bar(common);
  return o;
}

Json strings(const std::vector<std::string>& list) {
  Json out = Json::array();
  for (const std::string& text : list) out.push_back(text);
  return out;
}

Json measured_json(const MeasuredLoss& m) {
  return Json::object({{"perplexity", m.perplexity},
                       {"reference_perplexity", m.reference_perplexity},
                       {"kl_mean", m.kl_mean},
                       {"top1_agreement", m.top1_agreement},
                       {"tokens_per_second", m.tokens_per_second},
                       {"bytes", m.bytes},
                       {"reference_bytes", m.reference_bytes},
                       {"kl_per_gigabyte_saved", m.kl_per_gigabyte_saved}});
}

Json method_json(const PlanOptions& c) {
  if (c.task != PlanTask::finetune) return Json();
  return c.method == TrainingMethod::full ? "full" : c.method == TrainingMethod::qlora ? "qlora" : "lora";
}

Json candidate_json(const Candidate& c) {
  const PlanOptions& o = c.configuration;
  Json out = Json::object({{"label", c.label()},
                           {"flags", c.flags()},
                           {"format", c.plan.format},
                           {"double_quant", o.double_quant},
                           {"compute_dtype", dtype_name(c.compute_dtype)},
                           {"method", method_json(o)},
                           {"weights_bytes", c.plan.weights_bytes},
                           {"total_bytes", c.plan.total_bytes},
                           {"fits", c.plan.fits},
                           {"expected_kl", c.expected_kl ? Json(*c.expected_kl) : Json()},
                           {"measured", c.measured ? measured_json(*c.measured) : Json()}});
  if (o.task == PlanTask::finetune) {
    out.set("optimizer", o.optimizer == OptimizerKind::adamw8bit ? "adamw8bit" : "adamw");
    out.set("gradient_checkpointing", o.gradient_checkpointing);
    if (o.method != TrainingMethod::full) out.set("lora_r", o.lora_r);
  }
  return out;
}

Json to_json(const Recommendation& r) {
  Json choice = candidate_json(r.choice);
  choice.set("cpp", r.choice.cpp_snippet());
  choice.set("python", r.choice.python_snippet());
  Json alternatives = Json::array();
  for (const Candidate& c : r.alternatives) {
    Json row = candidate_json(c);
    row.set("remark", c.remark);
    alternatives.push_back(row);
  }
  return Json::object({{"memory_bytes", r.memory},
                       {"recommendation", choice},
                       {"fits", r.fits},
                       {"reasons", strings(r.reasons)},
                       {"alternatives", alternatives}});
}

std::string indented(const std::string& text) {
  std::string out = "  ";
  for (const char c : text) out += c == '\n' ? std::string("\n  ") : std::string(1, c);
  return out;
}

void print_recommendation(const Recommendation& r) {
  print_line(fmt::format("{}: {}{}", r.model, r.choice.label(), r.fits ? "" : " (does not fit)"));
  print_line("  " + r.choice.flags());
  print_line("\nwhy:");
  for (const std::string& reason : r.reasons) print_line("  - " + reason);
  if (!r.alternatives.empty()) {
    print_line("\ninstead:");
    std::vector<std::vector<std::string>> rows = {{"configuration", "total", "against the choice"}};
    for (const Candidate& c : r.alternatives) rows.push_back({c.label(), size_text(c.plan.total_bytes), c.remark});
    print_table(rows);
  }
  const PlanOptions& chosen = r.choice.configuration;
  if (chosen.task == PlanTask::inference && r.choice.plan.weights.scales > 0) {
    print_line(fmt::format("\nnext: nibble quantize {} -o OUT {}", r.model, r.choice.flags()));
  }
  print_line("\nC++:\n" + indented(r.choice.cpp_snippet()));
  print_line("Python:\n" + indented(r.choice.python_snippet()));
}

}  // namespace

int cmd_recommend(const Arguments& arguments) {
  Common common;
  Given given;
  Args args("recommend", "Which configuration to use, and why.",
            "  nibble recommend llama-2-7b --memory 8GB\n"
            "  nibble recommend mistral-7b --memory 8GB --task finetune --context 512\n"
            "  nibble recommend smollm2-135m --measure --text wiki.txt --max-tokens 2048");
  given.declare(args);
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  common.apply();
  const JsonReport json;
  const Recommendation r = recommend(given.model, given.resolve(common));
  if (common.json) {
    json.print(given.model, to_json(r));
  } else {
    print_recommendation(r);
  }
  return 0;
}

}  // namespace nibble::cli
