#include "tasks/finetune_text.h"

#include <algorithm>

#include "core/error.h"
#include "ops/cross_entropy.h"
#include "tasks/data_file.h"
#include "tasks/finetune_chat.h"

namespace nibble {
namespace {

constexpr size_t kOpenBytes = 4096;  // a longer text has words enough that a piece far behind does not change them

std::string text_or_none(const Json& object, const char* key, const std::string& where) {
  return object.find_value(key) ? text_of(object, key, where) : std::string();
}

const Json* answer_of(const Json& object) {
  const Json* answer = object.find_value("completion");
  return answer ? answer : object.find_value("response");
}

// The prompt of the Alpaca data set (github.com/tatsu-lab/stanford_alpaca), which models are trained to expect.
std::string alpaca_prompt(const std::string& instruction, const std::string& input) {
  const std::string opening = "Below is an instruction that describes a task";
  const std::string request = "Write a response that appropriately completes the request.\n\n### Instruction:\n";
  if (input.empty()) return opening + ". " + request + instruction + "\n\n### Response:\n";
  return opening + ", paired with an input that provides further context. " + request + instruction +
         "\n\n### Input:\n" + input + "\n\n### Response:\n";
}

struct Speaker {
  std::string_view from, role;
};
constexpr Speaker kSpeakers[] = {{"human", "user"},        {"user", "user"},           {"gpt", "assistant"},
                                 {"chatgpt", "assistant"}, {"assistant", "assistant"}, {"system", "system"}};

std::string_view role_of(const std::string& from, const std::string& where) {
  std::string known;
  for (const Speaker& speaker : kSpeakers) {
    if (speaker.from == from) return speaker.role;
    known += (known.empty() ? "" : ", ") + std::string(speaker.from);
  }
  fail(ErrorCode::format, where + ": from: found '" + printable(from, 60) + "', expected one of " + known);
}

/// The special tokens that a tokenizer puts in front of a text.
std::vector<int32_t> opening_of(const Tokenizer& tokenizer) {
  const std::vector<int32_t> around = tokenizer.encode("a");
  const std::vector<int32_t> text = tokenizer.encode("a", {.add_special_tokens = false});
  return {around.begin(), std::search(around.begin(), around.end(), text.begin(), text.end())};
}

}  // namespace

// Those that the tokenizer puts behind a text are left to the caller, who knows where it ends.
MaskedText::MaskedText(const Tokenizer& tokenizer, bool add_special_tokens) : tokenizer_(tokenizer) {
  if (add_special_tokens) sample_.ids = opening_of(tokenizer);
  open_ids_ = sample_.ids.size();
}

std::vector<int32_t> MaskedText::encode_open() const {
  return tokenizer_.encode(open_, {.add_special_tokens = false, .continues = !at_start_});
}

void MaskedText::add(std::string_view piece, bool trained) {
  std::vector<int32_t>& ids = sample_.ids;
  open_ += piece;
  std::vector<int32_t> all = encode_open();
  const size_t known = ids.size() - open_ids_;
  const bool goes_on =
      all.size() >= known && std::equal(ids.begin() + static_cast<int64_t>(open_ids_), ids.end(), all.begin());
  if (goes_on) {
    all.erase(all.begin(), all.begin() + static_cast<int64_t>(known));
  } else {
    begin_open_at(open_.size() - piece.size(), ids.size());
    all = encode_open();
  }
  ids.insert(ids.end(), all.begin(), all.end());
  for (size_t i = sample_.labels.size(); i < ids.size(); ++i) sample_.labels.push_back(trained ? ids[i] : kNoLabel);
  close(piece.size());
}

void MaskedText::begin_open_at(size_t byte, size_t id) {
  open_.erase(0, byte);
  open_ids_ = id;
  at_start_ = false;
}

/// Lets the open text begin later, where that changes no ids.
void MaskedText::close(size_t piece_bytes) {
  size_t begin = tokenizer_.last_added_token(open_);
  if (begin == 0 && piece_bytes > 0 && open_.size() > kOpenBytes) begin = open_.size() - piece_bytes;
  if (begin == 0) return;
  const std::vector<int32_t>& ids = sample_.ids;
  const std::vector<int32_t> rest =
      tokenizer_.encode(std::string_view(open_).substr(begin), {.add_special_tokens = false, .continues = true});
  const bool same = rest.size() <= ids.size() - open_ids_ && std::equal(rest.rbegin(), rest.rend(), ids.rbegin());
  if (!same) return;
  begin_open_at(begin, ids.size() - rest.size());
}

void MaskedText::add_id(int32_t id, bool trained) {
  sample_.ids.push_back(id);
  sample_.labels.push_back(trained ? id : kNoLabel);
}

struct SampleReader::Row {
  const char* key;  // a line that has it is of this kind
  TrainingSample (SampleReader::*read)(const Json& object, const std::string& where) const;
};
const SampleReader::Row SampleReader::kRows[] = {
    {"input_ids", &SampleReader::token_ids},    {"messages", &SampleReader::messages},
    {"conversations", &SampleReader::sharegpt}, {"prompt", &SampleReader::completion},
    {"instruction", &SampleReader::alpaca},     {"text", &SampleReader::text},
};

SampleReader::SampleReader(const LoadedModel& model) : model_(model), variables_(model.chat_variables()) {
  if (model.chat_template) template_.emplace(*model.chat_template, model.path + ": chat template");
  if (model.tokenizer) eos_ = model.tokenizer->special().eos;
  const std::vector<int32_t> end_ids = model.end_ids();
  if (!eos_ && !end_ids.empty()) eos_ = end_ids.front();
}

TrainingSample SampleReader::read(const Json& object, const std::string& where) const {
  std::string known;
  for (const Row& row : kRows) {
    if (object.find_value(row.key)) return (this->*row.read)(object, where);
    known += (known.empty() ? "" : ", ") + std::string(row.key);
  }
  object.as_object(where);
  fail(ErrorCode::format, where + ": has none of " + known);
}

TrainingSample SampleReader::ended(MaskedText& sample) const {
  if (eos_ && (sample.ids().empty() || sample.ids().back() != *eos_)) sample.add_id(*eos_, true);
  return sample.take();
}

TrainingSample SampleReader::plain(const std::string& text) const {
  MaskedText sample(model_.require_tokenizer(), true);
  sample.add(text, true);
  return ended(sample);
}

TrainingSample SampleReader::text(const Json& object, const std::string& where) const {
  return plain(text_of(object, "text", where));
}

TrainingSample SampleReader::prompt_and_answer(const std::string& prompt, const std::string& answer) const {
  MaskedText sample(model_.require_tokenizer(), true);
  sample.add(prompt, false);
  sample.add(answer, true);
  return ended(sample);
}

TrainingSample SampleReader::completion(const Json& object, const std::string& where) const {
  const Json& prompt = *object.find_value("prompt");
  const Json* answer = answer_of(object);
  if (answer == nullptr) fail(ErrorCode::format, where + ": completion: is missing");
  if (!prompt.is_array()) {
    return prompt_and_answer(prompt.as_string(where + ": prompt"), answer->as_string(where + ": completion"));
  }
  Json::Array messages = read_messages(prompt, where + ": prompt");
  const size_t first_trained = messages.size();
  for (Json& message : read_messages(*answer, where + ": completion")) messages.push_back(std::move(message));
  return conversation(messages, first_trained, object, where);
}

TrainingSample SampleReader::alpaca(const Json& object, const std::string& where) const {
  const std::string prompt = alpaca_prompt(text_of(object, "instruction", where), text_or_none(object, "input", where));
  return prompt_and_answer(prompt, text_of(object, "output", where));
}

TrainingSample SampleReader::messages(const Json& object, const std::string& where) const {
  const std::string at = where + ": messages";
  return conversation(read_messages(*object.find("messages"), at), 0, object, at);
}

TrainingSample SampleReader::sharegpt(const Json& object, const std::string& where) const {
  Json::Array messages;
  for (const Json& turn : object.find("conversations")->as_array(where + ": conversations")) {
    const std::string at = where + ": conversations[" + std::to_string(messages.size()) + "]";
    messages.push_back(
        Json::object({{"role", role_of(text_of(turn, "from", at), at)}, {"content", text_of(turn, "value", at)}}));
  }
  return conversation(messages, 0, object, where + ": conversations");
}

TrainingSample SampleReader::conversation(const Json::Array& messages, size_t first_trained, const Json& object,
                                          const std::string& where) const {
  if (!template_) {
    fail(ErrorCode::invalid_argument,
         where + ": are for a chat template, and " + model_.path + " has none; give prompt and completion");
  }
  Json variables = variables_;
  if (const Json* tools = object.find_value("tools")) variables.set("tools", *tools);
  MaskedText sample(model_.require_tokenizer(), false);
  for (const ChatPiece& piece : ChatSplitter(*template_, variables, where).split(messages, first_trained)) {
    sample.add(piece.text, piece.trained);
  }
  return sample.take();
}

std::vector<int32_t> read_ids(const Json& list, const std::string& where, int64_t vocabulary,
                              std::optional<int32_t> none) {
  std::vector<int32_t> ids;
  for (const Json& item : list.as_array(where)) {
    const int64_t id = item.as_int(where);
    if ((id < 0 || id >= vocabulary) && id != none.value_or(0)) {
      fail(ErrorCode::format, where + ": found " + std::to_string(id) + ", which is outside the vocabulary of " +
                                  std::to_string(vocabulary));
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

TrainingSample SampleReader::token_ids(const Json& object, const std::string& where) const {
  const int64_t vocabulary = model_.model->info().vocab_size;
  TrainingSample sample = {.ids = read_ids(*object.find("input_ids"), where + ": input_ids", vocabulary)};
  if (const Json* labels = object.find_value("labels")) {
    sample.labels = read_ids(*labels, where + ": labels", vocabulary, kNoLabel);
  } else {
    sample.labels = sample.ids;
  }
  if (sample.labels.size() != sample.ids.size()) {
    fail(ErrorCode::format, where + ": labels: found " + std::to_string(sample.labels.size()) + ", expected " +
                                std::to_string(sample.ids.size()) + ", one for each of input_ids");
  }
  return sample;
}

}  // namespace nibble
