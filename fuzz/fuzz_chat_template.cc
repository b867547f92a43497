// Chat templates as models ship them: parsed, and rendered for a short conversation with a tool.
#include <string_view>

#include "core/error.h"
#include "core/json.h"
#include "text/chat_template.h"

namespace {

constexpr std::string_view kMessages = R"([
  {"role": "system", "content": " Be brief.\n"},
  {"role": "user", "content": "h\u00e9llo <b>"},
  {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5]}}}]}
])";
constexpr std::string_view kVariables = R"({
  "bos_token": "<s>", "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]
})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const nibble::Json messages = nibble::Json::parse(kMessages, "messages");
  static const nibble::Json variables = nibble::Json::parse(kVariables, "variables");
  try {
    const nibble::ChatTemplate chat(std::string_view(reinterpret_cast<const char*>(data), size), "template");
    chat.render(messages, {.add_generation_prompt = true, .variables = variables});
  } catch (const nibble::Error&) {
  }
  return 0;
}
