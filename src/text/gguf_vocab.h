#pragma once
// The tokenizer that GGUF metadata describes ("tokenizer.ggml.*"), as the files of a Hugging Face folder. transformers
// loads them too; tokenizer_class is PreTrainedTokenizerFast, since model classes may rebuild the pre-tokenizer and
// lose parts of it (the digit split of SmolLM).
#include <string>
#include <string_view>

#include "core/json.h"

namespace nibble {

/// @param metadata  an object with the file's keys
/// @throws Error{format} for missing or broken entries, Error{unsupported} naming the known tokenizer models or
///         pre-tokenizers.
Json tokenizer_json_from_gguf(const Json& metadata, const std::string& where);
/// Special tokens and chat template.
Json tokenizer_config_from_gguf(const Json& metadata, const std::string& where);

/// How byte-level BPE vocabularies of one name in "tokenizer.ggml.pre" cut words.
struct GgufPreTokenizer {
  std::string_view names;      // with a space before, between and behind
  const char* patterns[6];     // applied one after the other, each isolates its matches; unused ones are null
  bool ignore_merges = false;  // a word that is a token is taken whole
  bool adds_bos = false;       // unless "tokenizer.ggml.add_bos_token" says otherwise
  bool nfc = false;            // the published tokenizer composes characters first
};

/// @throws Error{unsupported} naming the known ones.
const GgufPreTokenizer& find_gguf_pre_tokenizer(std::string_view name, const std::string& where);

}  // namespace nibble
