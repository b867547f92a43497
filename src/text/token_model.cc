#include "text/token_model.h"

#include <algorithm>

#include "text/json_fields.h"

namespace nibble {
namespace {

using ParseModel = TokenModel (*)(const Json&, const TokenLists&, const std::string& where);

constexpr TypeRow<ParseModel> kTypes[] = {
    {"BPE", parse_bpe},
    {"WordPiece", parse_word_piece},
    {"Unigram", parse_unigram},
    {"WordLevel", parse_word_level},
};

std::string guess_type(const Json& json, const TokenLists& lists) {
  if (lists.merges) return "BPE";
  if (json.find("max_input_chars_per_word") != nullptr) return "WordPiece";
  return json.find("unk_id") != nullptr ? "Unigram" : "WordLevel";
}

}  // namespace

TokenModel parse_token_model(const Json& json, const TokenLists& lists, const std::string& where) {
  json.as_object(where);
  return find_type(kTypes, string_or(json, "type", guess_type(json, lists), where), where)(json, lists, where);
}

const std::vector<TokenEntry>& required_vocab(const TokenLists& lists, bool has_scores, const std::string& where) {
  if (!lists.vocab) fail(ErrorCode::format, where + ": no member 'vocab'");
  if (lists.has_scores != has_scores) {
    const char* kinds[] = {"an object", "an array"};
    fail(ErrorCode::format,
         where + ".vocab: found " + kinds[lists.has_scores] + ", expected " + std::string(kinds[has_scores]));
  }
  return *lists.vocab;
}

std::shared_ptr<const Vocabulary> vocabulary_of(const TokenLists& lists, const std::string& where) {
  auto vocabulary = std::make_shared<const Vocabulary>(required_vocab(lists, false, where), where + ".vocab");
  if (const std::optional<std::string_view> token = vocabulary->repeated()) {
    fail(ErrorCode::format, where + ".vocab: duplicate key '" + printable(*token, 200) + "'");
  }
  return vocabulary;
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
