#include "text/chat_template.h"

#include <gtest/gtest.h>

#include "support/files.h"
#include "text/chat_template_rows.h"

namespace nibble {
namespace {

Json conversation(const std::string& name) {
  static const Json conversations = Json::parse(test::kConversations, "conversations");
  return *conversations.find(name);
}

ChatTemplate::Options options_for(const test::ChatRow& row) {
  Json variables = Json::parse(R"({"bos_token": "<s>", "eos_token": "</s>", "enable_thinking": false})", "variables");
  if (std::string(row.conversation) == "tool_chat") variables.set("tools", Json::parse(test::kTools, "tools"));
  return {.add_generation_prompt = row.add_generation_prompt, .variables = std::move(variables)};
}

TEST(ChatTemplate, RendersThePublishedStylesAsTransformersDoes) {
  for (const test::ChatRow& row : test::kChatRows) {
    const ChatTemplate chat(row.source, row.name);
    EXPECT_EQ(chat.render(conversation(row.conversation), options_for(row)), row.expected)
        << row.name << " with " << row.conversation;
  }
}

TEST(ChatTemplate, RendersTheSameTwice) {
  const ChatTemplate chat(test::kQwen3, "qwen3");
  const std::string first = chat.render(conversation("chat"), {});
  EXPECT_EQ(chat.render(conversation("chat"), {}), first);
}

TEST(ChatTemplate, RefusalsOfTheTemplateAreTheUsersError) {
  const ChatTemplate gemma(test::kGemma, "gemma.jinja");
  test::expect_error(ErrorCode::invalid_argument,
                     "gemma.jinja: line 1: the template refuses the input: System role not supported",
                     [&] { gemma.render(conversation("system_chat"), {}); });
  const ChatTemplate mistral(test::kMistralV01, "mistral.jinja");
  test::expect_error(ErrorCode::invalid_argument, "must alternate",
                     [&] { mistral.render(conversation("system_chat"), {}); });
}

TEST(ChatTemplate, GivesToolsAndDocumentsEvenWithoutAValue) {
  const ChatTemplate chat("{{ tools is none }} {{ documents is none }} {{ add_generation_prompt }} {{ messages }}",
                          "t");
  EXPECT_EQ(chat.render(Json::array(), {}), "True True True []");
  EXPECT_EQ(
      chat.render(Json::array(), {.add_generation_prompt = false, .variables = Json::parse(R"({"tools": []})", "v")}),
      "False True False []");
}

TEST(ChatTemplate, NamesTheLineOfAnErrorWhileRendering) {
  const ChatTemplate chat("first\n{% for m in messages %}\n{{ m.content.missing.more }}{% endfor %}",
                          "folder/chat.jinja");
  test::expect_error(ErrorCode::format, "folder/chat.jinja: line 3: 'str object' has no attribute 'missing'",
                     [&] { chat.render(conversation("chat"), {}); });
}

TEST(ChatTemplateSource, ReadsATextOrAListOrTheFile) {
  const Json text = Json::parse(R"({"chat_template": "T"})", "c");
  const Json list = Json::parse(R"({"chat_template": [{"name": "tool_use", "template": "U"},
                                                       {"name": "rag", "template": "R"},
                                                       {"name": "default", "template": "D"}]})",
                                "c");
  EXPECT_EQ(chat_template_source(text, ""), "T");
  EXPECT_EQ(chat_template_source(list, ""), "D");
  EXPECT_EQ(chat_template_source(list, "", ToolUse::yes), "U");
  EXPECT_EQ(chat_template_source(list, "F"), "F");
  EXPECT_EQ(chat_template_source(Json::parse(R"({"chat_template": null})", "c"), ""), std::nullopt);
  EXPECT_EQ(chat_template_source(Json::object(), ""), std::nullopt);
  const Json only_default = Json::parse(R"({"chat_template": [{"name": "default", "template": "D"}]})", "c");
  EXPECT_EQ(chat_template_source(only_default, "", ToolUse::yes), "D");
}

TEST(ChatTemplateSource, RefusesEntriesWithoutANameOrTemplate) {
  test::expect_error(ErrorCode::format, "an entry lacks a name or a template",
                     [] { chat_template_source(Json::parse(R"({"chat_template": [{"name": "default"}]})", "c"), ""); });
  test::expect_error(ErrorCode::format, "expected an array",
                     [] { chat_template_source(Json::parse(R"({"chat_template": 3})", "c"), ""); });
}

}  // namespace
}  // namespace nibble
