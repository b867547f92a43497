#pragma once
// The tree of a parsed chat template: one kind of node for everything, told apart by `kind`.
#include <memory>
#include <string>
#include <vector>

#include "text/jinja_value.h"

namespace nibble::jinja {

struct Builtin;

/// What `name`, `value` and `children` hold is said beside each kind; | null marks a child that may be missing.
enum class NodeKind {
  // expressions
  constant,     // value
  name,         // name
  list,         // items
  tuple,        // items
  dict,         // key, value, key, value, ...
  attribute,    // object; name
  item,         // object, index
  slice,        // object, start | null, stop | null, step | null
  call,         // callee, arguments (named ones as `keyword`)
  keyword,      // value; name
  filter,       // input, arguments; name, builtin (null for an unknown name)
  test,         // input, arguments; name, builtin (null for an unknown name)
  negative,     // operand
  positive,     // operand
  logical_not,  // operand
  binary,       // left, right; name is the operator: + - * / // % **
  concat,       // operands of ~
  compare,      // left, then a `keyword` per comparison: its name is the operator, its child the right side
  logical_and,  // left, right
  logical_or,   // left, right
  conditional,  // condition, value if true, value if false | null
  capture,      // block: the text that the block writes, in a scope of its own
  // statements
  block,       // statements
  text,        // name is the text
  output,      // expression
  for_loop,    // target, iterable, condition | null, block, else block | null; name is not empty when it is recursive
  if_chain,    // condition, block, condition, block, ..., else block where there is one
  set,         // target (name, tuple or attribute), expression
  macro,       // a `keyword` per parameter (its child is the default | null), block; name
  call_block,  // a `macro` named caller, call
  with,        // target, expression, ..., block
  break_loop,  // nothing
  continue_loop,  // nothing
};

struct Node {
  NodeKind kind;
  int line;
  int depth = 1;  // 1 + that of the deepest child, so that walking the tree recursively is safe
  std::string name;
  Value value;
  const Builtin* builtin = nullptr;
  std::vector<std::unique_ptr<Node>> children;
};

using NodePtr = std::unique_ptr<Node>;

}  // namespace nibble::jinja
