#include "text/token_model.h"

#include <algorithm>

#include "text/json_fields.h"

namespace nibble {
namespace {

using ParseModel = TokenModel (*)(const Json&, const std::string& where);

constexpr TypeRow<ParseModel> kTypes[] = {
    {"BPE", parse_bpe},
    {"WordPiece", parse_word_piece},
    {"Unigram", parse_unigram},
    {"WordLevel", parse_word_level},
};

std::string guess_type(const Json& json) {
  if (json.find("merges") != nullptr) return "BPE";
  if (json.find("max_input_chars_per_word") != nullptr) return "WordPiece";
  return json.find("unk_id") != nullptr ? "Unigram" : "WordLevel";
}

}  // namespace

TokenModel parse_token_model(const Json& json, const std::string& where) {
  json.as_object(where);
  return find_type(kTypes, string_or(json, "type", guess_type(json), where), where)(json, where);
}

std::string byte_token(unsigned char byte) {
  static constexpr std::string_view kDigits = "0123456789ABCDEF";
  return std::string("<0x") + kDigits[byte >> 4] + kDigits[byte & 15] + ">";
}

std::vector<int32_t> byte_token_ids(const Vocabulary& vocabulary) {
  std::vector<int32_t> ids;
  for (unsigned byte = 0; byte < 256; ++byte) {
    ids.push_back(vocabulary.id(byte_token(static_cast<unsigned char>(byte))).value_or(-1));
  }
  return ids;
}

bool append_bytes(std::string_view text, const std::vector<int32_t>& byte_ids, std::vector<int32_t>& ids) {
  const auto id_of = [&](char byte) { return byte_ids[static_cast<unsigned char>(byte)]; };
  if (std::any_of(text.begin(), text.end(), [&](char byte) { return id_of(byte) < 0; })) return false;
  for (const char byte : text) ids.push_back(id_of(byte));
  return true;
}

void fail_unknown_word(std::string_view word) {
  fail(ErrorCode::unsupported, "the tokenizer has no token for '" + printable(word, 100) + "' and no unknown token");
}

}  // namespace nibble
