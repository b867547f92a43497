#include "tasks/finetune_classified.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <filesystem>
#include <limits>

#include "core/error.h"
#include "core/limits.h"
#include "nibble/classify.h"
#include "tasks/data_file.h"
#include "tasks/finetune_text.h"
#include "text/text_file.h"

namespace nibble {
namespace {

using AddSample = std::function<void(TrainingSample)>;

/// Of a regression, which cannot learn nan or inf.
float finite_target(double value, const std::string& where) {
  if (std::abs(value) <= std::numeric_limits<float>::max()) return static_cast<float>(value);
  fail(ErrorCode::format, fmt::format("{}: found {}, expected a finite number", where, value));
}

/// What a classifier should say: a class, or with one output its value.
void set_label(const LoadedModel& model, const Json& label, const std::string& where, TrainingSample& sample) {
  const auto labels = static_cast<int64_t>(model.model->info().labels.size());
  if (labels == 1) {
    sample.targets = {finite_target(label.as_double(where), where)};
    return;
  }
  const int64_t id = label.as_int(where);
  if (id < 0 || id >= labels) {
    fail(ErrorCode::format,
         where + ": found " + std::to_string(id) + ", the model has labels 0 to " + std::to_string(labels - 1));
  }
  sample.labels = {static_cast<int32_t>(id)};
}

/// As texts are: a special token at the end stays there. Returns whether there was anything to cut.
bool cut_ids(const LoadedModel& model, int64_t max_length, TrainingSample& sample) {
  const auto limit = static_cast<size_t>(max_length);
  if (sample.ids.size() <= limit) return false;
  const bool ends_specially = model.tokenizer && model.tokenizer->is_special(sample.ids.back());
  for (std::vector<int32_t>* list : {&sample.ids, &sample.token_type_ids}) {
    if (list->empty()) continue;
    const int32_t last = list->back();
    list->resize(limit);
    if (ends_specially) list->back() = last;
  }
  return true;
}

TrainingSample classified_ids(const LoadedModel& model, const Json& object, const std::string& where) {
  const int64_t vocabulary = model.model->info().vocab_size;
  TrainingSample sample = {.ids = read_ids(*object.find("input_ids"), where + ": input_ids", vocabulary)};
  if (const Json* types = object.find_value("token_type_ids")) {
    sample.token_type_ids = read_ids(*types, where + ": token_type_ids", vocabulary);
  }
  if (sample.ids.empty()) fail(ErrorCode::format, where + ": input_ids: is empty");
  if (!sample.token_type_ids.empty() && sample.token_type_ids.size() != sample.ids.size()) {
    fail(ErrorCode::format, where + ": token_type_ids: expected one for each of input_ids");
  }
  const Json* label = object.find_value("labels");
  if (label == nullptr) label = object.find_value("label");
  if (label == nullptr) fail(ErrorCode::format, where + ": labels: is missing");
  if (label->is_array()) {
    if (label->as_array("").size() != 1) fail(ErrorCode::format, where + ": labels: expected one for a classifier");
    label = &label->as_array("")[0];
  }
  set_label(model, *label, where + ": labels", sample);
  return sample;
}

/// Whether the first line of a .jsonl file that is not blank has token ids.
bool holds_ids(const std::string& path, std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return false;
  const int64_t line = 1 + std::count(text.begin(), text.begin() + static_cast<int64_t>(begin), '\n');
  text = text.substr(begin);
  return Json::parse(text.substr(0, text.find('\n')), at_line(path, line)).find("input_ids") != nullptr;
}

TrainingSample encoded(const LoadedModel& model, const TextInput& input, int64_t max_length, int64_t& truncated) {
  const Tokenizer& tokenizer = model.require_tokenizer();
  const auto encode = [&](int64_t limit) {
    if (input.pair) return tokenizer.encode_pair(input.text, *input.pair, {.max_length = limit});
    return PairEncoding{.ids = tokenizer.encode(input.text, {.max_length = limit}), .type_ids = {}};
  };
  PairEncoding both = encode(0);
  if (static_cast<int64_t>(both.ids.size()) > max_length) {
    ++truncated;
    both = encode(max_length);
  }
  if (model.model->info().model_type != "bert") both.type_ids.clear();
  return {.ids = std::move(both.ids), .token_type_ids = std::move(both.type_ids)};
}

double number_of(const std::string& text, const std::string& where) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  fail(ErrorCode::format, where + ": found '" + printable(text, 60) + "', expected a number");
}

int64_t read_labelled(const std::shared_ptr<LoadedModel>& model, const std::string& path, int64_t max_length,
                      const AddSample& add) {
  const LabelledTexts texts = read_labelled_texts(path);
  if (texts.labels.empty()) fail(ErrorCode::format, path + ": has no column label, labels or intent");
  const bool regression = model->model->info().labels.size() == 1;
  std::vector<int64_t> ids;
  if (!regression) ids = label_ids(SequenceClassifier(model), texts);
  int64_t truncated = 0;
  for (size_t i = 0; i < texts.inputs.size(); ++i) {
    TrainingSample sample = encoded(*model, texts.inputs[i], max_length, truncated);
    if (sample.ids.empty()) fail(ErrorCode::format, texts.places[i] + ": has no tokens");
    if (regression) {
      const std::string where = texts.places[i] + ": label";
      sample.targets = {finite_target(number_of(texts.labels[i], where), where)};
    } else {
      sample.labels = {static_cast<int32_t>(ids[i])};
    }
    add(std::move(sample));
    check_interrupt();
  }
  return truncated;
}

int64_t read_id_lines(const LoadedModel& model, const std::string& path, int64_t max_length, const AddSample& add) {
  int64_t truncated = 0;
  for_lines(read_utf8_file(path, limits::kMaxJsonBytes), path, [&](std::string_view line, const std::string& where) {
    const Json object = Json::parse(line, where);
    if (!object.find_value("input_ids")) fail(ErrorCode::format, where + ": input_ids: is missing");
    TrainingSample sample = classified_ids(model, object, where);
    truncated += cut_ids(model, max_length, sample);
    add(std::move(sample));
  });
  return truncated;
}

}  // namespace

int64_t read_classified(const std::shared_ptr<LoadedModel>& model, const std::string& path, int64_t max_length,
                        const AddSample& add) {
  const bool is_table = std::filesystem::path(path).extension() != ".jsonl" ||
                        !holds_ids(path, read_utf8_file(path, limits::kMaxJsonBytes));
  return is_table ? read_labelled(model, path, max_length, add) : read_id_lines(*model, path, max_length, add);
}

}  // namespace nibble
