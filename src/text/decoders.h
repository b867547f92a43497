#pragma once
// From tokens back to text. A decoder is a chain of steps that each rewrite a list of tokens; every step also works on
// one token at a time and keeps back what it cannot decide yet, so that streaming gives the same text.
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/json.h"

namespace nibble {

/// What a step remembers between two calls.
struct DecodeState {
  bool started = false;  // a token has passed
  std::string held;      // text kept back
  int64_t removed = 0;   // characters taken off so far
};

/// Rewrites the next tokens; `last` says that none follow. Tokens that are undecided stay in the state.
using DecodeStep = std::function<void(DecodeState& state, std::vector<std::string>& tokens, bool last)>;

struct TokenDecoder {
  std::vector<DecodeStep> steps;
  bool fused = false;  // the steps so far make one text of all tokens: what follows sees pieces of a single token
};

/// The "decoder" of tokenizer.json; null gives one that puts a space between tokens.
TokenDecoder parse_decoder(const Json& json, const std::string& where);

/// Runs the chain on the next tokens and returns the text that is certain by now.
std::string decode_tokens(const TokenDecoder& decoder, std::vector<DecodeState>& states,
                          std::vector<std::string> tokens, bool last);

}  // namespace nibble
