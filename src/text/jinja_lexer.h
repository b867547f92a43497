#pragma once
// Cuts a template into text and the tokens of its tags, with white space already removed as transformers configures
// jinja2: trim_blocks (a newline behind a block is dropped), lstrip_blocks (blanks before a block on its line are
// dropped), and one newline at the end of the template is dropped.
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_value.h"

namespace nibble::jinja {

enum class TokenKind { text, output_begin, output_end, block_begin, block_end, name, string, number, symbol, end };

struct Token {
  TokenKind kind;
  int line;
  std::string text;  // the text, name or symbol; of a string its contents
  Value value;       // of a string or number
};

/// @throws Error{format} "WHERE: line N: what"
std::vector<Token> tokenize(std::string_view source, const std::string& where);

}  // namespace nibble::jinja
