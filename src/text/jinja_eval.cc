#include "text/jinja_eval.h"

#include <algorithm>
#include <deque>

#include "text/jinja_filters.h"
#include "text/jinja_json.h"

namespace hadal::jinja {
namespace {

// Levels of statements and expressions that may be open at once, macro calls included: bounds the stack.
constexpr int kMaxDepth = 400;
constexpr size_t kMaxNamespaces = 10'000;

enum class Flow { kNext, kBreak, kContinue };

class Interpreter {
 public:
  Interpreter(const RenderSettings& settings)
      : max_output_bytes_(settings.max_output_bytes),
        budget_(settings.max_steps, settings.max_copied_bytes),
        runtime_{budget_, settings.now} {}

  Expected<std::string> run(const Template& source, const Json& context) {
    if (!context.is_object()) return template_error("the render context is not an object");
    auto output = run_body(source, context);
    if (output) return output;
    return forward_error(std::move(output), fmt::format("line {}", line_));
  }

 private:
  // Variables of one for body or one macro; names are the tree's own strings.
  using Scope = std::vector<std::pair<std::string_view, Value>>;

  class DepthGuard {
   public:
    explicit DepthGuard(int& depth) : depth_(depth) { ++depth_; }
    ~DepthGuard() { --depth_; }

   private:
    int& depth_;
  };

  Expected<std::string> run_body(const Template& source, const Json& context) {
    scopes_.emplace_back();
    HADAL_ASSIGN_OR_RETURN(context_, from_json(context, budget_));
    std::string output;
    HADAL_ASSIGN_OR_RETURN([[maybe_unused]] const Flow flow, execute(source.body, output));
    return output;
  }

  // ---- statements

  Expected<Flow> execute(const Body& body, std::string& output) {
    DepthGuard guard(depth_);
    if (depth_ > kMaxDepth) return too_deep();
    for (const Stmt& stmt : body) {
      line_ = stmt.line;
      HADAL_RETURN_IF_ERROR(budget_.spend_steps(1));
      HADAL_ASSIGN_OR_RETURN(const Flow flow, execute(stmt, output));
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Expected<Flow> execute(const Stmt& stmt, std::string& output) {
    switch (stmt.kind) {
      case Stmt::Kind::kText:
        output += stmt.text;
        HADAL_RETURN_IF_ERROR(check_output(output, stmt.text.size()));
        return Flow::kNext;
      case Stmt::Kind::kOutput: {
        HADAL_ASSIGN_OR_RETURN(const Value value, eval(*stmt.value));
        HADAL_RETURN_IF_ERROR(print(value, output, budget_));
        HADAL_RETURN_IF_ERROR(check_output(output, 0));
        return Flow::kNext;
      }
      case Stmt::Kind::kIf: {
        HADAL_ASSIGN_OR_RETURN(const Value condition, eval(*stmt.value));
        return execute(is_true(condition) ? stmt.body : stmt.else_body, output);
      }
      case Stmt::Kind::kFor:
        return execute_for(stmt, output);
      case Stmt::Kind::kSet: {
        HADAL_ASSIGN_OR_RETURN(Value value, eval(*stmt.value));
        HADAL_RETURN_IF_ERROR(assign(stmt.targets, std::move(value)));
        return Flow::kNext;
      }
      case Stmt::Kind::kSetField:
        HADAL_RETURN_IF_ERROR(set_field(stmt));
        return Flow::kNext;
      case Stmt::Kind::kSetBlock: {
        std::string text;
        HADAL_ASSIGN_OR_RETURN(const Flow flow, execute(stmt.body, text));
        set_variable(stmt.targets[0], Value(std::move(text)));
        return flow;
      }
      case Stmt::Kind::kMacro:
        set_variable(stmt.macro->name, Value(stmt.macro.get()));
        return Flow::kNext;
      case Stmt::Kind::kBreak:
        return Flow::kBreak;
      case Stmt::Kind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNext;
  }

  Status check_output(const std::string& output, size_t num_added) {
    if (output.size() > max_output_bytes_) {
      return make_error(ErrorCode::kResourceExhausted, "the output is over {} bytes", max_output_bytes_);
    }
    return budget_.spend_bytes(num_added);
  }

  Expected<Flow> execute_for(const Stmt& stmt, std::string& output) {
    HADAL_ASSIGN_OR_RETURN(const Value sequence, eval(*stmt.value));
    HADAL_ASSIGN_OR_RETURN(ListRef items, iterate(sequence, budget_));
    if (stmt.condition) {
      HADAL_ASSIGN_OR_RETURN(items, filter_items(stmt, *items));
    }
    if (items->items.empty()) return execute(stmt.else_body, output);
    auto loop = std::make_shared<LoopData>(LoopData{items, 0, num_loops_++});
    const size_t num_scopes = scopes_.size();
    scopes_.emplace_back();
    Flow flow = Flow::kNext;
    for (size_t i = 0; i < items->items.size() && flow != Flow::kBreak; ++i) {
      loop->index0 = i;
      scopes_.back().clear();
      set_variable("loop", Value(std::shared_ptr<const LoopData>(loop)));
      HADAL_RETURN_IF_ERROR(assign(stmt.targets, items->items[i]));
      HADAL_ASSIGN_OR_RETURN(flow, execute(stmt.body, output));
    }
    scopes_.resize(num_scopes);
    --num_loops_;
    return Flow::kNext;
  }

  Expected<ListRef> filter_items(const Stmt& stmt, const ListData& items) {
    ListData kept;
    scopes_.emplace_back();
    for (const Value& item : items.items) {
      scopes_.back().clear();
      HADAL_RETURN_IF_ERROR(assign(stmt.targets, item));
      HADAL_ASSIGN_OR_RETURN(const Value condition, eval(*stmt.condition));
      if (is_true(condition)) kept.items.push_back(item);
    }
    scopes_.pop_back();
    return std::make_shared<const ListData>(std::move(kept));
  }

  Status assign(const std::vector<std::string>& targets, Value value) {
    if (targets.size() == 1) {
      set_variable(targets[0], std::move(value));
      return {};
    }
    HADAL_ASSIGN_OR_RETURN(const ListRef parts, iterate(value, budget_));
    if (parts->items.size() != targets.size()) {
      return template_error("cannot unpack {} values into {} names", parts->items.size(), targets.size());
    }
    for (size_t i = 0; i < targets.size(); ++i) set_variable(targets[i], parts->items[i]);
    return {};
  }

  Status set_field(const Stmt& stmt) {
    HADAL_ASSIGN_OR_RETURN(Value value, eval(*stmt.value));
    const Value target = lookup(stmt.targets[0]);
    if (!target.is(Value::Kind::kNamespace)) {
      return template_error("cannot assign attribute on non-namespace object");
    }
    set_attribute(target.as_namespace(), stmt.text, std::move(value));
    return {};
  }

  static void set_attribute(NamespaceData& target, const std::string& name, Value value) {
    for (auto& [key, old] : target.attributes) {
      if (key == name) {
        old = std::move(value);
        return;
      }
    }
    target.attributes.emplace_back(name, std::move(value));
  }

  // ---- variables

  void set_variable(std::string_view name, Value value) {
    for (auto& [key, old] : scopes_.back()) {
      if (key == name) {
        old = std::move(value);
        return;
      }
    }
    scopes_.back().emplace_back(name, std::move(value));
  }

  static const Value* find_in(const Scope& scope, std::string_view name) {
    for (const auto& [key, value] : scope) {
      if (key == name) return &value;
    }
    return nullptr;
  }

  // Innermost first, but a macro sees the scopes of its caller only from the outermost one.
  Value lookup(const std::string& name) const {
    for (size_t i = scopes_.size(); i-- > base_scope_;) {
      if (const Value* value = find_in(scopes_[i], name)) return *value;
    }
    if (const Value* value = find_in(scopes_[0], name)) return *value;
    if (const Value* value = context_.as_dict().find(name)) return *value;
    constexpr std::pair<std::string_view, Function> kFunctions[] = {{"namespace", Function::kNamespace},
                                                                    {"raise_exception", Function::kRaiseException},
                                                                    {"strftime_now", Function::kStrftimeNow},
                                                                    {"range", Function::kRange},
                                                                    {"dict", Function::kDict}};
    for (const auto& [key, function] : kFunctions) {
      if (key == name) return Value(function);
    }
    return undefined(fmt::format("'{}' is undefined", name));
  }

  // ---- expressions

  tl::unexpected<Error> too_deep() const {
    return make_error(ErrorCode::kResourceExhausted, "more than {} levels of tags, expressions and macro calls",
                      kMaxDepth);
  }

  Expected<Value> eval(const Expr& expr) {
    DepthGuard guard(depth_);
    if (depth_ > kMaxDepth) return too_deep();
    line_ = expr.line;
    HADAL_RETURN_IF_ERROR(budget_.spend_steps(1));
    switch (expr.kind) {
      case Expr::Kind::kConstant:
        return expr.value;
      case Expr::Kind::kName:
        return lookup(expr.text);
      case Expr::Kind::kList:
      case Expr::Kind::kTuple: {
        HADAL_ASSIGN_OR_RETURN(std::vector<Value> items, eval_all(expr, 0));
        return make_list(std::move(items), expr.kind == Expr::Kind::kTuple, budget_);
      }
      case Expr::Kind::kDict:
        return eval_dict(expr);
      case Expr::Kind::kAttribute: {
        HADAL_ASSIGN_OR_RETURN(const Value object, eval(*expr.operands[0]));
        return get_attribute(object, expr.text);
      }
      case Expr::Kind::kItem: {
        HADAL_ASSIGN_OR_RETURN(const Value object, eval(*expr.operands[0]));
        HADAL_ASSIGN_OR_RETURN(const Value key, eval(*expr.operands[1]));
        return get_item(object, key, runtime_);
      }
      case Expr::Kind::kSlice:
        return eval_slice(expr);
      case Expr::Kind::kCall:
        return eval_call(expr);
      case Expr::Kind::kFilter:
        return eval_filter(expr);
      case Expr::Kind::kTest:
        return eval_test(expr);
      case Expr::Kind::kConcat:
        return eval_concat(expr);
      case Expr::Kind::kChain:
        return eval_chain(expr);
      case Expr::Kind::kConditional:
        return eval_conditional(expr);
      default:
        return eval_operator(expr);
    }
  }

  Expected<Value> eval_operator(const Expr& expr) {
    HADAL_ASSIGN_OR_RETURN(Value first, eval(*expr.operands[0]));
    switch (expr.kind) {
      case Expr::Kind::kNot:
        return Value(!is_true(first));
      case Expr::Kind::kNegate:
        return first.is_number() ? arithmetic("*", Value(-1), first, budget_)
                                 : Expected<Value>(bad_sign("unary -", first));
      case Expr::Kind::kPlus:
        return first.is_number() ? Expected<Value>(first) : Expected<Value>(bad_sign("unary +", first));
      case Expr::Kind::kAnd:
        return is_true(first) ? eval(*expr.operands[1]) : Expected<Value>(std::move(first));
      case Expr::Kind::kOr:
        return is_true(first) ? Expected<Value>(std::move(first)) : eval(*expr.operands[1]);
      default: {
        HADAL_ASSIGN_OR_RETURN(const Value second, eval(*expr.operands[1]));
        line_ = expr.line;
        return arithmetic(expr.text, first, second, budget_);
      }
    }
  }

  tl::unexpected<Error> bad_sign(std::string_view op, const Value& value) const {
    if (value.is_undefined()) return template_error("{}", value.undefined_message());
    return template_error("bad operand type for {}: '{}'", op, type_name(value));
  }

  Expected<Value> eval_conditional(const Expr& expr) {
    HADAL_ASSIGN_OR_RETURN(const Value condition, eval(*expr.operands[1]));
    if (is_true(condition)) return eval(*expr.operands[0]);
    if (expr.operands[2]) return eval(*expr.operands[2]);
    return Value(undefined("the inline if-expression evaluated to false and no else section was defined."));
  }

  Expected<std::vector<Value>> eval_all(const Expr& expr, size_t first) {
    std::vector<Value> values;
    values.reserve(expr.operands.size() - first);
    for (size_t i = first; i < expr.operands.size(); ++i) {
      HADAL_ASSIGN_OR_RETURN(Value value, eval(*expr.operands[i]));
      values.push_back(std::move(value));
    }
    return values;
  }

  Expected<Arguments> eval_arguments(const Expr& expr) {
    Arguments arguments;
    HADAL_ASSIGN_OR_RETURN(arguments.positional, eval_all(expr, 1));
    for (const auto& [name, operand] : expr.keywords) {
      HADAL_ASSIGN_OR_RETURN(Value value, eval(*operand));
      arguments.keywords.emplace_back(name, std::move(value));
    }
    return arguments;
  }

  Expected<Value> eval_dict(const Expr& expr) {
    std::vector<std::pair<std::string, Value>> items;
    for (size_t i = 0; i < expr.operands.size(); i += 2) {
      HADAL_ASSIGN_OR_RETURN(const Value key, eval(*expr.operands[i]));
      HADAL_ASSIGN_OR_RETURN(Value value, eval(*expr.operands[i + 1]));
      if (!key.is_string()) return template_error("keys of type '{}' are not supported", type_name(key));
      const auto same = [&](const auto& item) { return item.first == key.as_string(); };
      const auto old = std::find_if(items.begin(), items.end(), same);
      if (old != items.end()) {
        old->second = std::move(value);
      } else {
        items.emplace_back(key.as_string(), std::move(value));
      }
    }
    return make_dict(std::move(items), budget_);
  }

  Expected<Value> eval_slice(const Expr& expr) {
    HADAL_ASSIGN_OR_RETURN(const Value object, eval(*expr.operands[0]));
    Value bounds[3];
    for (size_t i = 0; i < 3; ++i) {
      if (!expr.operands[i + 1]) continue;
      HADAL_ASSIGN_OR_RETURN(bounds[i], eval(*expr.operands[i + 1]));
    }
    return slice(object, bounds[0], bounds[1], bounds[2], runtime_);
  }

  Expected<Value> eval_call(const Expr& expr) {
    HADAL_ASSIGN_OR_RETURN(const Value callee, eval(*expr.operands[0]));
    HADAL_ASSIGN_OR_RETURN(const Arguments arguments, eval_arguments(expr));
    line_ = expr.line;
    switch (callee.kind()) {
      case Value::Kind::kMethod:
        return call_method(callee.as_method(), arguments, runtime_);
      case Value::Kind::kFunction:
        if (callee.as_function() == Function::kNamespace) return make_namespace(arguments);
        return call_function(callee.as_function(), arguments, runtime_);
      case Value::Kind::kMacro:
        return call_macro(callee.as_macro(), arguments);
      case Value::Kind::kUndefined:
        return template_error("{}", callee.undefined_message());
      default:
        return template_error("'{}' object is not callable", type_name(callee));
    }
  }

  Expected<Value> make_namespace(const Arguments& arguments) {
    if (namespaces_.size() == kMaxNamespaces) {
      return make_error(ErrorCode::kResourceExhausted, "more than {} namespaces", kMaxNamespaces);
    }
    NamespaceData& created = namespaces_.emplace_back();
    if (arguments.positional.size() > 1 ||
        (arguments.positional.size() == 1 && !arguments.positional[0].is(Value::Kind::kDict))) {
      return template_error("namespace() takes keywords, or one dict");
    }
    if (!arguments.positional.empty()) {
      for (const auto& [name, value] : arguments.positional[0].as_dict().items) set_attribute(created, name, value);
    }
    for (const auto& [name, value] : arguments.keywords) set_attribute(created, name, value);
    return Value(&created);
  }

  Expected<Value> call_macro(const MacroNode& macro, const Arguments& arguments) {
    if (arguments.positional.size() > macro.parameters.size()) {
      return template_error("macro '{}' takes not more than {} argument(s)", macro.name, macro.parameters.size());
    }
    for (const auto& [name, value] : arguments.keywords) {
      // An init capture: clang 14 cannot capture a structured binding.
      const auto same = [&name = name](const MacroNode::Parameter& parameter) { return parameter.name == name; };
      if (std::none_of(macro.parameters.begin(), macro.parameters.end(), same)) {
        return template_error("macro '{}' takes no keyword argument '{}'", macro.name, name);
      }
    }
    const size_t num_scopes = scopes_.size();
    const size_t caller_base = std::exchange(base_scope_, num_scopes);
    scopes_.emplace_back();
    for (size_t i = 0; i < macro.parameters.size(); ++i) {
      const MacroNode::Parameter& parameter = macro.parameters[i];
      if (const Value* given = arguments.get(i, parameter.name)) {
        set_variable(parameter.name, *given);
      } else if (parameter.default_value) {
        HADAL_ASSIGN_OR_RETURN(Value value, eval(*parameter.default_value));
        set_variable(parameter.name, std::move(value));
      } else {
        set_variable(parameter.name, undefined(fmt::format("parameter '{}' was not provided", parameter.name)));
      }
    }
    std::string output;
    HADAL_ASSIGN_OR_RETURN([[maybe_unused]] const Flow flow, execute(macro.body, output));
    scopes_.resize(num_scopes);
    base_scope_ = caller_base;
    return Value(std::move(output));
  }

  Expected<Value> eval_filter(const Expr& expr) {
    HADAL_ASSIGN_OR_RETURN(const Value input, eval(*expr.operands[0]));
    HADAL_ASSIGN_OR_RETURN(const Arguments arguments, eval_arguments(expr));
    line_ = expr.line;
    HADAL_RETURN_IF_ERROR(check_arguments(expr.text, expr.filter->parameters, arguments));
    return expr.filter->apply(input, arguments, runtime_);
  }

  Expected<Value> eval_test(const Expr& expr) {
    HADAL_ASSIGN_OR_RETURN(const Value input, eval(*expr.operands[0]));
    HADAL_ASSIGN_OR_RETURN(const Arguments arguments, eval_arguments(expr));
    line_ = expr.line;
    HADAL_ASSIGN_OR_RETURN(const bool result, expr.test->apply(input, arguments, runtime_));
    return Value(result);
  }

  Expected<Value> eval_concat(const Expr& expr) {
    std::string text;
    for (const ExprPtr& operand : expr.operands) {
      HADAL_ASSIGN_OR_RETURN(const Value value, eval(*operand));
      HADAL_RETURN_IF_ERROR(print(value, text, budget_));
    }
    return Value(std::move(text));
  }

  Expected<Value> eval_chain(const Expr& expr) {
    HADAL_ASSIGN_OR_RETURN(Value left, eval(*expr.operands[0]));
    for (size_t i = 0; i < expr.comparisons.size(); ++i) {
      HADAL_ASSIGN_OR_RETURN(Value right, eval(*expr.operands[i + 1]));
      line_ = expr.line;
      HADAL_ASSIGN_OR_RETURN(const bool holds, compare(expr.comparisons[i], left, right));
      if (!holds) return Value(false);
      left = std::move(right);
    }
    return Value(true);
  }

  Expected<bool> compare(const std::string& op, const Value& left, const Value& right) {
    if (op == "==") return equal(left, right, budget_);
    if (op == "in") return contains(right, left, budget_);
    if (op == "<" || op == ">") return op == "<" ? less(left, right, op) : less(right, left, op);
    const bool is_swapped = op == "<=";  // a <= b is not (b < a)
    Expected<bool> opposite = op == "!="       ? equal(left, right, budget_)
                              : op == "not in" ? contains(right, left, budget_)
                              : is_swapped     ? less(right, left, op)
                                               : less(left, right, op);
    if (!opposite) return opposite;
    return !*opposite;
  }

  const size_t max_output_bytes_;
  Budget budget_;
  Runtime runtime_;
  std::vector<Scope> scopes_;  // [0]: the template's own
  size_t base_scope_ = 0;      // first scope of the running macro
  Value context_;
  std::deque<NamespaceData> namespaces_;
  int line_ = 0;
  int depth_ = 0;
  int num_loops_ = 0;  // open for statements
};

}  // namespace

Expected<std::string> render_template(const Template& source, const Json& context, const RenderSettings& settings) {
  return Interpreter(settings).run(source, context);
}

}  // namespace hadal::jinja
