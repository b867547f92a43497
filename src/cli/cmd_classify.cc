#include <fmt/format.h>

#include <optional>

#include "cli/commands.h"
#include "cli/label_args.h"
#include "cli/model_args.h"
#include "cli/npy.h"
#include "cli/print.h"
#include "core/error.h"
#include "nibble/classify.h"

namespace nibble::cli {
namespace {

constexpr size_t kShownText = 60;

struct Inputs {
  std::vector<std::string> texts;
  std::optional<std::string> pair, ids, token_type_ids;
  LabelArgs labels;

  void declare(Args& args) {
    args.list("--text", texts, "TEXT", "a text; may be repeated");
    args.option("--text-pair", pair, "TEXT", "the second text that belongs to --text");
    labels.declare(args, "texts, with labels or without");
    args.option("--ids", ids, "1,2,3", "token ids instead of text");
    args.option("--token-type-ids", token_type_ids, "0,0,1", "with --ids: the segment of each id");
  }

  void check() const {
    const int given = (texts.empty() ? 0 : 1) + (labels.file ? 1 : 0) + (ids ? 1 : 0);
    if (given != 1) fail(ErrorCode::invalid_argument, "give the texts with one of --text, --file and --ids");
    if (pair && texts.size() != 1) fail(ErrorCode::invalid_argument, "--text-pair needs exactly one --text");
    if (token_type_ids && !ids) fail(ErrorCode::invalid_argument, "--token-type-ids needs --ids");
  }
};

struct Result {
  std::vector<TextInput> inputs;  // empty when ids were given
  std::vector<Prediction> predictions;
  std::optional<LabelScores> scores;
};

Result run(const SequenceClassifier& model, const Inputs& given, const Common& common) {
  const ClassifyOptions options = given.labels.options(common);
  Result result;
  if (given.ids) {
    EncodedText text = {.ids = parse_ids(*given.ids, "--ids")};
    if (given.token_type_ids) text.token_type_ids = parse_ids(*given.token_type_ids, "--token-type-ids");
    result.predictions = model.classify(std::vector<EncodedText>{text}, options);
    return result;
  }
  LabelledTexts data;
  if (given.labels.file) data = given.labels.read();
  for (const std::string& text : given.texts) data.inputs.push_back({.text = text, .pair = given.pair});
  const std::vector<int64_t> labels = data.labels.empty() ? std::vector<int64_t>() : label_ids(model, data);
  result.predictions = model.classify(data.inputs, options);
  if (!labels.empty()) result.scores = score_labels(result.predictions, labels);
  result.inputs = std::move(data.inputs);
  return result;
}

Json to_json(const Result& result) {
  Json predictions = Json::array();
  for (const Prediction& p : result.predictions) {
    Json logits = Json::array();
    for (const float logit : p.logits) logits.push_back(logit);
    predictions.push_back(
        Json::object({{"label", p.label}, {"label_id", p.label_id}, {"score", p.score}, {"logits", logits}}));
  }
  Json out = Json::object({{"predictions", predictions}});
  if (result.scores) {
    out.set("accuracy", result.scores->accuracy);
    out.set("f1", result.scores->f1);
  }
  return out;
}

/// The text's beginning, cut between characters.
std::string shortened(const std::string& text) {
  if (text.size() <= kShownText) return printable(text);
  size_t end = kShownText;
  while (end > 0 && (text[end] & 0xc0) == 0x80) --end;
  return printable(text.substr(0, end)) + "...";
}

void print_result(const Result& result) {
  std::vector<std::vector<std::string>> rows = {{"label", "score", "text"}};
  for (size_t i = 0; i < result.predictions.size(); ++i) {
    const Prediction& p = result.predictions[i];
    rows.push_back({p.label, fixed(p.score, 4), i < result.inputs.size() ? shortened(result.inputs[i].text) : ""});
  }
  print_table(rows);
  if (result.scores) {
    print_line(fmt::format("  accuracy {:.2f} %, F1 {:.2f} % on {} texts", 100 * result.scores->accuracy,
                           100 * result.scores->f1, grouped(static_cast<int64_t>(result.predictions.size()))));
  }
}

void write_logits(const std::string& path, const Result& result) {
  std::vector<float> values;
  for (const Prediction& p : result.predictions) values.insert(values.end(), p.logits.begin(), p.logits.end());
  const auto rows = static_cast<int64_t>(result.predictions.size());
  write_npy(path, values, {rows, static_cast<int64_t>(values.size()) / rows});
}

}  // namespace

int cmd_classify(const Arguments& arguments) {
  Common common;
  ModelArgs model_args;
  Inputs inputs;
  std::string npy;
  Args args("classify", "Labels for texts, and how sure the model is.",
            "  nibble classify bert-sst2 --text \"a charming and often affecting journey\"\n"
            "  nibble classify bert-sst2 --format int8-dynamic --file dev.tsv --json\n"
            "  nibble classify bert-mnli --text \"It rains.\" --text-pair \"The street is wet.\"");
  model_args.declare(args);
  inputs.declare(args);
  args.option("--npy", npy, "FILE", "write the logits as float32 [texts, labels]");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  common.apply();
  inputs.check();
  const JsonReport json;
  const SequenceClassifier model = model_args.load<AutoModelForSequenceClassification>(common);
  const Result result = run(model, inputs, common);
  if (!npy.empty()) write_logits(npy, result);
  if (common.json) {
    json.print(model_args.model, to_json(result));
  } else {
    print_result(result);
  }
  return 0;
}

}  // namespace nibble::cli
