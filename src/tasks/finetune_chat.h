#pragma once
// Conversations as training text: which parts of it are the turns that are trained.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/chat_template.h"

namespace nibble {

/// A list of messages, checked: each has a role, and a content unless it calls tools. Of a content in parts, all of
/// type text, the texts are put together.
/// @throws Error{format} naming the message
Json::Array read_messages(const Json& list, const std::string& where);

struct ChatPiece {
  std::string text;
  bool trained;
};

class ChatSplitter {
 public:
  /// @param variables  what the template sees besides the messages
  /// @param where      names the messages in errors
  ChatSplitter(const ChatTemplate& chat, Json variables, std::string where)
      : chat_(chat), variables_(std::move(variables)), where_(std::move(where)) {}

  /// The text of the conversation in pieces; trained are the assistant's turns from a message on. The time is linear
  /// in the number of turns for templates that write each turn without regard to those long before it.
  std::vector<ChatPiece> split(const Json::Array& messages, size_t first_trained) const;

 private:
  struct Turn;

  std::string render(const Json::Array& messages, size_t count, bool opening) const;
  std::string before_first(const Json::Array& messages, const std::string& text) const;
  std::optional<Turn> turn_after(const std::string& text, const Json::Array& messages, size_t i) const;
  std::optional<Turn> turn_in_window(std::string_view rest, const Json::Array& messages, size_t done, size_t i) const;
  [[noreturn]] void fail_changed(size_t message) const;

  const ChatTemplate& chat_;
  Json variables_;
  std::string where_;
};

}  // namespace nibble
