#pragma once
// Third stage of a tokenizer: turns one word into token ids.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/token_lists.h"
#include "text/vocabulary.h"

namespace nibble {

struct TokenModel {
  std::shared_ptr<const Vocabulary> vocabulary;
  /// Appends the ids of a word (valid UTF-8, not empty). @throws Error{unsupported} for a word that has no ids where
  /// the model has no unknown token either.
  std::function<void(std::string_view word, std::vector<int32_t>& ids)> encode;
  /// Where not empty: no token has this text behind another text, so words may be cut in front of each run of it
  /// without changing the ids. (SentencePiece's BPE takes a whole document as one word; this makes caching possible.)
  std::string word_start;
};

/// The "model" of tokenizer.json, which may lack what is in its lists. Files of 2020 lack its "type".
TokenModel parse_token_model(const Json& json, const TokenLists& lists, const std::string& where);

TokenModel parse_bpe(const Json& json, const TokenLists& lists, const std::string& where);
TokenModel parse_word_piece(const Json& json, const TokenLists& lists, const std::string& where);
TokenModel parse_word_level(const Json& json, const TokenLists& lists, const std::string& where);
TokenModel parse_unigram(const Json& json, const TokenLists& lists, const std::string& where);

/// Of the models whose "vocab" is an object, {"token": id, ...}.
std::shared_ptr<const Vocabulary> vocabulary_of(const TokenLists& lists, const std::string& where);
/// The list of a model that has to have it.
const std::vector<TokenEntry>& required_vocab(const TokenLists& lists, bool has_scores, const std::string& where);

/// "<0x0A>", the name of a byte's token.
std::string byte_token(unsigned char byte);

/// The ids of all 256 byte tokens; -1 for those that the vocabulary lacks.
std::vector<int32_t> byte_token_ids(const Vocabulary& vocabulary);

/// Appends one id per byte if the vocabulary has them all.
bool append_bytes(std::string_view text, const std::vector<int32_t>& byte_ids, std::vector<int32_t>& ids);

[[noreturn]] void fail_unknown_word(std::string_view word);

}  // namespace nibble
