#pragma once
// SentencePiece vocabularies, which come from tokenizer.model files and from GGUF metadata, as a tokenizer.json.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace nibble {

/// The numbers are those of sentencepiece_model.proto and of GGUF's "tokenizer.ggml.token_type".
enum class TokenType : int64_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

/// @throws Error{format} for a number that is none of them.
TokenType to_token_type(int64_t number, const std::string& where);

struct SpmVocabulary {
  enum class Kind { bpe, unigram };
  Kind kind = Kind::bpe;
  std::vector<std::string> tokens;
  std::vector<double> scores;                // one per token
  std::vector<TokenType> types;              // one per token
  bool add_space_prefix = true;              // "add_dummy_prefix"
  bool remove_extra_spaces = false;          // "remove_extra_whitespaces"
  std::string charsmap;                      // compiled normalization table, raw bytes; "" = none
  std::optional<int64_t> unknown, bos, eos;  // bos and eos: put around the text, absent = not put
};

/// A tokenizer.json that the tokenizers library loads as well.
Json tokenizer_json_from_spm(const SpmVocabulary& vocabulary, const std::string& where);

// Parts of a tokenizer.json that the other converters use too.

/// "added_tokens": unknown and control tokens as special ones, user-defined ones as ordinary ones.
Json added_tokens_json(const std::vector<std::string>& tokens, const std::vector<TokenType>& types);
/// {"token": id, ...}; of equal tokens the last one counts.
Json vocab_json(const std::vector<std::string>& tokens);
/// A TemplateProcessing with one token in front of and one behind each text; null when there is neither.
Json template_json(const std::vector<std::string>& tokens, std::optional<int64_t> front, std::optional<int64_t> back);
/// {"type": type, members...}
Json typed_json(std::string_view type, Json::Object members = {});
/// The whole file.
Json tokenizer_json(Json added_tokens, Json normalizer, Json pre_tokenizer, Json post_processor, Json decoder,
                    Json model);

}  // namespace nibble
