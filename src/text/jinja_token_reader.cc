#include "text/jinja_token_reader.h"

#include <algorithm>

#include "text/jinja_runtime.h"

namespace nibble::jinja {

TokenReader::Nesting::Nesting(TokenReader& parser) : parser_(parser) {
  if (parser.nesting_ >= kMaxSourceDepth) {
    parser.fail("blocks and expressions nest deeper than " + std::to_string(kMaxSourceDepth) + " levels");
  }
  ++parser_.nesting_;
}

const Token& TokenReader::ahead(size_t count) const { return tokens_[std::min(next_ + count, tokens_.size() - 1)]; }

const Token& TokenReader::take() {
  const Token& taken = tokens_[next_];
  if (taken.kind != TokenKind::end) ++next_;
  return taken;
}

bool TokenReader::is_symbol(std::string_view symbol) const {
  return token().kind == TokenKind::symbol && token().text == symbol;
}
bool TokenReader::is_name(std::string_view name) const {
  return token().kind == TokenKind::name && token().text == name;
}

bool TokenReader::take_name(std::string_view name) {
  const bool found = is_name(name);
  if (found) take();
  return found;
}

std::string TokenReader::take_identifier() {
  if (token().kind != TokenKind::name) fail_unexpected();
  return take().text;
}

void TokenReader::expect(TokenKind kind) {
  if (token().kind != kind) fail_unexpected();
  take();
}
void TokenReader::expect_symbol(std::string_view symbol) {
  if (!is_symbol(symbol)) fail("expected '" + std::string(symbol) + "', found '" + printable(token().text, 100) + "'");
  take();
}
void TokenReader::expect_name(std::string_view name) {
  if (!take_name(name)) fail("expected '" + std::string(name) + "', found '" + printable(token().text, 100) + "'");
}

void TokenReader::fail(ErrorCode code, const std::string& what) const {
  nibble::fail(code, where_ + ": line " + std::to_string(token().line) + ": " + what);
}
void TokenReader::fail_unexpected() const { fail("unexpected '" + printable(token().text, 100) + "'"); }

NodePtr TokenReader::node(NodeKind kind) const {
  auto made = std::make_unique<Node>();
  made->kind = kind;
  made->line = token().line;
  return made;
}

void TokenReader::adopt(Node& parent, NodePtr child) const {
  if (child != nullptr) parent.depth = std::max(parent.depth, child->depth + 1);
  if (parent.depth > 2 * kMaxSourceDepth) {
    fail("an expression has more than " + std::to_string(2 * kMaxSourceDepth) + " levels");
  }
  parent.children.push_back(std::move(child));
}

void TokenReader::adopt_below(Node& top, Node& hole, NodePtr child) const {
  if (&top != &hole) {
    adopt_below(*top.children[0], hole, std::move(child));
    NodePtr first = std::move(top.children[0]);
    top.children.erase(top.children.begin());
    adopt(top, std::move(first));
    std::rotate(top.children.begin(), top.children.end() - 1, top.children.end());
    return;
  }
  adopt(hole, std::move(child));
}

}  // namespace nibble::jinja
