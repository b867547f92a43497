#pragma once
// Fourth stage of a tokenizer: the special tokens around one text or a pair of texts, as a template.
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace nibble {

struct TemplateItem {
  enum class Kind { special, first_text, second_text };
  Kind kind;
  std::vector<int32_t> ids;  // of special tokens
  int32_t type_id;           // BERT's segment
};

struct PostProcessor {
  std::vector<TemplateItem> single = {{TemplateItem::Kind::first_text, {}, 0}};
  std::vector<TemplateItem> pair = {{TemplateItem::Kind::first_text, {}, 0}, {TemplateItem::Kind::second_text, {}, 1}};
};

/// The "post_processor" of tokenizer.json; null gives one that adds nothing.
PostProcessor parse_post_processor(const Json& json, const std::string& where);

}  // namespace nibble
