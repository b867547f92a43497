#include "text/chat_template.h"

#include "core/error.h"
#include "text/jinja_eval.h"
#include "text/jinja_parser.h"

namespace nibble {

ChatTemplate::ChatTemplate(std::string_view source, const std::string& where)
    : where_(where), tree_(jinja::parse(source, where)) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&& other) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&& other) noexcept = default;

std::string ChatTemplate::render(const Json& messages, const Options& options) const {
  Json::Object variables;
  // Templates are always given these two, with or without a value.
  variables.emplace_back("tools", Json());
  variables.emplace_back("documents", Json());
  if (!options.variables.is_null()) {
    for (const auto& variable : options.variables.as_object("variables of the chat template")) {
      variables.push_back(variable);
    }
  }
  variables.emplace_back("add_generation_prompt", Json(options.add_generation_prompt));
  variables.emplace_back("messages", messages);
  return jinja::render(*tree_, where_, variables);
}

std::optional<std::string> chat_template_source(const Json& tokenizer_config, const std::string& jinja_file_text,
                                                ToolUse tools) {
  if (!jinja_file_text.empty()) return jinja_file_text;
  const std::string where = "tokenizer_config.json: chat_template";
  const Json* source = tokenizer_config.find_value("chat_template");
  if (source == nullptr) return std::nullopt;
  if (source->is_string()) return source->as_string(where);
  std::optional<std::string> chosen;
  for (const Json& entry : source->as_array(where)) {
    const Json *name = entry.find_value("name"), *text = entry.find_value("template");
    if (name == nullptr || text == nullptr) fail(ErrorCode::format, where + ": an entry lacks a name or a template");
    const std::string& wanted = name->as_string(where);
    const bool fits_tools = tools == ToolUse::yes && wanted == "tool_use";
    if (fits_tools || (wanted == "default" && !chosen)) chosen = text->as_string(where);
  }
  return chosen;
}

}  // namespace nibble
