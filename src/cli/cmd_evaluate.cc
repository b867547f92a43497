#include <limits>

#include "cli/commands.h"
#include "cli/evaluate_output.h"
#include "cli/label_args.h"
#include "cli/model_args.h"
#include "cli/print.h"
#include "core/error.h"
#include "core/limits.h"
#include "nibble/evaluate.h"
#include "nibble/evaluate_choices.h"
#include "nibble/evaluate_layers.h"
#include "nibble/report.h"
#include "tasks/loaded_model.h"
#include "text/text_file.h"

namespace nibble::cli {
namespace {

using Chunks = std::vector<std::vector<int32_t>>;

struct Data {
  std::optional<std::string> text, ids_file;
  LabelArgs labels;
  std::vector<std::string> tasks;
  int64_t max_questions = 0;

  void declare(Args& args) {
    args.option("--text", text, "FILE", "text to score, UTF-8");
    args.option("--ids-file", ids_file, "FILE.json", "token ids to score: a list, or a list of chunks");
    args.repeated("--tasks", tasks, "FILE.jsonl", "questions to answer by log-likelihood; may be repeated");
    args.option("--max-questions", max_questions, "use only the first N questions of each file; 0 = all");
    labels.declare(args, "labelled texts instead, for a classifier");
  }
  bool has_text() const { return text || ids_file; }
};

struct References {
  std::optional<std::string> model, load, save;

  void declare(Args& args) {
    args.option("--reference", model, "MODEL", "the original to compare with");
    args.option("--save-reference", save, "FILE", "keep the predictions of the reference (without one, of MODEL)");
    args.option("--load-reference", load, "FILE", "compare with such a file instead of --reference");
  }
  bool given() const { return model || load; }
  std::string name() const { return model ? *model : load.value_or(""); }
};

struct Request {
  Common common;
  ModelArgs model_args;
  Data data;
  References references;
  std::optional<int64_t> context;
  bool second_half = false, layers = false;
  std::string kv_dtype = "fp32";
  std::optional<std::string> report;
  EvaluateOptions options;
  EvaluateGates gates;
};

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
  if (list.empty()) fail(ErrorCode::format, path + ": is empty: it has no ids");
  if (!list[0].is_array()) return evaluation_chunks(ids_from(file, path), options);
  if (options.stride > 0) {
    fail(ErrorCode::invalid_argument, path + ": holds chunks, which --stride cannot cut; give one flat list of ids");
  }
  Chunks chunks;
  for (const Json& chunk : list) chunks.push_back(ids_from(chunk, path));
  return chunks;
}

Chunks read_chunks(const Request& request, const CausalLM& model) {
  const Data& data = request.data;
  if (data.ids_file) return chunks_from_file(*data.ids_file, request.options);
  const std::string text = read_utf8_file(*data.text, limits::kMaxJsonBytes);
  if (text.empty()) fail(ErrorCode::format, *data.text + ": is empty");
  Chunks chunks = evaluation_chunks(model, text, request.options);
  const bool is_short = chunks.size() == 1 && static_cast<int64_t>(chunks[0].size()) < request.options.context;
  if (request.context && is_short) {
    fail(ErrorCode::invalid_argument, *data.text + ": has " + std::to_string(chunks[0].size()) +
                                          " ids, fewer than the --context of " + std::to_string(*request.context) +
                                          "; give a smaller one, or none");
  }
  return chunks;
}

void check_data(const Request& request) {
  const Data& data = request.data;
  const int kinds = (data.text ? 1 : 0) + (data.ids_file ? 1 : 0) + (data.labels.file ? 1 : 0);
  if (kinds > 1 || (kinds == 0 && data.tasks.empty()) || (data.labels.file && !data.tasks.empty())) {
    fail(ErrorCode::invalid_argument,
         "give the data with one of --text, --ids-file and --file, and --tasks alone or beside the first two");
  }
  if (data.labels.file && request.kv_dtype != "fp32") {
    fail(ErrorCode::invalid_argument, "--kv-dtype is for language models: a classifier has no cache");
  }
  const References& references = request.references;
  if (references.model && references.load) {
    fail(ErrorCode::invalid_argument, "--reference and --load-reference stand instead of each other");
  }
  if ((references.load || references.save) && !data.has_text()) {
    fail(ErrorCode::invalid_argument, "--save-reference and --load-reference are for --text and --ids-file");
  }
  if (references.load && !data.tasks.empty()) {
    fail(ErrorCode::invalid_argument, "--tasks cannot be compared with --load-reference; give --reference");
  }
  if (request.layers && (!references.model || (kinds == 0))) {
    fail(ErrorCode::invalid_argument, "--layers needs --reference, and a text or labelled texts to run on");
  }
  if (request.layers && request.kv_dtype != "fp32") {
    fail(ErrorCode::invalid_argument, "--layers measures without a cache: leave --kv-dtype out");
  }
}

bool has_text_gates(const EvaluateGates& gates) {
  return gates.max_kl || gates.max_perplexity_increase || gates.min_top1;
}

/// A gate, and the values that what it looks at can have.
struct Limit {
  const char* option;
  std::optional<double> value;
  double least;
  const char* expected;
  double most = std::numeric_limits<double>::max();

  void check() const {
    if (!value || (*value >= least && *value <= most)) return;
    fail(ErrorCode::invalid_argument,
         std::string(option) + ": found " + std::to_string(*value) + ", expected " + expected);
  }
};

void check_gates(const Request& request) {
  const EvaluateGates& gates = request.gates;
  const Data& data = request.data;
  const Limit limits[] = {{"--max-kl", gates.max_kl, 0, "at least 0"},
                          {"--max-perplexity-increase", gates.max_perplexity_increase, -1, "at least -1"},
                          {"--min-top1", gates.min_top1, 0, "0 to 1", 1},
                          {"--max-accuracy-drop", gates.max_accuracy_drop, -1, "-1 to 1", 1}};
  for (const Limit& limit : limits) limit.check();
  if ((has_text_gates(gates) || gates.max_accuracy_drop) && !request.references.given()) {
    fail(ErrorCode::invalid_argument, "gates such as --max-kl and --max-accuracy-drop need --reference");
  }
  if (has_text_gates(gates) && !data.has_text()) {
    fail(ErrorCode::invalid_argument, "labels and questions have one gate: --max-accuracy-drop");
  }
  if (gates.max_accuracy_drop && !data.labels.file && data.tasks.empty()) {
    fail(ErrorCode::invalid_argument, "--max-accuracy-drop needs labelled texts (--file) or questions (--tasks)");
  }
}

void evaluate_text(Request& request, const CausalLM& model, const CausalLM* reference, Evaluation& evaluation) {
  EvaluateOptions& options = request.options;
  const Chunks chunks = read_chunks(request, model);
  options.progress = progress_bar(request.common);
  options.save_reference = request.references.save.value_or("");
  options.head_cost = true;
  if (request.references.load) {
    evaluation.text = evaluate(model, SavedReference::open(*request.references.load), chunks, options);
  } else {
    evaluation.text = evaluate(model, reference, chunks, options);
  }
  if (request.layers) {
    evaluation.layers = evaluate_layers(model, *reference, chunks[0], {.progress = progress_bar(request.common)});
  }
}

Evaluation evaluate_causal(Request& request) {
  const CausalLM model = request.model_args.load(request.common);
  request.options.kv_dtype = parse_kv_dtype(request.kv_dtype).value_or(model.internal().kv_dtype);
  std::optional<CausalLM> reference;
  if (request.references.model) {
    reference =
        AutoModelForCausalLM::from_pretrained(*request.references.model, {.progress = progress_bar(request.common)});
  }
  const CausalLM* original = reference ? &*reference : nullptr;
  Evaluation evaluation;
  if (request.data.has_text()) evaluate_text(request, model, original, evaluation);
  for (const std::string& path : request.data.tasks) {
    const ChoiceTask task = read_choice_task(path, request.data.max_questions);
    evaluation.tasks.push_back(evaluate_choices(model, original, task,
                                                {.kv_dtype = request.options.kv_dtype,
                                                 .seed = request.options.seed,
                                                 .progress = progress_bar(request.common)}));
  }
  return evaluation;
}

Evaluation evaluate_classifier(const Request& request) {
  const LabelledTexts texts = request.data.labels.read();
  const auto model = request.model_args.load<AutoModelForSequenceClassification>(request.common);
  std::optional<SequenceClassifier> reference;
  if (request.references.model) {
    reference = AutoModelForSequenceClassification::from_pretrained(*request.references.model,
                                                                    {.progress = progress_bar(request.common)});
  }
  Evaluation evaluation;
  evaluation.labels = evaluate_labels(model, reference ? &*reference : nullptr, texts,
                                      request.data.labels.options(request.common), request.options.seed);
  if (request.layers) {
    evaluation.layers = evaluate_layers(model, *reference, texts.inputs, {.progress = progress_bar(request.common)});
  }
  return evaluation;
}

void judge(const Request& request, Evaluation& evaluation) {
  evaluation.is_gated = has_text_gates(request.gates) || request.gates.max_accuracy_drop;
  const auto add = [&](const auto& report) {
    const std::vector<std::string> failed = report.failed_gates(request.gates);
    evaluation.failed.insert(evaluation.failed.end(), failed.begin(), failed.end());
  };
  if (evaluation.text) add(*evaluation.text);
  if (evaluation.labels) add(*evaluation.labels);
  for (const ChoiceReport& task : evaluation.tasks) add(task);
}

int finish(const Request& request, Evaluation evaluation, const JsonReport& json) {
  evaluation.model = request.model_args.model;
  evaluation.reference = request.references.name();
  judge(request, evaluation);
  const std::string text = json.text(evaluation.model, to_json(evaluation));
  if (request.common.json) {
    print_line(text);
  } else {
    print_evaluation(evaluation);
  }
  for (const std::string& reason : evaluation.failed) note("nibble: gate failed: " + reason);
  if (request.report) write_report(*request.report, page_of(evaluation, text));
  return evaluation.failed.empty() ? 0 : kGateFailed;
}

void declare(Args& args, Request& request) {
  request.model_args.declare(args);
  ModelArgs::declare_head(args, request.model_args.head);
  request.references.declare(args);
  request.data.declare(args);
  args.option("--context", request.context, "ids per chunk; default 512");
  args.option("--max-tokens", request.options.max_tokens, "use only the first N ids; 0 = all");
  args.option("--stride", request.options.stride, "overlapping chunks that begin N ids apart; 0 = no overlap");
  args.flag("--second-half", request.second_half, "score the second half of each chunk, as llama.cpp does");
  args.option("--kv-dtype", request.kv_dtype, "DTYPE",
              "of MODEL's keys and values: fp32 (default), fp16, bf16 or int8; auto: as generate has it");
  args.flag("--layers", request.layers, "errors by layer too");
  args.option("--report", request.report, "FILE.html", "write a page with tables and plots");
  args.option("--seed", request.options.seed, "of the resampling behind the intervals");
  EvaluateGates& gates = request.gates;
  args.option("--max-kl", gates.max_kl, "gate: exit 7 when the mean KL divergence (nats) is above");
  args.option("--max-perplexity-increase", gates.max_perplexity_increase, "gate: relative, 0.02 = 2 %");
  args.option("--min-top1", gates.min_top1, "gate: share of positions with the same likeliest token");
  args.option("--max-accuracy-drop", gates.max_accuracy_drop,
              "gate: with --file and --tasks, absolute: 0.01 = one text in 100");
  request.common.declare(args);
}

}  // namespace

int cmd_evaluate(const Arguments& arguments) {
  Request request;
  Args args("evaluate", "What a model is worth on data, and what was lost against the original.",
            "  nibble evaluate smollm2-nf4 --reference smollm2-135m --text wiki.txt --max-tokens 8192\n"
            "  nibble evaluate smollm2-135m --format int8 --reference smollm2-135m --text wiki.txt --max-kl 0.05\n"
            "  nibble evaluate smollm2-135m --head nf4 --kv-dtype int8 --reference smollm2-135m --text wiki.txt\n"
            "  nibble evaluate smollm2-135m --text wiki.txt --save-reference wiki.ref\n"
            "  nibble evaluate smollm2-nf4 --text wiki.txt --load-reference wiki.ref\n"
            "  nibble evaluate smollm2-nf4 --reference smollm2-135m --text wiki.txt --layers --report nf4.html\n"
            "  nibble evaluate smollm2-nf4 --reference smollm2-135m --tasks piqa.jsonl --tasks lambada.jsonl\n"
            "  nibble evaluate bert-sst2-int8 --reference bert-sst2 --file dev.tsv --max-accuracy-drop 0.01");
  declare(args, request);
  if (!args.parse(arguments)) return 0;
  request.common.apply();
  check_gates(request);
  check_data(request);
  request.options.context = request.context.value_or(request.options.context);
  if (request.options.context < 2) fail(ErrorCode::invalid_argument, "--context: expected at least 2");
  parse_kv_dtype(request.kv_dtype);
  if (request.second_half) request.options.scored = ScoredPart::second_half;
  const JsonReport json;
  Evaluation evaluation = request.data.labels.file ? evaluate_classifier(request) : evaluate_causal(request);
  return finish(request, std::move(evaluation), json);
}

}  // namespace nibble::cli
