#pragma once
// The parser's middle: expressions, with jinja2's precedences.
#include "text/jinja_token_reader.h"

namespace nibble::jinja {

class ExpressionParser : protected TokenReader {
 protected:
  using TokenReader::TokenReader;

  enum class Ternary { refused, allowed };
  enum class Attributes { refused, allowed };

  /// An expression, or several with commas between: a tuple.
  NodePtr parse_tuple(Ternary ternary);
  NodePtr parse_expression();
  /// What can be assigned to: a name, names with commas between, or (where allowed) an attribute of a namespace.
  NodePtr parse_target(Attributes attributes);
  /// "name(arguments)" of one filter, applied to `input`, and any "| name(arguments)" that follow.
  NodePtr parse_filter(NodePtr input);
  NodePtr parse_filters(NodePtr input);

 private:
  NodePtr parse_binary(size_t level);
  NodePtr parse_not();
  NodePtr parse_comparison();
  NodePtr parse_unary(bool with_filters);
  NodePtr parse_postfix(NodePtr object);
  NodePtr parse_primary();
  NodePtr parse_name();
  NodePtr parse_string();
  NodePtr parse_list();
  NodePtr parse_dict();
  NodePtr parse_member(NodePtr object);
  NodePtr parse_subscript(NodePtr object);
  NodePtr parse_slice_part();
  NodePtr parse_test(NodePtr input);
  NodePtr parse_arguments(NodePtr call);
  NodePtr parse_argument();
  bool is_tuple_end() const;
};

}  // namespace nibble::jinja
