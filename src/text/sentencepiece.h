#pragma once
// tokenizer.model files: a small reader of the protobuf message ModelProto (sentencepiece_model.proto).
#include <string>
#include <string_view>

#include "core/json.h"

namespace nibble {

/// The file's vocabulary and rules as a tokenizer.json.
/// @param tokenizer_config  may be null; "add_bos_token" and "add_eos_token" decide about the tokens around a text.
///        Without them BPE models (Llama) get bos in front and unigram models (T5) eos behind.
/// @throws Error{format} for a broken file, Error{unsupported} for model types other than BPE and unigram, and for
///         tokenizer classes that number the tokens differently from the file.
Json tokenizer_json_from_sentencepiece(std::string_view bytes, const Json& tokenizer_config, const std::string& where);

}  // namespace nibble
