#include "text/normalizers.h"

#include <memory>
#include <vector>

#include "text/byte_level.h"
#include "text/charsmap.h"
#include "text/json_fields.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace nibble {
namespace {

using ParseNormalizer = Normalizer (*)(const Json&, const std::string& where);

// Rewrites every character by put(out, c).
template <class Put>
std::string map_chars(std::string_view text, const Put& put) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) put(out, next_char(text, at));
  return out;
}

std::string remove_chars(std::string_view text, bool (*is_removed)(char32_t)) {
  return map_chars(text, [&](std::string& out, char32_t c) {
    if (!is_removed(c)) append_utf8(out, c);
  });
}

template <NormalForm form>
Normalizer parse_normal_form(const Json&, const std::string&) {
  return [](std::string text) { return normalize(text, form); };
}

Normalizer parse_lowercase(const Json&, const std::string&) {
  return [](std::string text) { return lowercase(text); };
}

Normalizer parse_strip_accents(const Json&, const std::string&) {
  return [](std::string text) { return remove_chars(text, is_mark); };
}

std::string strip(std::string_view text, bool left, bool right) {
  size_t begin = 0;
  size_t end = 0;  // behind the last character that stays
  bool leading = true;
  for (size_t at = 0; at < text.size();) {
    const bool space = is_whitespace(next_char(text, at));
    leading = leading && space;
    if (leading && left) begin = at;
    if (!space || !right) end = at;
  }
  return std::string(text.substr(begin, std::max(begin, end) - begin));
}

Normalizer parse_strip(const Json& json, const std::string& where) {
  const bool left = bool_or(json, "strip_left", true, where);
  const bool right = bool_or(json, "strip_right", true, where);
  return [=](std::string text) { return strip(text, left, right); };
}

Normalizer parse_prepend(const Json& json, const std::string& where) {
  const std::string prefix = required_string(json, "prepend", where);
  return [prefix](std::string text) { return text.empty() ? text : prefix + text; };
}

Normalizer parse_replace(const Json& json, const std::string& where) {
  const Matcher matcher = parse_pattern(required(json, "pattern", where), where + ".pattern");
  const std::string content = required_string(json, "content", where);
  return [=](std::string text) { return replace_all(text, matcher, content); };
}

// The CJK blocks as BERT's tokenization.py lists them.
bool is_chinese(char32_t c) {
  static constexpr char32_t kBlocks[][2] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df},
                                            {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf},
                                            {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
  for (const auto& block : kBlocks) {
    if (c >= block[0] && c <= block[1]) return true;
  }
  return false;
}

void put_clean(std::string& out, char32_t c) {
  if (c == '\t' || c == '\n' || c == '\r') {
    out += ' ';
  } else if (c != 0 && c != 0xfffd && !is_control_or_private(c)) {
    append_utf8(out, is_whitespace(c) ? U' ' : c);
  }
}

void put_chinese_apart(std::string& out, char32_t c) {
  const bool apart = is_chinese(c);
  if (apart) out += ' ';
  append_utf8(out, c);
  if (apart) out += ' ';
}

Normalizer parse_bert(const Json& json, const std::string& where) {
  const bool clean = bool_or(json, "clean_text", true, where);
  const bool chinese = bool_or(json, "handle_chinese_chars", true, where);
  const bool lower = bool_or(json, "lowercase", true, where);
  const bool accents = bool_or(json, "strip_accents", lower, where);
  return [=](std::string text) {
    if (clean) text = map_chars(text, put_clean);
    if (chinese && !is_ascii(text)) text = map_chars(text, put_chinese_apart);
    if (accents && !is_ascii(text)) text = remove_chars(normalize(text, NormalForm::nfd), is_nonspacing_mark);
    return lower ? lowercase(text) : text;
  };
}

// The rules of SentencePiece's "nmt" tables.
void put_nmt(std::string& out, char32_t c) {
  const auto in = [&](char32_t low, char32_t high) { return c >= low && c <= high; };
  if (in(1, 8) || c == 0x0b || in(0x0e, 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f) return;
  const bool space = c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == 0x1680 || in(0x200b, 0x200f) ||
                     c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd;
  append_utf8(out, space ? U' ' : c);
}

Normalizer parse_nmt(const Json&, const std::string&) {
  return [](std::string text) { return map_chars(text, put_nmt); };
}

Normalizer parse_precompiled(const Json& json, const std::string& where) {
  const std::string place = where + ".precompiled_charsmap";
  const std::string encoded = string_or(json, "precompiled_charsmap", "", where);
  if (encoded.empty()) return [](std::string text) { return text; };
  const auto charsmap = std::make_shared<const Charsmap>(base64_decode(encoded, place), place);
  return [charsmap](std::string text) { return charsmap->normalize(text); };
}

Normalizer parse_byte_level(const Json&, const std::string&) {
  return [](std::string text) { return bytes_to_chars(text); };
}

Normalizer parse_sequence(const Json& json, const std::string& where) {
  std::vector<Normalizer> steps;
  for (const Json& step : required(json, "normalizers", where).as_array(where + ".normalizers")) {
    steps.push_back(parse_normalizer(step, where + ".normalizers[" + std::to_string(steps.size()) + "]"));
  }
  return [steps](std::string text) {
    for (const Normalizer& step : steps) text = step(std::move(text));
    return text;
  };
}

constexpr TypeRow<ParseNormalizer> kTypes[] = {
    {"NFC", parse_normal_form<NormalForm::nfc>},
    {"NFD", parse_normal_form<NormalForm::nfd>},
    {"NFKC", parse_normal_form<NormalForm::nfkc>},
    {"NFKD", parse_normal_form<NormalForm::nfkd>},
    {"Lowercase", parse_lowercase},
    {"StripAccents", parse_strip_accents},
    {"Strip", parse_strip},
    {"Prepend", parse_prepend},
    {"Replace", parse_replace},
    {"BertNormalizer", parse_bert},
    {"Nmt", parse_nmt},
    {"Precompiled", parse_precompiled},
    {"ByteLevel", parse_byte_level},
    {"Sequence", parse_sequence},
};

}  // namespace

Normalizer parse_normalizer(const Json& json, const std::string& where) {
  if (json.is_null()) return [](std::string text) { return text; };
  return find_type(kTypes, required_string(json, "type", where), where)(json, where);
}

}  // namespace nibble
