// Recursive descent over the tokens. Expressions are in jinja_expressions.cc; here are the tags.
#include "text/jinja_parser.h"

#include <algorithm>
#include <array>

#include "text/jinja_expressions.h"
#include "text/jinja_runtime.h"

namespace nibble::jinja {
namespace {

using Words = std::vector<std::string_view>;

class Parser : ExpressionParser {
 public:
  Parser(std::vector<Token> tokens, std::string where) : ExpressionParser(std::move(tokens), std::move(where)) {}

  NodePtr run() {
    NodePtr block = parse_block({});
    if (token().kind != TokenKind::end) fail_unexpected();
    return block;
  }

 private:
  // The statements up to a tag that begins with one of the words, which is not consumed.
  NodePtr parse_block(const Words& ends) {
    const Nesting nesting(*this);
    NodePtr block = node(NodeKind::block);
    while (token().kind != TokenKind::end) {
      if (token().kind == TokenKind::text) {
        NodePtr text = node(NodeKind::text);
        text->name = take().text;
        adopt(*block, std::move(text));
      } else if (token().kind == TokenKind::output_begin) {
        NodePtr output = node(NodeKind::output);
        take();
        adopt(*output, parse_tuple(Ternary::allowed));
        expect(TokenKind::output_end);
        adopt(*block, std::move(output));
      } else {
        const std::string& word = ahead(1).text;
        if (std::find(ends.begin(), ends.end(), word) != ends.end()) return block;
        take();
        adopt(*block, parse_statement());
      }
    }
    return block;
  }

  // The rest of a tag, and the statements that it holds.
  NodePtr parse_body(const Words& ends) {
    if (is_symbol(":")) take();
    expect(TokenKind::block_end);
    NodePtr block = parse_block(ends);
    if (token().kind == TokenKind::end)
      fail("end of template inside a block, expected '" + std::string(ends.back()) + "'");
    expect(TokenKind::block_begin);
    return block;
  }

  // As parse_body, for tags that end in one way only; consumes the end tag.
  NodePtr parse_whole_body(std::string_view end) {
    NodePtr block = parse_body({end});
    take();
    expect(TokenKind::block_end);
    return block;
  }

  NodePtr parse_statement() {
    struct Tag {
      std::string_view word;
      NodePtr (Parser::*parse)();
    };
    static constexpr std::array<Tag, 11> kTags = {{{"if", &Parser::parse_if},
                                                   {"for", &Parser::parse_for},
                                                   {"set", &Parser::parse_set},
                                                   {"macro", &Parser::parse_macro},
                                                   {"call", &Parser::parse_call},
                                                   {"filter", &Parser::parse_filter_block},
                                                   {"generation", &Parser::parse_generation},
                                                   {"with", &Parser::parse_with},
                                                   {"print", &Parser::parse_print},
                                                   {"break", &Parser::parse_break},
                                                   {"continue", &Parser::parse_continue}}};
    if (token().kind != TokenKind::name) fail_unexpected();
    const std::string word = token().text;
    const auto tag = std::find_if(kTags.begin(), kTags.end(), [&](const Tag& t) { return t.word == word; });
    if (tag == kTags.end()) {
      fail(word.starts_with("end") || word.starts_with("el") ? ErrorCode::format : ErrorCode::unsupported,
           "tag '" + word + "' is not expected here or not supported");
    }
    take();
    return (this->*tag->parse)();
  }

  NodePtr parse_if() {
    NodePtr chain = node(NodeKind::if_chain);
    while (true) {
      adopt(*chain, parse_tuple(Ternary::refused));
      adopt(*chain, parse_body({"elif", "else", "endif"}));
      const std::string word = take().text;
      if (word == "elif") continue;
      if (word == "else") adopt(*chain, parse_body({"endif"}));
      if (word == "else") take();
      expect(TokenKind::block_end);
      return chain;
    }
  }

  NodePtr parse_for() {
    NodePtr loop = node(NodeKind::for_loop);
    adopt(*loop, parse_target(Attributes::refused));
    expect_name("in");
    adopt(*loop, parse_tuple(Ternary::refused));
    adopt(*loop, take_name("if") ? parse_expression() : nullptr);
    if (take_name("recursive")) loop->name = "recursive";
    ++loops_;
    adopt(*loop, parse_body({"else", "endfor"}));
    --loops_;
    const bool has_else = take().text == "else";
    adopt(*loop, has_else ? parse_body({"endfor"}) : nullptr);
    if (has_else) take();
    expect(TokenKind::block_end);
    return loop;
  }

  NodePtr parse_set() {
    NodePtr set = node(NodeKind::set);
    adopt(*set, parse_target(Attributes::allowed));
    if (is_symbol("=")) {
      take();
      adopt(*set, parse_tuple(Ternary::allowed));
      expect(TokenKind::block_end);
      return set;
    }
    NodePtr capture = node(NodeKind::capture);
    Node* hole = capture.get();
    NodePtr value = parse_filters(std::move(capture));
    adopt_below(*value, *hole, parse_scoped_body("endset"));
    adopt(*set, std::move(value));
    return set;
  }

  NodePtr parse_filter_block() {
    NodePtr output = node(NodeKind::output);
    NodePtr capture = node(NodeKind::capture);
    Node* hole = capture.get();
    NodePtr value = parse_filter(std::move(capture));
    value = parse_filters(std::move(value));
    adopt_below(*value, *hole, parse_scoped_body("endfilter"));
    adopt(*output, std::move(value));
    return output;
  }

  // transformers' mark for what the model writes; it changes nothing in the text.
  NodePtr parse_generation() {
    NodePtr output = node(NodeKind::output);
    NodePtr capture = node(NodeKind::capture);
    adopt(*capture, parse_scoped_body("endgeneration"));
    adopt(*output, std::move(capture));
    return output;
  }

  // A body that loops outside of it cannot be left from.
  NodePtr parse_scoped_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    NodePtr body = parse_whole_body(end);
    loops_ = loops;
    return body;
  }

  NodePtr parse_macro() {
    NodePtr macro = node(NodeKind::macro);
    macro->name = take_identifier();
    parse_parameters(*macro);
    adopt(*macro, parse_scoped_body("endmacro"));
    return macro;
  }

  // {% call(parameters) macro(arguments) %}: the macro is given the body as caller().
  NodePtr parse_call() {
    NodePtr block = node(NodeKind::call_block), caller = node(NodeKind::macro);
    caller->name = "caller";
    if (is_symbol("(")) parse_parameters(*caller);
    NodePtr call = parse_expression();
    if (call->kind != NodeKind::call) fail("expected a call");
    adopt(*caller, parse_scoped_body("endcall"));
    adopt(*block, std::move(caller));
    adopt(*block, std::move(call));
    return block;
  }

  void parse_parameters(Node& macro) {
    expect_symbol("(");
    while (!is_symbol(")")) {
      if (!macro.children.empty()) expect_symbol(",");
      if (is_symbol(")")) break;
      NodePtr parameter = node(NodeKind::keyword);
      parameter->name = take_identifier();
      const bool has_default = is_symbol("=");
      if (has_default) take();
      adopt(*parameter, has_default ? parse_expression() : nullptr);
      adopt(macro, std::move(parameter));
    }
    take();
  }

  NodePtr parse_with() {
    NodePtr with = node(NodeKind::with);
    while (token().kind != TokenKind::block_end) {
      if (!with->children.empty()) expect_symbol(",");
      adopt(*with, parse_target(Attributes::refused));
      expect_symbol("=");
      adopt(*with, parse_expression());
    }
    adopt(*with, parse_whole_body("endwith"));
    return with;
  }

  NodePtr parse_print() {
    NodePtr block = node(NodeKind::block);
    while (token().kind != TokenKind::block_end) {
      if (!block->children.empty()) expect_symbol(",");
      NodePtr output = node(NodeKind::output);
      adopt(*output, parse_expression());
      adopt(*block, std::move(output));
    }
    take();
    return block;
  }

  NodePtr parse_break() { return parse_jump(NodeKind::break_loop, "break"); }
  NodePtr parse_continue() { return parse_jump(NodeKind::continue_loop, "continue"); }

  NodePtr parse_jump(NodeKind kind, const std::string& word) {
    if (loops_ == 0) fail("'" + word + "' outside a loop");
    NodePtr jump = node(kind);
    expect(TokenKind::block_end);
    return jump;
  }

  int loops_ = 0;  // around the statement, up to the next scope that cannot be left
};

}  // namespace

NodePtr parse(std::string_view source, const std::string& where) {
  if (source.size() > kMaxSourceBytes) {
    fail(ErrorCode::format, where + ": chat template of " + std::to_string(source.size()) + " bytes (at most " +
                                std::to_string(kMaxSourceBytes) + ")");
  }
  return Parser(tokenize(source, where), where).run();
}

}  // namespace nibble::jinja
