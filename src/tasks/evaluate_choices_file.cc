// Reading questions from JSONL.
#include <algorithm>
#include <filesystem>
#include <string_view>

#include "core/error.h"
#include "core/json.h"
#include "core/limits.h"
#include "nibble/evaluate_choices.h"
#include "text/text_file.h"

namespace nibble {
namespace {

std::string without_end_space(const std::string& text) { return text.substr(0, text.find_last_not_of(" \t\r\n") + 1); }

const Json& member(const Json& object, const char* key, const std::string& where) {
  const Json* value = object.find_value(key);
  if (value == nullptr) fail(ErrorCode::format, where + ": has no \"" + key + "\"");
  return *value;
}

/// The layout of question-answering sets that are published as JSONL leaves "Answer:" to the program.
std::string prompt_of(const std::string& query) {
  const std::string prompt = without_end_space(query);
  const bool asks = prompt.starts_with("Question:") && !prompt.ends_with("Answer:");
  return asks ? prompt + "\nAnswer:" : prompt;
}

ChoiceQuestion read_question(const Json& object, const std::string& where) {
  ChoiceQuestion question;
  if (object.find("choices") == nullptr && object.find("continuation") == nullptr) {
    fail(ErrorCode::format, where + ": has neither \"choices\" nor \"continuation\"");
  }
  if (object.find("choices") == nullptr) {
    question.context = without_end_space(member(object, "context", where).as_string(where + ": context"));
    question.choices.push_back(member(object, "continuation", where).as_string(where + ": continuation"));
    return question;
  }
  question.context = prompt_of(member(object, "query", where).as_string(where + ": query"));
  for (const Json& choice : member(object, "choices", where).as_array(where + ": choices")) {
    question.choices.push_back(choice.as_string(where + ": choices"));
  }
  const auto count = static_cast<int64_t>(question.choices.size());
  question.gold = member(object, "gold", where).as_int(where + ": gold");
  if (count < 2) fail(ErrorCode::format, where + ": choices: found " + std::to_string(count) + ", expected at least 2");
  if (question.gold < 0 || question.gold >= count) {
    fail(ErrorCode::format,
         where + ": gold: found " + std::to_string(question.gold) + ", expected 0 to " + std::to_string(count - 1));
  }
  return question;
}

}  // namespace

ChoiceTask read_choice_task(const std::string& path, int64_t limit) {
  const std::string bytes = read_utf8_file(path, limits::kMaxJsonBytes);
  ChoiceTask task = {.name = std::filesystem::path(path).stem().string()};
  std::string_view text = bytes;
  for (int64_t number = 1; !text.empty(); ++number) {
    if (limit > 0 && static_cast<int64_t>(task.questions.size()) == limit) break;
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = path + ": line " + std::to_string(number);
    task.questions.push_back(read_question(Json::parse(line, where), where));
    if ((task.questions[0].choices.size() == 1) != (task.questions.back().choices.size() == 1)) {
      fail(ErrorCode::format, where + ": the file has questions with choices and texts to continue; use one file each");
    }
  }
  if (task.questions.empty()) fail(ErrorCode::format, path + ": is empty: it has no questions");
  return task;
}

}  // namespace nibble
