#include "text/decoders.h"

#include <utility>

#include "text/byte_level.h"
#include "text/json_fields.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace nibble {
namespace {

using Tokens = std::vector<std::string>;
using ParseDecoder = void (*)(const Json&, const std::string& where, TokenDecoder& decoder);

std::string concat(const Tokens& tokens) {
  std::string text;
  for (const std::string& token : tokens) text += token;
  return text;
}

// Gives out held + text except for its last `keep` bytes, which are held.
void hold_back(DecodeState& state, Tokens& tokens, std::string text, size_t keep) {
  state.held = text.substr(text.size() - keep);
  text.resize(text.size() - keep);
  tokens = {std::move(text)};
}

void parse_byte_level(const Json&, const std::string&, TokenDecoder& decoder) {
  decoder.steps.push_back([](DecodeState& state, Tokens& tokens, bool last) {
    std::string bytes = std::move(state.held);
    for (const std::string& token : tokens) bytes += chars_to_bytes(token);
    hold_back(state, tokens, bytes, last ? 0 : incomplete_tail(bytes));
    tokens[0] = to_valid_utf8(tokens[0]);
  });
  decoder.fused = true;
}

// The spaces that detokenized English should not have, in this order.
constexpr std::string_view kCleanups[][2] = {
    {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},    {" n't", "n't"},
    {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
};

void parse_word_piece(const Json& json, const std::string& where, TokenDecoder& decoder) {
  const std::string prefix = string_or(json, "prefix", "##", where);
  const bool cleanup = bool_or(json, "cleanup", true, where);
  decoder.steps.push_back([=](DecodeState& state, Tokens& tokens, bool) {
    for (std::string& token : tokens) {
      const bool first = !std::exchange(state.started, true);
      if (!first) token = token.starts_with(prefix) ? token.substr(prefix.size()) : " " + token;
      if (!cleanup || token.find(' ') == token.npos) continue;
      for (const auto& [from, to] : kCleanups) {
        if (token.find(from) != token.npos) token = replace_all(token, match_literal(std::string(from)), to);
      }
    }
  });
}

void parse_metaspace(const Json& json, const std::string& where, TokenDecoder& decoder) {
  const std::string mark = string_or(json, "replacement", "\u2581", where);
  if (mark.empty()) fail(ErrorCode::format, where + ".replacement: empty");
  const std::string old = bool_or(json, "add_prefix_space", true, where) ? "always" : "never";
  const bool prefixed = string_or(json, "prepend_scheme", old, where) != "never";
  const Matcher marks = match_literal(mark);
  decoder.steps.push_back([=](DecodeState& state, Tokens& tokens, bool) {
    for (std::string& token : tokens) {
      const bool first = !std::exchange(state.started, true);
      token = replace_all(token, marks, first && prefixed ? "" : " ");
    }
  });
}

// The last token's suffix vanishes, the others' become spaces: a token waits for the next one.
void parse_bpe(const Json& json, const std::string& where, TokenDecoder& decoder) {
  const std::string suffix = string_or(json, "suffix", "</w>", where);
  if (suffix.empty()) fail(ErrorCode::format, where + ".suffix: empty");
  const Matcher suffixes = match_literal(suffix);
  decoder.steps.push_back([=](DecodeState& state, Tokens& tokens, bool last) {
    if (state.started) tokens.insert(tokens.begin(), std::exchange(state.held, {}));
    state.started = !tokens.empty() && !last;
    if (tokens.empty()) return;
    std::string waiting = std::move(tokens.back());
    tokens.pop_back();
    for (std::string& token : tokens) token = replace_all(token, suffixes, " ");
    if (last) {
      tokens.push_back(replace_all(waiting, suffixes, ""));
    } else {
      state.held = std::move(waiting);
    }
  });
}

// The byte of a token such as <0x0A>; -1 for other tokens.
int byte_of(const std::string& token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
  int value = 0;
  for (const char c : {token[3], token[4]}) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

// A run of byte tokens is text if it is UTF-8 as a whole, else U+FFFD for each byte: it waits for its end.
void parse_byte_fallback(const Json&, const std::string&, TokenDecoder& decoder) {
  decoder.steps.push_back([](DecodeState& state, Tokens& tokens, bool last) {
    Tokens out;
    const auto flush = [&] {
      if (state.held.empty()) return;
      if (is_valid_utf8(state.held)) {
        out.push_back(state.held);
      } else {
        out.insert(out.end(), state.held.size(), "\uFFFD");
      }
      state.held.clear();
    };
    for (std::string& token : tokens) {
      const int byte = byte_of(token);
      if (byte >= 0) {
        state.held.push_back(static_cast<char>(byte));
      } else {
        flush();
        out.push_back(std::move(token));
      }
    }
    if (last) flush();
    tokens = std::move(out);
  });
}

void parse_fuse(const Json&, const std::string&, TokenDecoder& decoder) { decoder.fused = true; }

// How many bytes `count` copies of `c` at most make at one end of the text.
size_t run_bytes(std::string_view text, std::string_view c, int64_t count, bool at_end) {
  size_t bytes = 0;
  for (int64_t i = 0; i < count; ++i, bytes += c.size()) {
    const std::string_view rest = at_end ? text.substr(0, text.size() - bytes) : text.substr(bytes);
    if (!(at_end ? rest.ends_with(c) : rest.starts_with(c))) break;
  }
  return bytes;
}

void parse_strip(const Json& json, const std::string& where, TokenDecoder& decoder) {
  const std::string c = string_or(json, "content", " ", where);
  const int64_t start = required(json, "start", where).as_int(where + ".start");
  const int64_t stop = required(json, "stop", where).as_int(where + ".stop");
  if (c.empty()) fail(ErrorCode::format, where + ".content: empty");
  if (!decoder.fused) {
    decoder.steps.push_back([=](DecodeState&, Tokens& tokens, bool) {
      for (std::string& token : tokens) {
        token.erase(0, run_bytes(token, c, start, false));
        token.resize(token.size() - run_bytes(token, c, stop, true));
      }
    });
    return;
  }
  decoder.steps.push_back([=](DecodeState& state, Tokens& tokens, bool last) {
    std::string text = std::exchange(state.held, {}) + concat(tokens);
    if (!state.started) {
      const size_t leading = run_bytes(text, c, start - state.removed, false);
      state.removed += static_cast<int64_t>(leading / c.size());
      text.erase(0, leading);
      state.started = !text.empty();
    }
    const size_t trailing = run_bytes(text, c, stop, true);
    hold_back(state, tokens, text, trailing);
    if (last) state.held.clear();
  });
}

void parse_replace(const Json& json, const std::string& where, TokenDecoder& decoder) {
  const Matcher matcher = parse_pattern(required(json, "pattern", where), where + ".pattern");
  const std::string content = required_string(json, "content", where);
  decoder.steps.push_back([=](DecodeState&, Tokens& tokens, bool) {
    for (std::string& token : tokens) token = replace_all(token, matcher, content);
  });
}

// Steps behind Fuse see the whole text as one token, so it has to be gathered first. (Strip can do without.)
void gather(DecodeState& state, Tokens& tokens, bool last) {
  state.held += concat(tokens);
  tokens.clear();
  if (last) tokens = {std::exchange(state.held, {})};
}

void parse_any(const Json& json, const std::string& where, TokenDecoder& decoder);

void parse_sequence(const Json& json, const std::string& where, TokenDecoder& decoder) {
  size_t index = 0;
  for (const Json& step : required(json, "decoders", where).as_array(where + ".decoders")) {
    parse_any(step, where + ".decoders[" + std::to_string(index++) + "]", decoder);
  }
}

constexpr TypeRow<ParseDecoder> kTypes[] = {
    {"ByteLevel", parse_byte_level},
    {"WordPiece", parse_word_piece},
    {"Metaspace", parse_metaspace},
    {"BPEDecoder", parse_bpe},
    {"ByteFallback", parse_byte_fallback},
    {"Fuse", parse_fuse},
    {"Strip", parse_strip},
    {"Replace", parse_replace},
    {"Sequence", parse_sequence},
};

void parse_any(const Json& json, const std::string& where, TokenDecoder& decoder) {
  const std::string type = required_string(json, "type", where);
  const ParseDecoder parse = find_type(kTypes, type, where);
  if (decoder.fused && type != "Fuse" && type != "Strip" && type != "Sequence") {
    decoder.steps.push_back(gather);
    decoder.fused = false;
  }
  parse(json, where, decoder);
}

void join_with_spaces(DecodeState& state, Tokens& tokens, bool) {
  for (std::string& token : tokens) {
    if (std::exchange(state.started, true)) token.insert(0, " ");
  }
}

}  // namespace

TokenDecoder parse_decoder(const Json& json, const std::string& where) {
  TokenDecoder decoder;
  if (json.is_null()) {
    decoder.steps.push_back(join_with_spaces);
  } else {
    parse_any(json, where, decoder);
  }
  return decoder;
}

std::string decode_tokens(const TokenDecoder& decoder, std::vector<DecodeState>& states,
                          std::vector<std::string> tokens, bool last) {
  states.resize(decoder.steps.size());
  for (size_t i = 0; i < decoder.steps.size(); ++i) decoder.steps[i](states[i], tokens, last);
  return concat(tokens);
}

}  // namespace nibble
