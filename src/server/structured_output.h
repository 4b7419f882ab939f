// From what a request asks of its answer's form to a compiled grammar. Worker threads: compiling may take seconds.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "server/api_error.h"
#include "server/protocol.h"
#include "text/grammar.h"
#include "text/tool_format.h"

namespace hadal {

// Null when nothing is asked for. Errors: 400 that begins with the field's name.
ApiExpected<Grammar> compile_structured_output(const StructuredOutput& output);

// `tools`: the request's, checked. A named tool: its arguments; required: a list of {name, parameters}; auto: null
// unless a tool is strict, then text with calls in the model's format. `format` may be null. Errors: 400.
ApiExpected<Grammar> compile_tool_use(const ToolUse& tool_use, const Json& tools, const ToolFormat* format);

// The schema of the list; references inside the tools' schemas are made to point to their new places.
Json required_calls_schema(const Json& tools, bool parallel);

// The grammars asked for last: masks are kept in a grammar, so the second request with a schema finds them ready. Holds
// at most kMaxGrammars, each with up to 64 MiB of masks, seldom more than one. Thread-safe.
class GrammarCache {
 public:
  static constexpr size_t kMaxGrammars = 16;

  // As compile_structured_output() and compile_tool_use().
  ApiExpected<Grammar> structured_output(const StructuredOutput& output);
  ApiExpected<Grammar> tool_use(const ToolUse& tool_use, const Json& tools, const ToolFormat* format);

 private:
  struct Entry {
    std::string key;
    Grammar grammar;
  };
  ApiExpected<Grammar> get(std::string key, const std::function<ApiExpected<Grammar>()>& compile);

  std::mutex mutex_;
  std::list<Entry> entries_;  // last used first
};

// The grammars' view of the tokenizer, made at the first use. Thread-safe.
class GrammarVocabularyCache {
 public:
  std::shared_ptr<const GrammarVocabulary> get(const std::shared_ptr<const Tokenizer>& tokenizer);

 private:
  std::mutex mutex_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const GrammarVocabulary> vocabulary_;
};

}  // namespace hadal
