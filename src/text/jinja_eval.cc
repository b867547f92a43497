// Walks the tree. Every node is a step of the runtime's budget, and how many nodes are under evaluation at once is
// limited, so neither loops nor recursive macros get far.
#include "text/jinja_eval.h"

#include <algorithm>
#include <array>
#include <memory>
#include <unordered_map>

#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/jinja_runtime.h"

namespace nibble::jinja {

struct Scope : std::enable_shared_from_this<Scope> {
  std::shared_ptr<Scope> outer;
  std::unordered_map<std::string_view, Value> names;
};

namespace {

constexpr std::string_view kCaller = "caller", kRecursion = "loop()";

enum class Flow { next, break_loop, continue_loop };

class Evaluator {
 public:
  Evaluator(const std::string& where, const std::vector<std::pair<std::string, Json>>& variables)
      : runtime_(where), scope_(std::make_shared<Scope>()) {
    for (const auto& [name, json] : variables) scope_->names[name] = from_json(runtime_, json);
    // What templates set lies in a scope of its own, so that macros and loops see one order of names.
    open_scope();
  }

  std::string run(const Node& tree) {
    execute(tree);
    return std::move(output_);
  }

 private:
  // Restores the scope that was current before.
  class ScopeGuard {
   public:
    ScopeGuard(Evaluator& evaluator, std::shared_ptr<Scope> scope)
        : evaluator_(evaluator), old_(std::exchange(evaluator.scope_, std::move(scope))) {}
    ~ScopeGuard() { evaluator_.scope_ = std::move(old_); }
    ScopeGuard(const ScopeGuard&) = delete;
    ScopeGuard& operator=(const ScopeGuard&) = delete;

   private:
    Evaluator& evaluator_;
    std::shared_ptr<Scope> old_;
  };

  class DepthGuard {
   public:
    DepthGuard(Evaluator& evaluator, const Node& node) : evaluator_(evaluator) {
      evaluator.runtime_.line = node.line;
      if (evaluator.depth_ >= kMaxEvaluationDepth)
        evaluator.runtime_.fail(ErrorCode::resources, "evaluation nests too deep");
      evaluator.runtime_.step();
      ++evaluator.depth_;
    }
    ~DepthGuard() { --evaluator_.depth_; }
    DepthGuard(const DepthGuard&) = delete;
    DepthGuard& operator=(const DepthGuard&) = delete;

   private:
    Evaluator& evaluator_;
  };

  void open_scope() { scope_ = inner_scope(scope_); }
  static std::shared_ptr<Scope> inner_scope(std::shared_ptr<Scope> outer) {
    auto scope = std::make_shared<Scope>();
    scope->outer = std::move(outer);
    return scope;
  }

  // Expressions.

  Value evaluate(const Node& node) {
    using Method = Value (Evaluator::*)(const Node&);
    static constexpr std::array<Method, static_cast<size_t>(NodeKind::capture) + 1> kMethods = {
        &Evaluator::constant,    &Evaluator::name,         &Evaluator::list,        &Evaluator::tuple,
        &Evaluator::dict,        &Evaluator::attribute_of, &Evaluator::item_of,     &Evaluator::slice_of,
        &Evaluator::call,        &Evaluator::operand,      &Evaluator::filter,      &Evaluator::filter,
        &Evaluator::minus,       &Evaluator::plus,         &Evaluator::logical_not, &Evaluator::arithmetic,
        &Evaluator::concat,      &Evaluator::comparison,   &Evaluator::logical_and, &Evaluator::logical_or,
        &Evaluator::conditional, &Evaluator::capture};
    const DepthGuard guard(*this, node);
    return (this->*kMethods[static_cast<size_t>(node.kind)])(node);
  }
  Value child(const Node& node, size_t i) { return evaluate(*node.children[i]); }

  Value constant(const Node& node) { return node.value; }
  Value operand(const Node& node) { return child(node, 0); }
  Value minus(const Node& node) { return negative(runtime_, child(node, 0)); }
  Value plus(const Node& node) { return positive(runtime_, child(node, 0)); }
  Value logical_not(const Node& node) { return Value(!is_true(child(node, 0))); }
  Value attribute_of(const Node& node) { return attribute(runtime_, child(node, 0), node.name); }

  /// Null when no scope has it.
  const Value* find_name(std::string_view name) const {
    for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->outer.get()) {
      const auto found = scope->names.find(name);
      if (found != scope->names.end()) return &found->second;
    }
    return nullptr;
  }

  Value name(const Node& node) {
    if (const Value* found = find_name(node.name)) return *found;
    const Builtin* global = find_global(node.name);
    if (global == nullptr) return Value::undefined("'" + node.name + "' is undefined");
    return Value(std::make_shared<const Callable>(Callable{global, Value(), nullptr, nullptr}));
  }

  std::vector<Value> children(const Node& node) {
    std::vector<Value> values;
    for (const NodePtr& item : node.children) values.push_back(evaluate(*item));
    return values;
  }
  Value list(const Node& node) { return runtime_.sequence(children(node)); }
  Value tuple(const Node& node) { return runtime_.sequence(children(node), SequenceKind::tuple); }

  Value dict(const Node& node) {
    std::vector<std::pair<Value, Value>> items;
    for (size_t i = 0; i < node.children.size(); i += 2) {
      Value key = child(node, i);
      insert(runtime_, items, std::move(key), child(node, i + 1));
    }
    return runtime_.dict(std::move(items));
  }

  Value item_of(const Node& node) {
    const Value object = child(node, 0);
    return item(runtime_, object, child(node, 1));
  }

  Value slice_of(const Node& node) {
    const Value object = child(node, 0);
    Value bounds[3];
    for (size_t i = 0; i < 3; ++i) bounds[i] = node.children[i + 1] == nullptr ? Value(None{}) : child(node, i + 1);
    return slice(runtime_, object, bounds);
  }

  Value arithmetic(const Node& node) {
    const Value left = child(node, 0);
    return binary(runtime_, node.name, left, child(node, 1));
  }

  Value concat(const Node& node) {
    std::string text;
    for (const NodePtr& part : node.children) {
      const std::string piece = to_text(runtime_, evaluate(*part));
      runtime_.spend(piece.size());
      text += piece;
    }
    return Value(std::move(text));
  }

  // a < b < c compares neighbours and evaluates each once.
  Value comparison(const Node& node) {
    Value left = child(node, 0);
    for (size_t i = 1; i < node.children.size(); ++i) {
      Value right = child(node, i);
      if (!compare(runtime_, node.children[i]->name, left, right)) return Value(false);
      left = std::move(right);
    }
    return Value(true);
  }

  Value logical_and(const Node& node) {
    Value left = child(node, 0);
    return is_true(left) ? child(node, 1) : left;
  }
  Value logical_or(const Node& node) {
    Value left = child(node, 0);
    return is_true(left) ? left : child(node, 1);
  }

  Value conditional(const Node& node) {
    if (is_true(child(node, 0))) return child(node, 1);
    if (node.children[2] != nullptr) return child(node, 2);
    return Value::undefined("the inline if-expression is false and has no else");
  }

  Arguments arguments(const Node& node) {
    Arguments given;
    for (size_t i = 1; i < node.children.size(); ++i) {
      const Node& argument = *node.children[i];
      if (argument.kind == NodeKind::keyword) {
        given.named.emplace_back(argument.name, evaluate(argument));
      } else {
        given.positional.push_back(evaluate(argument));
      }
    }
    return given;
  }

  // A filter or test. Templates may name unknown ones where rendering does not come; jinja2 accepts that too.
  Value filter(const Node& node) {
    const Value input = child(node, 0);
    Arguments given = arguments(node);
    runtime_.line = node.line;
    if (node.builtin == nullptr) {
      const std::string kind = node.kind == NodeKind::filter ? "filter '" : "test '";
      runtime_.fail(ErrorCode::unsupported, kind + node.name + "' is not supported");
    }
    return call_builtin(runtime_, *node.builtin, input, std::move(given));
  }

  Value call(const Node& node) { return call(node, Value()); }

  // `caller` is what a call block hands to the macro.
  Value call(const Node& node, Value caller) {
    const Value callee = callee_of(*node.children[0]);
    Arguments given = arguments(node);
    if (caller.callable() != nullptr) given.named.emplace_back(kCaller, std::move(caller));
    runtime_.line = node.line;
    const Callable* callable = callee.callable();
    if (callable != nullptr && callable->macro != nullptr && callable->macro->kind == NodeKind::for_loop) {
      return call_loop(*callable, given);
    }
    if (callable != nullptr && callable->macro != nullptr) return call_macro(*callable, std::move(given));
    if (callable != nullptr) return call_builtin(runtime_, *callable->builtin, callable->self, std::move(given));
    const auto* undefined = std::get_if<Undefined>(&callee.data);
    if (undefined != nullptr && undefined->reason != nullptr) runtime_.fail(*undefined->reason);
    runtime_.fail("'" + std::string(type_name(callee)) + "' object is not callable");
  }

  // What loop(items) calls is kept beside `loop`, which is a plain dict, under a name that templates cannot write.
  Value callee_of(const Node& node) {
    if (node.kind == NodeKind::name && node.name == "loop") {
      if (const Value* recursion = find_name(kRecursion)) return *recursion;
    }
    return evaluate(node);
  }

  Value call_loop(const Callable& callable, const Arguments& given) {
    if (given.positional.size() != 1 || !given.named.empty()) runtime_.fail("loop() takes one argument, the items");
    require_macro_depth();
    const ScopeGuard guard(*this, callable.scope->shared_from_this());
    std::string outer = std::exchange(output_, {});
    ++macros_;
    run_loop(*callable.macro, given.positional[0], *callable.self.integer() + 1);
    --macros_;
    return Value(std::exchange(output_, std::move(outer)));
  }

  void require_macro_depth() {
    if (macros_ < kMaxMacroDepth) return;
    runtime_.fail(ErrorCode::resources,
                  "macros call each other deeper than " + std::to_string(kMaxMacroDepth) + " levels");
  }

  Value call_macro(const Callable& callable, Arguments given) {
    const Node& macro = *callable.macro;
    const size_t parameters = macro.children.size() - 1;
    if (given.positional.size() > parameters) runtime_.fail("macro '" + macro.name + "' has too many arguments");
    require_macro_depth();
    const ScopeGuard guard(*this, inner_scope(callable.scope->shared_from_this()));
    for (size_t i = 0; i < parameters; ++i) bind_parameter(macro, i, given);
    if (given.named.size() == 1 && given.named[0].first == kCaller) {
      scope_->names[kCaller] = std::move(given.named[0].second);
      given.named.clear();
    }
    if (!given.named.empty()) {
      runtime_.fail("macro '" + macro.name + "' has no argument '" + given.named.front().first + "'");
    }
    ++macros_;
    Value text = write_to_value(*macro.children.back());
    --macros_;
    return text;
  }

  void bind_parameter(const Node& macro, size_t i, Arguments& given) {
    const Node& parameter = *macro.children[i];
    const auto is_parameter = [&](const auto& pair) { return pair.first == parameter.name; };
    const auto named = std::find_if(given.named.begin(), given.named.end(), is_parameter);
    Value value = Value::undefined("parameter '" + parameter.name + "' was not provided");
    if (i < given.positional.size()) {
      value = given.positional[i];
    } else if (named != given.named.end()) {
      value = named->second;
      given.named.erase(named);
    } else if (parameter.children[0] != nullptr) {
      value = child(parameter, 0);
    }
    scope_->names[parameter.name] = std::move(value);
  }

  Value capture(const Node& node) {
    const ScopeGuard guard(*this, inner_scope(scope_));
    return write_to_value(*node.children[0]);
  }

  // What a block writes. On an exception the rendering is over, so the output needs no restoring.
  Value write_to_value(const Node& block) {
    std::string outer = std::exchange(output_, {});
    execute(block);
    return Value(std::exchange(output_, std::move(outer)));
  }

  // Statements.

  Flow execute(const Node& node) {
    using Method = Flow (Evaluator::*)(const Node&);
    constexpr auto kFirst = static_cast<size_t>(NodeKind::block);
    static constexpr std::array<Method, static_cast<size_t>(NodeKind::continue_loop) - kFirst + 1> kMethods = {
        &Evaluator::block,    &Evaluator::text,       &Evaluator::output,       &Evaluator::for_loop,
        &Evaluator::if_chain, &Evaluator::set,        &Evaluator::macro,        &Evaluator::call_block,
        &Evaluator::with,     &Evaluator::break_loop, &Evaluator::continue_loop};
    const DepthGuard guard(*this, node);
    return (this->*kMethods[static_cast<size_t>(node.kind) - kFirst])(node);
  }

  void write(std::string_view text) {
    runtime_.spend(text.size());
    if (text.size() > kMaxOutputBytes - output_.size()) {
      runtime_.fail(ErrorCode::resources,
                    "the template writes more than " + std::to_string(kMaxOutputBytes) + " bytes");
    }
    output_ += text;
  }

  Flow block(const Node& node) {
    for (const NodePtr& statement : node.children) {
      const Flow flow = execute(*statement);
      if (flow != Flow::next) return flow;
    }
    return Flow::next;
  }

  Flow text(const Node& node) {
    write(node.name);
    return Flow::next;
  }

  Flow output(const Node& node) {
    write(to_text(runtime_, child(node, 0)));
    return Flow::next;
  }

  Flow break_loop(const Node&) { return Flow::break_loop; }
  Flow continue_loop(const Node&) { return Flow::continue_loop; }

  Flow if_chain(const Node& node) {
    const size_t count = node.children.size();
    for (size_t i = 0; i + 1 < count; i += 2) {
      if (is_true(child(node, i))) return execute(*node.children[i + 1]);
    }
    return count % 2 == 1 ? execute(*node.children[count - 1]) : Flow::next;
  }

  Flow set(const Node& node) {
    assign(*node.children[0], child(node, 1));
    return Flow::next;
  }

  void assign(const Node& target, Value value) {
    if (target.kind == NodeKind::name) {
      scope_->names[target.name] = std::move(value);
    } else if (target.kind == NodeKind::attribute) {
      assign_attribute(target, std::move(value));
    } else {
      const auto items = iterate(runtime_, value);
      if (items->items.size() != target.children.size()) {
        runtime_.fail("cannot unpack " + std::to_string(items->items.size()) + " values into " +
                      std::to_string(target.children.size()) + " names");
      }
      for (size_t i = 0; i < target.children.size(); ++i) assign(*target.children[i], items->items[i]);
    }
  }

  void assign_attribute(const Node& target, Value value) {
    Namespace* space = child(target, 0).name_space();
    if (space == nullptr) runtime_.fail("cannot assign to an attribute of what is not a namespace");
    if (target.name.starts_with('_')) runtime_.fail("attributes of a namespace cannot begin with an underscore");
    runtime_.spend(space->attributes.size());
    const auto is_target = [&](const auto& pair) { return pair.first == target.name; };
    const auto old = std::find_if(space->attributes.begin(), space->attributes.end(), is_target);
    if (old != space->attributes.end()) {
      old->second = std::move(value);
    } else {
      space->attributes.emplace_back(target.name, std::move(value));
    }
  }

  Value macro_value(const Node& node) {
    // A macro may outlive the scope that it sees, which therefore is kept; that it holds no share itself avoids cycles.
    runtime_.spend(sizeof(Scope) + sizeof(Callable));
    kept_scopes_.push_back(scope_);
    return Value(std::make_shared<const Callable>(Callable{nullptr, Value(), &node, scope_.get()}));
  }

  Flow macro(const Node& node) {
    scope_->names[node.name] = macro_value(node);
    return Flow::next;
  }

  Flow call_block(const Node& node) {
    write(to_text(runtime_, call(*node.children[1], macro_value(*node.children[0]))));
    return Flow::next;
  }

  Flow with(const Node& node) {
    std::vector<Value> values;
    const size_t last = node.children.size() - 1;
    for (size_t i = 1; i < last; i += 2) values.push_back(child(node, i));
    const ScopeGuard guard(*this, inner_scope(scope_));
    for (size_t i = 0; i < last; i += 2) assign(*node.children[i], values[i / 2]);
    return execute(*node.children[last]);
  }

  // The items that a loop visits, its condition applied.
  std::vector<Value> loop_items(const Node& node, const Value& iterable) {
    const auto source = iterate(runtime_, iterable);
    runtime_.spend(source->items.size(), sizeof(Value));
    std::vector<Value> items = source->items;
    if (node.children[2] == nullptr) return items;
    std::vector<Value> chosen;
    for (Value& value : items) {
      const ScopeGuard guard(*this, inner_scope(scope_));
      assign(*node.children[0], value);
      if (is_true(child(node, 2))) chosen.push_back(std::move(value));
    }
    return chosen;
  }

  Flow for_loop(const Node& node) { return run_loop(node, child(node, 1), 1); }

  Flow run_loop(const Node& node, const Value& iterable, int64_t depth) {
    const std::vector<Value> items = loop_items(node, iterable);
    Value recursion;
    if (!node.name.empty()) {
      recursion = Value(std::make_shared<const Callable>(Callable{nullptr, Value(depth), &node, scope_.get()}));
    }
    for (size_t i = 0; i < items.size(); ++i) {
      const ScopeGuard guard(*this, inner_scope(scope_));
      assign(*node.children[0], items[i]);
      scope_->names["loop"] = loop_value(items, i, depth);
      if (recursion.callable() != nullptr) scope_->names[kRecursion] = recursion;
      if (execute(*node.children[3]) == Flow::break_loop) break;
    }
    if (items.empty() && node.children[4] != nullptr) return execute(*node.children[4]);
    return Flow::next;
  }

  Value loop_value(const std::vector<Value>& items, size_t i, int64_t depth) {
    static const std::array<Value, 11> kNames = {
        Value(std::string_view("index")),     Value(std::string_view("index0")),   Value(std::string_view("revindex")),
        Value(std::string_view("revindex0")), Value(std::string_view("first")),    Value(std::string_view("last")),
        Value(std::string_view("length")),    Value(std::string_view("previtem")), Value(std::string_view("nextitem")),
        Value(std::string_view("depth")),     Value(std::string_view("depth0"))};
    const auto index = static_cast<int64_t>(i), length = static_cast<int64_t>(items.size());
    const bool first = i == 0, last = i + 1 == items.size();
    std::vector<std::pair<Value, Value>> loop = {
        {kNames[0], Value(index + 1)},      {kNames[1], Value(index)},
        {kNames[2], Value(length - index)}, {kNames[3], Value(length - index - 1)},
        {kNames[4], Value(first)},          {kNames[5], Value(last)},
        {kNames[6], Value(length)},         {kNames[9], Value(depth)},
        {kNames[10], Value(depth - 1)}};
    if (!first) loop.emplace_back(kNames[7], items[i - 1]);
    if (!last) loop.emplace_back(kNames[8], items[i + 1]);
    return runtime_.dict(std::move(loop));
  }

  Runtime runtime_;
  std::vector<std::shared_ptr<Scope>> kept_scopes_;
  std::shared_ptr<Scope> scope_;
  std::string output_;
  int depth_ = 0, macros_ = 0;
};

}  // namespace

std::string render(const Node& tree, const std::string& where,
                   const std::vector<std::pair<std::string, Json>>& variables) {
  return Evaluator(where, variables).run(tree);
}

}  // namespace nibble::jinja
