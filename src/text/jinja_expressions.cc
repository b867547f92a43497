#include "text/jinja_expressions.h"

#include <algorithm>
#include <array>
#include <span>

#include "text/jinja_builtins.h"

namespace nibble::jinja {
namespace {

struct Operator {
  std::string_view symbol;
  NodeKind kind;
};

// From the loosest to the tightest. `not` and comparisons stand between the second and the third level. All group
// from the left, ** too, as jinja2 has it.
constexpr std::array<Operator, 1> kOr = {{{"or", NodeKind::logical_or}}};
constexpr std::array<Operator, 1> kAnd = {{{"and", NodeKind::logical_and}}};
constexpr std::array<Operator, 2> kSum = {{{"+", NodeKind::binary}, {"-", NodeKind::binary}}};
constexpr std::array<Operator, 1> kConcat = {{{"~", NodeKind::concat}}};
constexpr std::array<Operator, 4> kProduct = {
    {{"*", NodeKind::binary}, {"/", NodeKind::binary}, {"//", NodeKind::binary}, {"%", NodeKind::binary}}};
constexpr std::array<Operator, 1> kPower = {{{"**", NodeKind::binary}}};
constexpr std::array<std::span<const Operator>, 6> kLevels = {kOr, kAnd, kSum, kConcat, kProduct, kPower};
constexpr size_t kNotLevel = 2;

constexpr std::array<std::string_view, 6> kComparisons = {"==", "!=", "<", "<=", ">", ">="};

struct Literal {
  std::string_view word;
  Value (*value)();
};
constexpr std::array<Literal, 6> kLiterals = {{{"true", [] { return Value(true); }},
                                               {"True", [] { return Value(true); }},
                                               {"false", [] { return Value(false); }},
                                               {"False", [] { return Value(false); }},
                                               {"none", [] { return Value(None{}); }},
                                               {"None", [] { return Value(None{}); }}}};

const Literal* find_literal(std::string_view word) {
  const auto row = std::find_if(kLiterals.begin(), kLiterals.end(), [word](const auto& l) { return l.word == word; });
  return row == kLiterals.end() ? nullptr : &*row;
}

}  // namespace

bool ExpressionParser::is_tuple_end() const {
  return token().kind == TokenKind::output_end || token().kind == TokenKind::block_end || is_symbol(")");
}

NodePtr ExpressionParser::parse_tuple(Ternary ternary) {
  const auto parse = [&] { return ternary == Ternary::allowed ? parse_expression() : parse_binary(0); };
  NodePtr first = parse();
  if (!is_symbol(",")) return first;
  NodePtr tuple = node(NodeKind::tuple);
  adopt(*tuple, std::move(first));
  while (is_symbol(",")) {
    take();
    if (is_tuple_end()) break;
    adopt(*tuple, parse());
  }
  return tuple;
}

NodePtr ExpressionParser::parse_expression() {
  const Nesting nesting(*this);
  NodePtr value = parse_binary(0);
  while (is_name("if")) {
    NodePtr conditional = node(NodeKind::conditional);
    take();
    adopt(*conditional, parse_binary(0));
    adopt(*conditional, std::move(value));
    adopt(*conditional, take_name("else") ? parse_expression() : nullptr);
    value = std::move(conditional);
  }
  return value;
}

NodePtr ExpressionParser::parse_binary(size_t level) {
  if (level == kLevels.size()) return parse_unary(true);
  const auto parse_operand = [&] { return level + 1 == kNotLevel ? parse_not() : parse_binary(level + 1); };
  NodePtr left = parse_operand();
  bool joined = false;
  while (token().kind == TokenKind::symbol || token().kind == TokenKind::name) {
    const auto is_next = [this](const Operator& op) { return op.symbol == token().text; };
    const auto op = std::find_if(kLevels[level].begin(), kLevels[level].end(), is_next);
    if (op == kLevels[level].end()) break;
    NodePtr joint = node(op->kind);
    joint->name = take().text;
    if (joined && op->kind == NodeKind::concat) {  // a ~ b ~ c is one node, so that long chains stay flat
      adopt(*left, parse_operand());
      continue;
    }
    adopt(*joint, std::move(left));
    adopt(*joint, parse_operand());
    left = std::move(joint);
    joined = true;
  }
  return left;
}

NodePtr ExpressionParser::parse_not() {
  if (!is_name("not")) return parse_comparison();
  const Nesting nesting(*this);
  NodePtr negation = node(NodeKind::logical_not);
  take();
  adopt(*negation, parse_not());
  return negation;
}

NodePtr ExpressionParser::parse_comparison() {
  NodePtr comparison = node(NodeKind::compare);
  adopt(*comparison, parse_binary(kNotLevel));
  while (true) {
    NodePtr side = node(NodeKind::keyword);
    const bool negated = is_name("not") && ahead(1).kind == TokenKind::name && ahead(1).text == "in";
    const bool symbol = token().kind == TokenKind::symbol &&
                        std::find(kComparisons.begin(), kComparisons.end(), token().text) != kComparisons.end();
    if (!negated && !symbol && !is_name("in")) break;
    if (negated) take();
    side->name = negated ? "not in" : token().text;
    take();
    adopt(*side, parse_binary(kNotLevel));
    adopt(*comparison, std::move(side));
  }
  return comparison->children.size() == 1 ? std::move(comparison->children[0]) : std::move(comparison);
}

NodePtr ExpressionParser::parse_unary(bool with_filters) {
  const Nesting nesting(*this);
  NodePtr value;
  if (is_symbol("-") || is_symbol("+")) {
    value = node(is_symbol("-") ? NodeKind::negative : NodeKind::positive);
    take();
    adopt(*value, parse_unary(false));
  } else {
    value = parse_primary();
  }
  value = parse_postfix(std::move(value));
  if (!with_filters) return value;
  while (true) {
    if (is_symbol("|")) {
      value = parse_filters(std::move(value));
    } else if (is_name("is")) {
      value = parse_test(std::move(value));
    } else if (is_symbol("(")) {
      value = parse_postfix(std::move(value));
    } else {
      return value;
    }
  }
}

NodePtr ExpressionParser::parse_primary() {
  if (token().kind == TokenKind::name) return parse_name();
  if (token().kind == TokenKind::string) return parse_string();
  if (token().kind == TokenKind::number) {
    NodePtr constant = node(NodeKind::constant);
    constant->value = take().value;
    return constant;
  }
  if (is_symbol("[")) return parse_list();
  if (is_symbol("{")) return parse_dict();
  if (!is_symbol("(")) fail_unexpected();
  take();
  NodePtr inner = is_symbol(")") ? node(NodeKind::tuple) : parse_tuple(Ternary::allowed);
  expect_symbol(")");
  return inner;
}

NodePtr ExpressionParser::parse_name() {
  const Literal* literal = find_literal(token().text);
  NodePtr name = node(literal != nullptr ? NodeKind::constant : NodeKind::name);
  if (literal != nullptr) name->value = literal->value();
  name->name = take().text;
  return name;
}

NodePtr ExpressionParser::parse_string() {
  NodePtr constant = node(NodeKind::constant);
  std::string text;
  while (token().kind == TokenKind::string) text += take().text;
  constant->value = Value(std::move(text));
  return constant;
}

NodePtr ExpressionParser::parse_list() {
  NodePtr list = node(NodeKind::list);
  take();
  while (!is_symbol("]")) {
    if (!list->children.empty()) expect_symbol(",");
    if (is_symbol("]")) break;
    adopt(*list, parse_expression());
  }
  take();
  return list;
}

NodePtr ExpressionParser::parse_dict() {
  NodePtr dict = node(NodeKind::dict);
  take();
  while (!is_symbol("}")) {
    if (!dict->children.empty()) expect_symbol(",");
    if (is_symbol("}")) break;
    adopt(*dict, parse_expression());
    expect_symbol(":");
    adopt(*dict, parse_expression());
  }
  take();
  return dict;
}

NodePtr ExpressionParser::parse_postfix(NodePtr object) {
  while (true) {
    if (is_symbol(".")) {
      object = parse_member(std::move(object));
    } else if (is_symbol("[")) {
      object = parse_subscript(std::move(object));
    } else if (is_symbol("(")) {
      NodePtr call = node(NodeKind::call);
      adopt(*call, std::move(object));
      object = parse_arguments(std::move(call));
    } else {
      return object;
    }
  }
}

NodePtr ExpressionParser::parse_member(NodePtr object) {
  const bool number = ahead(1).kind == TokenKind::number;
  NodePtr member = node(number ? NodeKind::item : NodeKind::attribute);
  take();
  adopt(*member, std::move(object));
  if (number) {
    adopt(*member, parse_primary());
  } else {
    member->name = take_identifier();
  }
  return member;
}

NodePtr ExpressionParser::parse_slice_part() { return is_symbol(":") || is_symbol("]") ? nullptr : parse_expression(); }

NodePtr ExpressionParser::parse_subscript(NodePtr object) {
  NodePtr subscript = node(NodeKind::item);
  take();
  adopt(*subscript, std::move(object));
  adopt(*subscript, parse_slice_part());
  if (!is_symbol(":")) {
    if (subscript->children[1] == nullptr) fail_unexpected();
    expect_symbol("]");
    return subscript;
  }
  subscript->kind = NodeKind::slice;
  for (int part = 0; part < 2; ++part) {
    const bool more = is_symbol(":");
    if (more) take();
    adopt(*subscript, more ? parse_slice_part() : nullptr);
  }
  expect_symbol("]");
  return subscript;
}

NodePtr ExpressionParser::parse_filters(NodePtr input) {
  while (is_symbol("|")) {
    take();
    input = parse_filter(std::move(input));
  }
  return input;
}

NodePtr ExpressionParser::parse_filter(NodePtr input) {
  NodePtr filter = node(NodeKind::filter);
  filter->name = take_identifier();
  filter->builtin = find_filter(filter->name);
  adopt(*filter, std::move(input));
  return is_symbol("(") ? parse_arguments(std::move(filter)) : std::move(filter);
}

NodePtr ExpressionParser::parse_test(NodePtr input) {
  NodePtr test = node(NodeKind::test);
  take();
  NodePtr negation = is_name("not") ? node(NodeKind::logical_not) : nullptr;
  if (negation != nullptr) take();
  test->name = take_identifier();
  test->builtin = find_test(test->name);
  adopt(*test, std::move(input));
  if (is_name("is")) fail("tests cannot be chained with 'is'");
  const bool ends = is_name("else") || is_name("or") || is_name("and");
  const bool value = token().kind == TokenKind::name || token().kind == TokenKind::string ||
                     token().kind == TokenKind::number || is_symbol("[") || is_symbol("{");
  if (is_symbol("(")) {
    test = parse_arguments(std::move(test));
  } else if (value && !ends) {
    adopt(*test, parse_postfix(parse_primary()));
  }
  if (negation == nullptr) return test;
  adopt(*negation, std::move(test));
  return negation;
}

NodePtr ExpressionParser::parse_arguments(NodePtr call) {
  expect_symbol("(");
  bool named = false;
  for (bool first = true; !is_symbol(")"); first = false) {
    if (!first) expect_symbol(",");
    if (is_symbol(")")) break;
    NodePtr argument = parse_argument();
    if (named && argument->kind != NodeKind::keyword) fail("positional argument behind a named one");
    named = argument->kind == NodeKind::keyword;
    adopt(*call, std::move(argument));
  }
  take();
  return call;
}

NodePtr ExpressionParser::parse_argument() {
  if (is_symbol("*") || is_symbol("**")) {
    fail(ErrorCode::unsupported, "unpacking arguments with '" + token().text + "' is not supported");
  }
  const bool named = token().kind == TokenKind::name && ahead(1).kind == TokenKind::symbol && ahead(1).text == "=";
  if (!named) return parse_expression();
  NodePtr keyword = node(NodeKind::keyword);
  keyword->name = take().text;
  take();
  adopt(*keyword, parse_expression());
  return keyword;
}

NodePtr ExpressionParser::parse_target(Attributes attributes) {
  const auto parse_one = [&] {
    if (is_symbol("(")) {
      take();
      NodePtr inner = parse_target(attributes);
      expect_symbol(")");
      return inner;
    }
    NodePtr name = node(NodeKind::name);
    name->name = take_identifier();
    if (find_literal(name->name) != nullptr) fail("cannot assign to '" + name->name + "'");
    if (attributes == Attributes::refused || !is_symbol(".")) return name;
    NodePtr attribute = node(NodeKind::attribute);
    take();
    attribute->name = take_identifier();
    adopt(*attribute, std::move(name));
    return attribute;
  };
  const Nesting nesting(*this);
  NodePtr first = parse_one();
  if (!is_symbol(",")) return first;
  NodePtr tuple = node(NodeKind::tuple);
  adopt(*tuple, std::move(first));
  while (is_symbol(",")) {
    take();
    if (token().kind != TokenKind::name && !is_symbol("(")) break;
    if (is_name("in")) break;
    adopt(*tuple, parse_one());
  }
  return tuple;
}

}  // namespace nibble::jinja
