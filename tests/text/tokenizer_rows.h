#pragma once
// A small tokenizer.json for tests: words of a fixed vocabulary, cut at white space; members can be replaced.
#include <string>
#include <vector>

#include "core/json.h"
#include "text/tokenizer.h"

namespace nibble::test {

inline Json word_level_json() {
  return Json::parse(R"({
    "added_tokens": [
      {"id": 0, "content": "[CLS]", "special": true}, {"id": 1, "content": "[SEP]", "special": true},
      {"id": 2, "content": "[UNK]", "special": true}],
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "model": {"type": "WordLevel", "unk_token": "[UNK]",
              "vocab": {"[CLS]": 0, "[SEP]": 1, "[UNK]": 2, "a": 3, "b": 4, "ab": 5}}})",
                     "test");
}

inline Json with(Json object, std::string_view key, const std::string& json) {
  object.set(key, Json::parse(json, "test"));
  return object;
}

inline Tokenizer make(const Json& json, const std::string& config = "null") {
  return Tokenizer::from_json(json, Json::parse(config, "config"), "tokenizer.json");
}

using Ids = std::vector<int32_t>;

}  // namespace nibble::test
