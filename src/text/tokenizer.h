#pragma once
// Text to token ids and back, exactly as Hugging Face's tokenizers do it: added tokens are cut out, the rest is
// normalized, cut into words, encoded word by word, and special tokens are put around. The pipeline comes from
// tokenizer.json; its "truncation" and "padding" are ignored, and so is dropout.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/decoders.h"

namespace nibble {

class JsonText;
struct TokenLists;

struct TokenizeOptions {
  bool add_special_tokens = true;  // as the post-processor says: [CLS] ... [SEP], <s> ...
  int64_t max_length = 0;          // the texts are cut at their ends to make it, the longer of a pair first; 0 = none
  bool continues = false;          // the text goes on from another: no space is put in front of it
};

struct DecodeOptions {
  bool skip_special_tokens = false;
};

struct PairEncoding {
  std::vector<int32_t> ids;
  std::vector<int32_t> type_ids;  // BERT's segment of each id
};

/// Ids of the tokens that tokenizer_config.json names.
struct SpecialIds {
  std::optional<int32_t> bos, eos, unk, pad, cls, sep, mask;
};

/// Cheap to copy; all const members may be called from several threads.
class Tokenizer {
 public:
  /// @param tokenizer_config  may be null
  /// @param where             names the file for messages
  /// @throws Error{format} for a broken file, Error{unsupported} for a part that nibble does not know.
  static Tokenizer from_json(const Json& tokenizer_json, const Json& tokenizer_config, const std::string& where);

  /// The same. Of the vocabulary and the merges nothing is copied but what the tokenizer keeps.
  static Tokenizer from_text(const JsonText& tokenizer_json, const Json& tokenizer_config, const std::string& where);

  /// From a model folder: tokenizer.json, else vocab.txt (BERT), else tokenizer.model (SentencePiece).
  /// @throws Error{io} when it has none of them.
  static Tokenizer from_folder(const std::filesystem::path& folder);
  static bool folder_has_tokenizer(const std::filesystem::path& folder);

  /// Broken UTF-8 is taken for U+FFFD.
  std::vector<int32_t> encode(std::string_view text, TokenizeOptions options = {}) const;
  PairEncoding encode_pair(std::string_view first, std::string_view second, TokenizeOptions options = {}) const;

  /// Where the last of the tokens begins that are looked for in the text as given ("<|im_end|>"); 0 when there is none.
  /// What begins there has the ids that it has alone, whatever stands before.
  size_t last_added_token(std::string_view text) const;

  /// Ids that no token has are left out. The text is valid UTF-8; "clean_up_tokenization_spaces" is not applied.
  std::string decode(std::span<const int32_t> ids, DecodeOptions options = {}) const;

  /// The token as the vocabulary spells it ("Ġthe"); "" for an id that no token has.
  std::string piece(int32_t id) const;
  std::optional<int32_t> token_id(std::string_view piece) const;
  /// All ids are below.
  int64_t vocab_size() const;
  const SpecialIds& special() const;
  /// "model_max_length" of tokenizer_config.json, special tokens included; nullopt = any length.
  std::optional<int64_t> max_length() const;
  bool is_special(int32_t id) const;
  /// True when encode() puts the bos token in front of a text.
  bool adds_bos() const;

 private:
  friend class StreamDecoder;
  struct Impl;
  static Tokenizer from_parts(const Json& tokenizer_json, const TokenLists& lists, const Json& tokenizer_config,
                              const std::string& where);
  explicit Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

  std::shared_ptr<const Impl> impl_;
};

/// tokenizer_config.json of a model's folder; null when there is none. An older one, which does not describe the added
/// tokens, gets the special tokens that only special_tokens_map.json names, as in transformers.
Json read_tokenizer_config(const std::filesystem::path& folder);

/// Decodes a stream of ids. What push() and finally flush() return makes, put together, decode() of all ids; no part
/// ends inside a character.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, DecodeOptions options = {});

  /// The text that this id completes; often "" while bytes of a character are missing.
  std::string push(int32_t id);
  /// The rest. The decoder can be used again afterwards.
  std::string flush();

 private:
  Tokenizer tokenizer_;
  DecodeOptions options_;
  std::vector<DecodeState> states_;
};

}  // namespace nibble
