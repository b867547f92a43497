#include "text/post_processors.h"

#include "core/checked.h"
#include "text/json_fields.h"

namespace nibble {
namespace {

using Kind = TemplateItem::Kind;
using ParsePostProcessor = PostProcessor (*)(const Json&, const std::string& where);

int32_t parse_id(const Json& json, const std::string& where) { return narrow<int32_t>(json.as_int(where), where); }

// The ids of {"special_tokens": {name: {"ids": [...]}}}.
std::vector<int32_t> special_ids(const Json& json, const std::string& name, const std::string& where) {
  const std::string place = where + ".special_tokens." + printable(name, 100);
  std::vector<int32_t> ids;
  const Json& token = required(required(json, "special_tokens", where), name, where + ".special_tokens");
  for (const Json& id : required(token, "ids", place).as_array(place + ".ids")) ids.push_back(parse_id(id, place));
  return ids;
}

std::vector<TemplateItem> parse_template(const Json& json, std::string_view which, const std::string& where) {
  std::vector<TemplateItem> items;
  const std::string place = where + "." + std::string(which);
  for (const Json& item : required(json, which, where).as_array(place)) {
    const Json* special = item.find("SpecialToken");
    const Json& body = special != nullptr ? *special : required(item, "Sequence", place);
    const std::string name = required_string(body, "id", place);
    const int32_t type_id = parse_id(required(body, "type_id", place), place + ".type_id");
    if (special != nullptr) {
      items.push_back({Kind::special, special_ids(json, name, where), type_id});
    } else if (name == "A" || name == "B") {
      items.push_back({name == "A" ? Kind::first_text : Kind::second_text, {}, type_id});
    } else {
      fail(ErrorCode::format, place + ": sequence '" + printable(name, 100) + "', expected A or B");
    }
  }
  return items;
}

PostProcessor parse_template_processing(const Json& json, const std::string& where) {
  return {parse_template(json, "single", where), parse_template(json, "pair", where)};
}

// It only trims offsets, which nibble does not keep.
PostProcessor parse_byte_level(const Json&, const std::string&) { return {}; }

// A special token as ["[SEP]", 102].
TemplateItem parse_special(const Json& json, std::string_view key, const std::string& where) {
  const std::string place = where + "." + std::string(key);
  const Json::Array& token = required(json, key, where).as_array(place);
  if (token.size() != 2) fail(ErrorCode::format, place + ": expected [token, id]");
  return {Kind::special, {parse_id(token[1], place)}, 0};
}

PostProcessor parse_bert(const Json& json, const std::string& where) {
  const TemplateItem cls = parse_special(json, "cls", where);
  const TemplateItem sep = parse_special(json, "sep", where);
  PostProcessor result;
  result.single = {cls, {Kind::first_text, {}, 0}, sep};
  result.pair = {cls, {Kind::first_text, {}, 0}, sep, {Kind::second_text, {}, 1}, {Kind::special, sep.ids, 1}};
  return result;
}

PostProcessor parse_roberta(const Json& json, const std::string& where) {
  const TemplateItem cls = parse_special(json, "cls", where);
  const TemplateItem sep = parse_special(json, "sep", where);
  PostProcessor result;
  result.single = {cls, {Kind::first_text, {}, 0}, sep};
  result.pair = {cls, {Kind::first_text, {}, 0}, sep, sep, {Kind::second_text, {}, 0}, sep};
  return result;
}

bool adds_tokens(const PostProcessor& processor) { return processor.single.size() > 1 || processor.pair.size() > 2; }

PostProcessor parse_sequence(const Json& json, const std::string& where) {
  PostProcessor result;
  for (const Json& step : required(json, "processors", where).as_array(where + ".processors")) {
    const PostProcessor next = parse_post_processor(step, where + ".processors");
    if (!adds_tokens(next)) continue;
    if (adds_tokens(result)) fail(ErrorCode::unsupported, where + ": two processors that both add special tokens");
    result = next;
  }
  return result;
}

constexpr TypeRow<ParsePostProcessor> kTypes[] = {
    {"TemplateProcessing", parse_template_processing},
    {"ByteLevel", parse_byte_level},
    {"BertProcessing", parse_bert},
    {"RobertaProcessing", parse_roberta},
    {"Sequence", parse_sequence},
};

}  // namespace

PostProcessor parse_post_processor(const Json& json, const std::string& where) {
  if (json.is_null()) return {};
  return find_type(kTypes, required_string(json, "type", where), where)(json, where);
}

}  // namespace nibble
