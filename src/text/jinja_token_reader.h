#pragma once
// What every part of the parser stands on: the tokens, the nodes that it makes of them, and the limits on their depth.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"
#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace nibble::jinja {

class TokenReader {
 protected:
  TokenReader(std::vector<Token> tokens, std::string where) : tokens_(std::move(tokens)), where_(std::move(where)) {}

  /// Counts the depth of the recursion while it lives.
  class Nesting {
   public:
    explicit Nesting(TokenReader& parser);
    ~Nesting() { --parser_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    TokenReader& parser_;
  };

  const Token& token() const { return tokens_[next_]; }
  const Token& ahead(size_t count) const;
  const Token& take();
  bool is_symbol(std::string_view symbol) const;
  bool is_name(std::string_view name) const;
  bool take_name(std::string_view name);
  std::string take_identifier();
  void expect(TokenKind kind);
  void expect_symbol(std::string_view symbol);
  void expect_name(std::string_view name);

  [[noreturn]] void fail(const std::string& what) const { fail(ErrorCode::format, what); }
  [[noreturn]] void fail(ErrorCode code, const std::string& what) const;
  [[noreturn]] void fail_unexpected() const;

  NodePtr node(NodeKind kind) const;
  /// Appends a child (or null) and keeps the depth right.
  void adopt(Node& parent, NodePtr child) const;
  /// Gives `hole`, which lies at or below `top` on the way of first children, its child.
  void adopt_below(Node& top, Node& hole, NodePtr child) const;

 private:
  std::vector<Token> tokens_;
  size_t next_ = 0;
  std::string where_;
  int nesting_ = 0;
};

}  // namespace nibble::jinja
