// The parsed template.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace hadal::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;
struct FilterEntry;
struct TestEntry;

struct Expr {
  enum class Kind {
    kConstant,    // value
    kName,        // text
    kList,        // operands
    kTuple,       // operands
    kDict,        // operands: key, value, key, value, ...
    kAttribute,   // operands[0].text
    kItem,        // operands[0][operands[1]]
    kSlice,       // operands[0][operands[1]:operands[2]:operands[3]]; absent ones are null
    kCall,        // operands[0](operands[1..], keywords)
    kFilter,      // operands[0] | filter(operands[1..], keywords)
    kTest,        // operands[0] is test(operands[1..])
    kNot,         // operands[0]
    kNegate,      // operands[0]
    kPlus,        // operands[0]
    kArithmetic,  // operands[0] text operands[1]
    kConcat,      // operands joined as text
    kAnd,         // operands[0], operands[1]
    kOr,
    kChain,        // operands[0], operands[1], ... with comparisons[i] between i and i + 1
    kConditional,  // operands[0] if operands[1] else operands[2] (or null)
  };
  Kind kind = Kind::kConstant;
  int line = 0;
  int depth = 1;  // levels of the tree below and with this node
  std::string text;
  Value value;
  std::vector<ExprPtr> operands;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  std::vector<std::string> comparisons;
  const FilterEntry* filter = nullptr;
  const TestEntry* test = nullptr;
};

struct Stmt;
using Body = std::vector<Stmt>;

struct Stmt {
  enum class Kind {
    kText,      // text
    kOutput,    // {{ value }}
    kIf,        // value, body, else_body (elif: an if statement alone in else_body)
    kFor,       // targets in value [if condition]; body, else_body
    kSet,       // targets = value
    kSetField,  // targets[0].text = value
    kSetBlock,  // targets[0] = the output of body
    kMacro,     // macro
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  int line = 0;
  std::string text;
  std::vector<std::string> targets;
  ExprPtr value;
  ExprPtr condition;
  Body body;
  Body else_body;
  std::unique_ptr<MacroNode> macro;
};

struct MacroNode {
  std::string name;
  struct Parameter {
    std::string name;
    ExprPtr default_value;  // or null
  };
  std::vector<Parameter> parameters;
  Body body;
};

struct Template {
  std::string source;
  Body body;
  std::set<std::string, std::less<>> names;  // every variable that is read somewhere
};

}  // namespace hadal::jinja
