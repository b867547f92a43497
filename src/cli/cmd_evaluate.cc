#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/label_args.h"
#include "cli/model_args.h"
#include "cli/print.h"
#include "core/error.h"
#include "core/file.h"
#include "core/limits.h"
#include "nibble/evaluate.h"

namespace nibble::cli {
namespace {

struct Data {
  std::optional<std::string> text, ids_file;
  LabelArgs labels;

  void declare(Args& args) {
    args.option("--text", text, "FILE", "text to score, UTF-8");
    labels.declare(args, "labelled texts instead, for a classifier");
    args.option("--ids-file", ids_file, "FILE.json", "token ids to score: a list, or a list of chunks");
  }
};

using Chunks = std::vector<std::vector<int32_t>>;

std::vector<int32_t> ids_from(const Json& list, const std::string& where) {
  std::vector<int32_t> ids;
  for (const Json& value : list.as_array(where)) {
    const int64_t id = value.as_int(where);
    if (id < 0 || id > INT32_MAX) fail(ErrorCode::format, where + ": " + std::to_string(id) + " is not a token id");
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

/// A flat list is cut as a text is; a list of lists holds the chunks themselves.
Chunks chunks_from_file(const std::string& path, const EvaluateOptions& options) {
  const Json file = Json::parse_file(path);
  const auto& list = file.as_array(path);
  if (list.empty() || !list[0].is_array()) return evaluation_chunks(ids_from(file, path), options);
  Chunks chunks;
  for (const Json& chunk : list) chunks.push_back(ids_from(chunk, path));
  return chunks;
}

Chunks read_chunks(const Data& data, const CausalLM& model, const EvaluateOptions& options) {
  if (data.text.has_value() == data.ids_file.has_value()) {
    fail(ErrorCode::invalid_argument, "give the data with one of --text, --ids-file and --file");
  }
  if (data.ids_file) return chunks_from_file(*data.ids_file, options);
  return evaluation_chunks(model, read_text_file(*data.text, limits::kMaxJsonBytes), options);
}

Json gate_json(const std::vector<std::string>& failed, bool gated) {
  if (!gated) return Json();
  Json reasons = Json::array();
  for (const std::string& reason : failed) reasons.push_back(reason);
  return Json::object({{"passed", failed.empty()}, {"failed", reasons}});
}

Json to_json(const LabelReport& r, const std::vector<std::string>& failed, bool gated) {
  Json out = Json::object({{"texts", r.texts}, {"accuracy", r.accuracy}, {"f1", r.f1}});
  if (r.has_reference) {
    out.set("reference_accuracy", r.reference_accuracy);
    out.set("reference_f1", r.reference_f1);
    out.set("flips", r.flips);
    out.set("reference_bytes", r.reference_bytes);
  }
  out.set("bytes", r.bytes);
  out.set("tokens_per_second", r.tokens_per_second);
  out.set("gate", gate_json(failed, gated));
  return out;
}

Json to_json(const EvaluateReport& r, const std::vector<std::string>& failed, bool gated) {
  Json out = Json::object({{"tokens", r.tokens}, {"chunks", r.chunks}, {"perplexity", r.perplexity}});
  if (r.has_reference) {
    out.set("reference_perplexity", r.reference_perplexity);
    out.set("kl_mean", r.kl_mean);
    out.set("kl_p50", r.kl_p50);
    out.set("kl_p90", r.kl_p90);
    out.set("kl_p99", r.kl_p99);
    out.set("kl_max", r.kl_max);
    out.set("top1_agreement", r.top1_agreement);
    out.set("reference_bytes", r.reference_bytes);
  }
  out.set("bytes", r.bytes);
  out.set("tokens_per_second", r.tokens_per_second);
  out.set("gate", gate_json(failed, gated));
  return out;
}

void print_report(const LabelReport& r) {
  std::vector<std::vector<std::string>> rows = {{"", "model", "reference"}};
  const auto row = [&](const char* name, const std::string& value, const std::string& reference) {
    rows.push_back({name, value, r.has_reference ? reference : ""});
  };
  row("accuracy", fixed(100 * r.accuracy, 2) + " %", fixed(100 * r.reference_accuracy, 2) + " %");
  row("F1", fixed(100 * r.f1, 2) + " %", fixed(100 * r.reference_f1, 2) + " %");
  row("weights", human_bytes(r.bytes), human_bytes(r.reference_bytes));
  print_table(rows);
  print_line(fmt::format("  {} texts, {:.1f} tokens/s", grouped(r.texts), r.tokens_per_second));
  if (r.has_reference) print_line(fmt::format("  {} texts get another label than from the reference", r.flips));
}

void print_report(const EvaluateReport& r) {
  std::vector<std::vector<std::string>> rows = {{"", "model", "reference"}};
  const auto row = [&](const char* name, const std::string& value, const std::string& reference) {
    rows.push_back({name, value, r.has_reference ? reference : ""});
  };
  row("perplexity", fixed(r.perplexity, 4), fixed(r.reference_perplexity, 4));
  row("weights", human_bytes(r.bytes), human_bytes(r.reference_bytes));
  print_table(rows);
  print_line(fmt::format("  {} tokens scored in {} chunks, {:.1f} tokens/s", grouped(r.tokens), grouped(r.chunks),
                         r.tokens_per_second));
  if (!r.has_reference) return;
  print_line(fmt::format("  perplexity {:+.2f} %, KL {:.5f} nats (median {:.5f}, 90 % {:.5f}, 99 % {:.5f}, max {:.3f})",
                         100 * (r.perplexity / r.reference_perplexity - 1), r.kl_mean, r.kl_p50, r.kl_p90, r.kl_p99,
                         r.kl_max));
  print_line(fmt::format("  same likeliest token in {:.2f} % of the positions", 100 * r.top1_agreement));
}

bool text_gates(const EvaluateGates& gates) { return gates.max_kl || gates.max_perplexity_increase || gates.min_top1; }

void check_gates(const EvaluateGates& gates, const Data& data, const std::optional<std::string>& reference) {
  if ((text_gates(gates) || gates.max_accuracy_drop) && !reference) {
    fail(ErrorCode::invalid_argument, "gates such as --max-kl and --max-accuracy-drop need --reference");
  }
  if (data.labels.file && text_gates(gates)) {
    fail(ErrorCode::invalid_argument, "--file has labels: its gate is --max-accuracy-drop");
  }
  if (!data.labels.file && gates.max_accuracy_drop) {
    fail(ErrorCode::invalid_argument, "--max-accuracy-drop needs labelled texts (--file)");
  }
}

struct Run {
  Common common;
  ModelArgs model_args;
  Data data;
  std::optional<std::string> reference_path;
  EvaluateOptions options;
  EvaluateGates gates;
};

int finish(const std::vector<std::string>& failed) {
  for (const std::string& reason : failed) note("nibble: gate failed: " + reason);
  return failed.empty() ? 0 : kGateFailed;
}

int evaluate_texts(Run& run, const JsonReport& json) {
  const CausalLM model = run.model_args.load(run.common);
  std::optional<CausalLM> reference;
  if (run.reference_path) {
    reference = AutoModelForCausalLM::from_pretrained(*run.reference_path, {.progress = progress_bar(run.common)});
  }
  const Chunks chunks = read_chunks(run.data, model, run.options);
  run.options.progress = progress_bar(run.common);
  const EvaluateReport report = evaluate(model, reference ? &*reference : nullptr, chunks, run.options);
  const std::vector<std::string> failed = report.failed_gates(run.gates);
  if (run.common.json) {
    json.print(run.model_args.model, to_json(report, failed, text_gates(run.gates)));
  } else {
    print_report(report);
  }
  return finish(failed);
}

int evaluate_labelled(const Run& run, const JsonReport& json) {
  if (run.data.text || run.data.ids_file) {
    fail(ErrorCode::invalid_argument, "give the data with one of --text, --ids-file and --file");
  }
  const LabelledTexts texts = run.data.labels.read();
  const SequenceClassifier model = AutoModelForSequenceClassification::from_pretrained(
      run.model_args.model, run.model_args.load_options(run.common));
  std::optional<SequenceClassifier> reference;
  if (run.reference_path) {
    reference = AutoModelForSequenceClassification::from_pretrained(*run.reference_path,
                                                                    {.progress = progress_bar(run.common)});
  }
  const LabelReport report =
      evaluate_labels(model, reference ? &*reference : nullptr, texts, run.data.labels.options(run.common));
  const std::vector<std::string> failed = report.failed_gates(run.gates);
  if (run.common.json) {
    json.print(run.model_args.model, to_json(report, failed, run.gates.max_accuracy_drop.has_value()));
  } else {
    print_report(report);
  }
  return finish(failed);
}

}  // namespace

int cmd_evaluate(const Arguments& arguments) {
  Run run;
  Args args("evaluate", "What a model is worth on data, and what was lost against the original.",
            "  nibble evaluate smollm2-nf4 --reference smollm2-135m --text wiki.txt --max-tokens 8192\n"
            "  nibble evaluate smollm2-135m --format int8 --reference smollm2-135m --text wiki.txt --max-kl 0.05\n"
            "  nibble evaluate bert-sst2-int8 --reference bert-sst2 --file dev.tsv --max-accuracy-drop 0.01");
  auto& [common, model_args, data, reference_path, options, gates] = run;
  model_args.declare(args);
  args.option("--reference", reference_path, "MODEL", "the original to compare with");
  data.declare(args);
  args.option("--context", options.context, "ids per chunk");
  args.option("--max-tokens", options.max_tokens, "use only the first N ids; 0 = all");
  args.option("--max-kl", gates.max_kl, "gate: exit 7 when the mean KL divergence (nats) is above");
  args.option("--max-perplexity-increase", gates.max_perplexity_increase, "gate: relative, 0.02 = 2 %");
  args.option("--min-top1", gates.min_top1, "gate: share of positions with the same likeliest token");
  args.option("--max-accuracy-drop", gates.max_accuracy_drop, "gate: with --file, absolute: 0.01 = one text in 100");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  common.apply();
  check_gates(gates, data, reference_path);
  if (options.context < 2) fail(ErrorCode::invalid_argument, "--context: expected at least 2");
  const JsonReport json;
  return data.labels.file ? evaluate_labelled(run, json) : evaluate_texts(run, json);
}

}  // namespace nibble::cli
