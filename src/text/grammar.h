// Structured output: a grammar over bytes that says which tokens may come next. Compiled once per request (off the
// token path), matched token by token, with a bit per token of the vocabulary.
//
//   auto grammar = compile_json_schema(schema);              // any thread; errors name what is not supported
//   auto vocabulary = GrammarVocabulary::make(tokenizer);    // once per tokenizer
//   GrammarMatcher matcher(*grammar, vocabulary);            // one per choice
//   matcher.fill_mask(mask); ... matcher.accept(token_id);
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "text/tokenizer.h"
#include "text/tool_format.h"

namespace hadal {

struct GrammarData;
// Immutable, thread-safe.
using Grammar = std::shared_ptr<const GrammarData>;

// Bounds of compiling, against schemas and patterns that explode; those of matching are GrammarMatcher's own.
struct GrammarLimits {
  size_t max_source_bytes = size_t{256} << 10;
  size_t max_states = size_t{1} << 20;
  double max_seconds = 10;
};

struct JsonSchemaOptions {
  bool any_whitespace = true;  // false: none but what the separators hold
  GrammarLimits limits;
};

// All errors: kInvalidArgument (not valid, with place), kUnsupported (names keyword, feature and place, as a JSON
// pointer for schemas), kResourceExhausted (limits).
// `schema`: an object, or true. Documents that the grammar accepts satisfy the schema.
Expected<Grammar> compile_json_schema(const Json& schema, const JsonSchemaOptions& options = {});
// Any JSON object.
Expected<Grammar> compile_json_object(const JsonSchemaOptions& options = {});
// The whole answer matches (anchored). Perl syntax without back references and look-around.
Expected<Grammar> compile_regex(std::string_view pattern, const GrammarLimits& limits = {});
// One of the strings, at least one, none empty.
Expected<Grammar> compile_choice(std::span<const std::string> choices, const GrammarLimits& limits = {});
// EBNF as vLLM takes it: GBNF ("root ::= ...") or Lark ("start: ...").
Expected<Grammar> compile_ebnf(std::string_view source, const GrammarLimits& limits = {});

struct ToolSchema {
  std::string name;
  Json parameters;  // JSON schema, or null: any object
  bool strict = false;
};
// Free text, then optionally a section of calls in the model's own language: to these tools only, strict ones with
// arguments by their schema, the others with any JSON object. Text may not contain the section's marker otherwise.
Expected<Grammar> compile_tool_calls(const ToolFormat& format, std::span<const ToolSchema> tools,
                                     const JsonSchemaOptions& options = {});

// The vocabulary as a trie of bytes, sorted for mask computation. Immutable, thread-safe.
class GrammarVocabulary {
 public:
  // Special tokens (BOS, EOS, ...) are never allowed by a grammar; other added tokens count as their text.
  static std::shared_ptr<const GrammarVocabulary> make(const Tokenizer& tokenizer);
  // Ids are below: the tokenizer's vocab_size(), which may be less than the model's (its logits beyond have no token).
  int32_t size() const;

  struct Data;
  const Data& data() const { return *data_; }

 private:
  std::shared_ptr<const Data> data_;
};

// Single-owner. Masks are cached in the grammar, so that matchers of one grammar share them.
// Work per token is bounded, against grammars made to be ambiguous: where a text could be read in more than 1,024 ways
// (threads), accept refuses it although the grammar and perhaps the mask allow it; fill_mask leaves out what lies
// beyond 256 threads or its bound of work, so that the mask may be empty. No token is ever added.
class GrammarMatcher {
 public:
  GrammarMatcher(Grammar grammar, std::shared_ptr<const GrammarVocabulary> vocabulary);
  GrammarMatcher(const GrammarMatcher& other);
  GrammarMatcher(GrammarMatcher&&) noexcept;
  ~GrammarMatcher();

  // Bit i of word i / 64 is set when token i may come next. mask: [ceil(size / 64)], of the
  // vocabulary's size. Cost at 129k tokens: about 1 us where masks are known, usually 1 to 2 ms for nodes first met.
  void fill_mask(std::span<uint64_t> mask);
  // False, and no change, when the token, or text, is not allowed.
  bool accept(int32_t token_id);
  bool accept_bytes(std::string_view bytes);
  // The text so far is complete: the answer may end here.
  bool can_end() const;
  // Nothing can follow: the answer must end here.
  bool must_end() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hadal
