#include "tasks/finetune_chat.h"

#include <algorithm>

#include "core/error.h"
#include "tasks/data_file.h"

namespace nibble {
namespace {

constexpr size_t kRenderedWhole = 32;  // turns that begin before this message are seen in all that precedes them

std::string joined_parts(const Json::Array& parts, const std::string& where) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string at = where + "[" + std::to_string(i) + "]";
    const std::string& type = text_of(parts[i], "type", at);
    if (type != "text") {
      fail(ErrorCode::format, at + ": type: found '" + printable(type, 60) + "', expected 'text'");
    }
    text += text_of(parts[i], "text", at);
  }
  return text;
}

Json read_message(Json message, const std::string& where) {
  message.as_object(where);
  text_of(message, "role", where);
  const Json* content = message.find_value("content");
  if (content == nullptr && message.find_value("tool_calls")) return message;
  if (content && content->is_array()) {
    message.set("content", joined_parts(content->as_array(where), where + ": content"));
    return message;
  }
  text_of(message, "content", where);
  return message;
}

bool has_role(const Json& message, std::string_view role) { return message.find("role")->as_string("role") == role; }

std::string_view without_leading_space(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  return begin == std::string_view::npos ? "" : text.substr(begin);
}

}  // namespace

Json::Array read_messages(const Json& list, const std::string& where) {
  Json::Array messages;
  for (const Json& message : list.as_array(where)) {
    messages.push_back(read_message(message, where + "[" + std::to_string(messages.size()) + "]"));
  }
  return messages;
}

/// An answer of the assistant, and what stands between it and the answer before.
struct ChatSplitter::Turn {
  std::string prompt, answer;
};

std::string ChatSplitter::render(const Json::Array& messages, size_t count, bool opening) const {
  if (count == 0) return std::string();
  try {
    return chat_.render(Json(Json::Array(messages.begin(), messages.begin() + static_cast<int64_t>(count))),
                        {.add_generation_prompt = opening, .variables = variables_});
  } catch (const Error& error) {
    fail(error.code(), where_ + ": " + error.what());
  }
}

// What stands before the words of the first message: as far as two texts agree that differ in their first word.
std::string ChatSplitter::before_first(const Json::Array& messages, const std::string& text) const {
  const Json* content = messages[0].find_value("content");
  const bool begins_with_a = content && without_leading_space(content->as_string(where_)).starts_with("a");
  Json other = messages[0];
  other.set("content", begins_with_a ? "b" : "a");
  const std::string changed = render({other}, 1, false);
  const auto [end, unused] = std::mismatch(text.begin(), text.end(), changed.begin(), changed.end());
  return std::string(text.begin(), end);
}

// A turn is what the template adds to the text that ends with the opening of that turn, which is what generation will
// see. None when the template does not go on from `text`.
std::optional<ChatSplitter::Turn> ChatSplitter::turn_after(const std::string& text, const Json::Array& messages,
                                                           size_t i) const {
  const std::string after = render(messages, i + 1, false);
  std::string before = i == 0 ? before_first(messages, after) : render(messages, i, true);
  if (!after.starts_with(before)) before = render(messages, i, false);
  if (!before.starts_with(text) || !after.starts_with(before)) return std::nullopt;
  return Turn{before.substr(text.size()), after.substr(before.size())};
}

// The same as seen in a conversation that begins shortly before, so that a long one need not be rendered for each of
// its turns. It counts only when it is how the long one goes on.
// done: messages up to the answer before
std::optional<ChatSplitter::Turn> ChatSplitter::turn_in_window(std::string_view rest, const Json::Array& messages,
                                                               size_t done, size_t i) const {
  size_t begin = std::max(done, size_t{1}) - 1;
  while (begin > 0 && !has_role(messages[begin], "user")) --begin;
  if (begin == 0) return std::nullopt;
  Json::Array window(messages.begin() + static_cast<int64_t>(begin), messages.begin() + static_cast<int64_t>(i) + 1);
  if (has_role(messages[0], "system")) window.insert(window.begin(), messages[0]);
  const size_t last = window.size() - 1;
  try {
    const std::optional<Turn> turn = turn_after(render(window, last - (i - done), false), window, last);
    const bool fits =
        turn && rest.starts_with(turn->prompt) && rest.substr(turn->prompt.size()).starts_with(turn->answer);
    return fits ? turn : std::nullopt;
  } catch (const Error&) {
    return std::nullopt;  // the template wants to see the beginning
  }
}

void ChatSplitter::fail_changed(size_t message) const {
  fail(ErrorCode::format, where_ + "[" + std::to_string(message) +
                              "]: the chat template changes earlier turns when this one comes, so it cannot be told "
                              "what to train; give prompt and completion");
}

std::vector<ChatPiece> ChatSplitter::split(const Json::Array& messages, size_t first_trained) const {
  if (messages.empty()) fail(ErrorCode::format, where_ + ": is empty");
  const std::string whole = render(messages, messages.size(), false);
  std::vector<ChatPiece> pieces;
  std::string text;
  size_t done = 0;
  for (size_t i = first_trained; i < messages.size(); ++i) {
    if (!has_role(messages[i], "assistant")) continue;
    std::optional<Turn> turn;
    if (i >= kRenderedWhole && whole.starts_with(text)) {
      turn = turn_in_window(std::string_view(whole).substr(text.size()), messages, done, i);
    }
    if (!turn) turn = turn_after(text, messages, i);
    if (!turn) fail_changed(i);
    text += turn->prompt + turn->answer;
    done = i + 1;
    pieces.push_back({std::move(turn->prompt), false});
    pieces.push_back({std::move(turn->answer), true});
  }
  if (!whole.starts_with(text)) fail_changed(messages.size() - 1);
  pieces.push_back({whole.substr(text.size()), false});
  return pieces;
}

}  // namespace nibble
