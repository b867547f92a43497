#pragma once
// What jinja2 3.1.6, as transformers 5 configures it, makes of the templates and conversations of chat_templates.h.
#include "text/chat_templates.h"

namespace nibble::test {

struct ChatRow {
  const char* name;
  const char* source;
  const char* conversation;  // the name of one in kConversations
  bool add_generation_prompt;
  const char* expected;
};

inline constexpr ChatRow kChatRows[] = {
    {"SmolLm2", kSmolLm2, "chat", true,
     "<|im_start|>system\n"
     "Be helpful.<|im_end|>\n"
     "<|im_start|>user\n"
     " Hi <|im_end|>\n"
     "<|im_start|>assistant\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é<|im_end|>\n"
     "<|im_start|>user\n"
     "Bye\n"
     "<|im_end|>\n"
     "<|im_start|>assistant\n"},
    {"SmolLm2", kSmolLm2, "chat", false,
     "<|im_start|>system\n"
     "Be helpful.<|im_end|>\n"
     "<|im_start|>user\n"
     " Hi <|im_end|>\n"
     "<|im_start|>assistant\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é<|im_end|>\n"
     "<|im_start|>user\n"
     "Bye\n"
     "<|im_end|>\n"},
    {"ChatMl", kChatMl, "system_chat", true,
     "<|im_start|>system\n"
     "Be brief.<|im_end|><|im_start|>user\n"
     " Hi <|im_end|><|im_start|>assistant\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é<|im_end|><|im_start|>user\n"
     "Bye\n"
     "<|im_end|>\n"
     "<|im_start|>assistant\n"},
    {"ChatMl", kChatMl, "system_chat", false,
     "<|im_start|>system\n"
     "Be brief.<|im_end|><|im_start|>user\n"
     " Hi <|im_end|><|im_start|>assistant\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é<|im_end|><|im_start|>user\n"
     "Bye\n"
     "<|im_end|>"},
    {"Zephyr", kZephyr, "system_chat", true,
     "<|system|>\n"
     "Be brief.</s>\n"
     "<|user|>\n"
     " Hi </s>\n"
     "<|assistant|>\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é</s>\n"
     "<|user|>\n"
     "Bye\n"
     "</s>\n"
     "<|assistant|>\n"},
    {"Zephyr", kZephyr, "system_chat", false,
     "<|system|>\n"
     "Be brief.</s>\n"
     "<|user|>\n"
     " Hi </s>\n"
     "<|assistant|>\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é</s>\n"
     "<|user|>\n"
     "Bye\n"
     "</s>\n"},
    {"Llama3", kLlama3, "system_chat", true,
     "<s><|start_header_id|>system<|end_header_id|>\n"
     "\n"
     "Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
     "\n"
     "Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
     "\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
     "\n"
     "Bye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
     "\n"},
    {"Llama3", kLlama3, "system_chat", false,
     "<s><|start_header_id|>system<|end_header_id|>\n"
     "\n"
     "Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
     "\n"
     "Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
     "\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
     "\n"
     "Bye<|eot_id|>"},
    {"Llama31", kLlama31, "system_chat", true,
     "<s><|start_header_id|>system<|end_header_id|>\n"
     "\n"
     "Today Date: 26 Jul 2024\n"
     "\n"
     "Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
     "\n"
     "Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
     "\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
     "\n"
     "Bye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
     "\n"},
    {"Llama31", kLlama31, "tool_chat", true,
     "<s><|start_header_id|>system<|end_header_id|>\n"
     "\n"
     "Environment: ipython\n"
     "Today Date: 26 Jul 2024\n"
     "\n"
     "<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
     "\n"
     "Weather?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
     "\n"
     "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Zürich\", \"days\": [1, "
     "2.5]}}<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n"
     "\n"
     "\"sunny\"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
     "\n"
     "It is sunny.<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
     "\n"
     "Thanks<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
     "\n"},
    {"Qwen25", kQwen25, "chat", true,
     "<|im_start|>system\n"
     "You are helpful.<|im_end|>\n"
     "<|im_start|>user\n"
     " Hi <|im_end|>\n"
     "<|im_start|>assistant\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é<|im_end|>\n"
     "<|im_start|>user\n"
     "Bye\n"
     "<|im_end|>\n"
     "<|im_start|>assistant\n"},
    {"Qwen25", kQwen25, "chat", false,
     "<|im_start|>system\n"
     "You are helpful.<|im_end|>\n"
     "<|im_start|>user\n"
     " Hi <|im_end|>\n"
     "<|im_start|>assistant\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é<|im_end|>\n"
     "<|im_start|>user\n"
     "Bye\n"
     "<|im_end|>\n"},
    {"Qwen25", kQwen25, "tool_chat", true,
     "<|im_start|>system\n"
     "\n"
     "\n"
     "# Tools\n"
     "\n"
     "<tools>\n"
     "{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": \"Gets <it>\", "
     "\"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}, \"days\": {\"type\": "
     "\"array\", \"items\": {\"type\": \"integer\"}}, \"unit\": {\"type\": [\"string\", \"null\"]}}, \"required\": "
     "[\"city\"]}}}\n"
     "</tools><|im_end|>\n"
     "<|im_start|>user\n"
     "Weather?<|im_end|>\n"
     "<|im_start|>assistant\n"
     "<tool_call>\n"
     "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Zürich\", \"days\": [1, 2.5]}}\n"
     "</tool_call><|im_end|>\n"
     "<|im_start|>user\n"
     "<tool_response>\n"
     "sunny\n"
     "</tool_response><|im_end|>\n"
     "<|im_start|>assistant\n"
     "It is sunny.<|im_end|>\n"
     "<|im_start|>user\n"
     "Thanks<|im_end|>\n"
     "<|im_start|>assistant\n"},
    {"Qwen3", kQwen3, "system_chat", true,
     "<|im_start|>system\n"
     "Be brief.<|im_end|>\n"
     "<|im_start|>user\n"
     " Hi <|im_end|>\n"
     "<|im_start|>assistant\n"
     "Hello é<|im_end|>\n"
     "<|im_start|>user\n"
     "Bye\n"
     "<|im_end|>\n"
     "<|im_start|>assistant\n"
     "<think>\n"
     "\n"
     "</think>\n"
     "\n"},
    {"Qwen3", kQwen3, "system_chat", false,
     "<|im_start|>system\n"
     "Be brief.<|im_end|>\n"
     "<|im_start|>user\n"
     " Hi <|im_end|>\n"
     "<|im_start|>assistant\n"
     "Hello é<|im_end|>\n"
     "<|im_start|>user\n"
     "Bye\n"
     "<|im_end|>\n"},
    {"MistralV01", kMistralV01, "chat", true,
     "<s>[INST]  Hi  [/INST]<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é</s> [INST] Bye\n"
     " [/INST]"},
    {"MistralV03", kMistralV03, "system_chat", true,
     "<s>[INST]  Hi [/INST] <think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é</s>[INST] Be brief.\n"
     "\n"
     "Bye\n"
     "[/INST]"},
    {"MistralV03", kMistralV03, "tool_chat", true,
     "<s>[INST] Weather?[/INST][TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Zürich\", "
     "\"days\": [1, 2.5]}, \"id\": \"abcdefghi\"}]</s>[TOOL_RESULTS] {\"content\": sunny, \"call_id\": "
     "\"abcdefghi\"}[/TOOL_RESULTS] It is sunny.</s>[AVAILABLE_TOOLS] [{\"type\": \"function\", \"function\": "
     "{\"name\": \"get_weather\", \"description\": \"Gets <it>\", \"parameters\": {\"type\": \"object\", "
     "\"properties\": {\"city\": {\"type\": \"string\"}, \"days\": {\"type\": \"array\", \"items\": {\"type\": "
     "\"integer\"}}, \"unit\": {\"type\": [\"string\", \"null\"]}}, \"required\": "
     "[\"city\"]}}}][/AVAILABLE_TOOLS][INST] Thanks[/INST]"},
    {"Gemma", kGemma, "chat", true,
     "<s><start_of_turn>user\n"
     "Hi<end_of_turn>\n"
     "<start_of_turn>model\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é<end_of_turn>\n"
     "<start_of_turn>user\n"
     "Bye<end_of_turn>\n"
     "<start_of_turn>model\n"},
    {"Gemma", kGemma, "chat", false,
     "<s><start_of_turn>user\n"
     "Hi<end_of_turn>\n"
     "<start_of_turn>model\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é<end_of_turn>\n"
     "<start_of_turn>user\n"
     "Bye<end_of_turn>\n"},
    {"Gemma3", kGemma3, "system_chat", true,
     "<s><start_of_turn>user\n"
     "Be brief.\n"
     "\n"
     "Hi<end_of_turn>\n"
     "<start_of_turn>model\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é<end_of_turn>\n"
     "<start_of_turn>user\n"
     "Bye<end_of_turn>\n"
     "<start_of_turn>model\n"},
    {"Gemma3", kGemma3, "parts", true,
     "<s><start_of_turn>user\n"
     "<start_of_image>What is this?<end_of_turn>\n"
     "<start_of_turn>model\n"},
    {"Phi3", kPhi3, "system_chat", true,
     "<|system|>\n"
     "Be brief.<|end|>\n"
     "<|user|>\n"
     " Hi <|end|>\n"
     "<|assistant|>\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é<|end|>\n"
     "<|user|>\n"
     "Bye\n"
     "<|end|>\n"
     "<|assistant|>\n"},
    {"Phi3", kPhi3, "system_chat", false,
     "<|system|>\n"
     "Be brief.<|end|>\n"
     "<|user|>\n"
     " Hi <|end|>\n"
     "<|assistant|>\n"
     "<think>\n"
     "hm\n"
     "</think>\n"
     "\n"
     "Hello é<|end|>\n"
     "<|user|>\n"
     "Bye\n"
     "<|end|>\n"
     "</s>"},
    {"DeepSeek", kDeepSeek, "system_chat", true,
     "<s>Be brief.<｜User｜> Hi <｜Assistant｜>\n"
     "\n"
     "Hello é<｜end▁of▁sentence｜><｜User｜>Bye\n"
     "<｜Assistant｜><think>\n"},
    {"DeepSeek", kDeepSeek, "tool_chat", true,
     "<s><｜User｜>Weather?<｜Assistant｜><｜tool▁calls▁begin｜>get_weather\n"
     "```json\n"
     "{\"city\": \"Zürich\", \"days\": [1, 2.5]}\n"
     "```<｜end▁of▁sentence｜><｜tool▁output▁begin｜>sunny<｜tool▁output▁end｜><｜Assistant｜>It is "
     "sunny.<｜end▁of▁sentence｜><｜User｜>Thanks<｜Assistant｜><think>\n"},
    {"CommandStyleMacros", kCommandStyleMacros, "tool_chat", true,
     "<s>def get_weather(city: str, days: List[int] = None, unit: Union[str, null] = None):\n"
     "    \"\"\"Gets <it>\"\"\"\n"
     "    pass\n"
     "<|USER|>Weather?<|ASSISTANT|><|TOOL|>sunny<|ASSISTANT|>It is sunny.<|USER|>Thanks"},
};

}  // namespace nibble::test
