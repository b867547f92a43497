// One broken tokenizer.json per check of the whole file; the parts have their own tests.
#include <gtest/gtest.h>

#include "support/files.h"
#include "text/tokenizer_rows.h"

namespace nibble {
namespace {

using test::expect_error;
using test::make;
using test::with;
using test::word_level_json;

TEST(BrokenTokenizer, EveryMessageSaysWhere) {
  struct Row {
    ErrorCode code;
    const char* key;
    const char* json;
    const char* fragment;
  };
  const Row rows[] = {
      {ErrorCode::format, "model", "null", "tokenizer.json: model: found null, expected an object"},
      {ErrorCode::unsupported, "model", R"({"type": "X"})", "tokenizer.json: model: unknown type 'X'"},
      {ErrorCode::unsupported, "normalizer", R"({"type": "X"})", "tokenizer.json: normalizer: unknown type 'X'"},
      {ErrorCode::unsupported, "decoder", R"({"type": "X"})", "tokenizer.json: decoder: unknown type 'X'"},
      {ErrorCode::unsupported, "post_processor", R"({"type": "X"})",
       "tokenizer.json: post_processor: unknown type 'X'"},
      {ErrorCode::format, "pre_tokenizer", "3", "tokenizer.json: pre_tokenizer: no member 'type'"},
      {ErrorCode::format, "added_tokens", "{}", "tokenizer.json: added_tokens: found an object, expected an array"},
      {ErrorCode::format, "added_tokens", R"([{"id": 0}])", "added_tokens[0]: no member 'content'"},
      {ErrorCode::format, "added_tokens", R"([{"content": "x"}])", "added_tokens[0]: no member 'id'"},
      {ErrorCode::format, "added_tokens", R"([{"content": "x", "id": 4000000}])", "id 4000000, expected 0 to 3999999"},
      {ErrorCode::format, "added_tokens", R"([{"content": "x", "id": -1}])", "id -1, expected 0 to"},
      {ErrorCode::format, "post_processor", R"({"type": "TemplateProcessing", "single": []})", "no member 'pair'"},
      {ErrorCode::format, "post_processor",
       R"({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "C", "type_id": 0}}], "pair": []})",
       "sequence 'C', expected A or B"},
      {ErrorCode::format, "post_processor",
       R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}], "pair": [],
           "special_tokens": {}})",
       "special_tokens: no member 'x'"},
      {ErrorCode::format, "post_processor", R"({"type": "BertProcessing", "cls": ["a", 3000000000], "sep": ["b", 1]})",
       "3000000000 is out of range"},
      {ErrorCode::format, "post_processor", R"({"type": "BertProcessing", "cls": ["a"], "sep": ["b", 1]})",
       "post_processor.cls: expected [token, id]"},
      {ErrorCode::unsupported, "post_processor",
       R"({"type": "Sequence", "processors": [{"type": "BertProcessing", "cls": ["a", 0], "sep": ["b", 1]},
           {"type": "BertProcessing", "cls": ["a", 0], "sep": ["b", 1]}]})",
       "two processors"},
  };
  for (const Row& row : rows) {
    expect_error(row.code, row.fragment, [&] { make(with(word_level_json(), row.key, row.json)); });
  }
}

TEST(BrokenTokenizer, ConfigAndTopLevel) {
  expect_error(ErrorCode::format, "tokenizer.json: found an array, expected an object",
               [] { make(Json::parse("[]", "test")); });
  expect_error(ErrorCode::format, "tokenizer.json: no member 'model'", [] { make(Json::parse("{}", "test")); });
  expect_error(ErrorCode::format, "bos_token: found an integer, expected a string",
               [] { make(word_level_json(), R"({"bos_token": 3})"); });
  expect_error(ErrorCode::format, "'7x' is not a token id",
               [] { make(word_level_json(), R"({"added_tokens_decoder": {"7x": {"content": "x"}}})"); });
}

}  // namespace
}  // namespace nibble
