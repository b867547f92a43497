#pragma once
// Chat templates: the Jinja programs that models ship with, which turn messages into the text that the model was
// trained on. The subset of Jinja that published templates use, rendered as transformers renders it.
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/json.h"

namespace nibble {

namespace jinja {
struct Node;
}

/// A parsed chat template. Rendering is const and may be done from several threads.
class ChatTemplate {
 public:
  /// Parses. `where` names the file for messages.
  /// @throws Error{format} on bad syntax, with the line; Error{unsupported} for constructs outside the subset.
  ChatTemplate(std::string_view source, const std::string& where);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&& other) noexcept;
  ChatTemplate& operator=(ChatTemplate&& other) noexcept;

  struct Options {
    bool add_generation_prompt = true;  // end with the opening of the assistant's turn
    Json variables;                     // an object of what else templates see: bos_token, eos_token, tools, ...
  };

  /// The text of a conversation.
  /// @param messages  an array of {"role": ..., "content": ...}.
  /// @throws Error{invalid_argument} when the template refuses the messages, Error{format} when it fails on them,
  /// Error{resources} when it exceeds 5 million steps or writes more than 16 MB.
  std::string render(const Json& messages, const Options& options) const;

 private:
  std::string where_;
  std::unique_ptr<jinja::Node> tree_;
};

enum class ToolUse { no, yes };

/// The template of a model's folder: the text of chat_template.jinja, where there is one (else ""), or "chat_template"
/// of tokenizer_config.json: a text, or a list of named templates, of which "tool_use" is taken for `tools` when there
/// is one, else "default". Nullopt when the model has none.
std::optional<std::string> chat_template_source(const Json& tokenizer_config, const std::string& jinja_file_text,
                                                ToolUse tools = ToolUse::no);

}  // namespace nibble
