#include "server/structured_output.h"

#include <algorithm>

namespace hadal {
namespace {

using Kind = StructuredOutput::Kind;

ApiExpected<Grammar> as_api(Expected<Grammar> compiled, const std::string& field) {
  if (compiled) return std::move(*compiled);
  return tl::unexpected(ApiError{400, fmt::format("{}: {}", field, compiled.error().message), field});
}

Expected<Grammar> compile(const StructuredOutput& output) {
  const JsonSchemaOptions json{.any_whitespace = output.any_whitespace, .limits = {}};
  switch (output.kind) {
    case Kind::kNone:
      return nullptr;
    case Kind::kJsonObject:
      return compile_json_object(json);
    case Kind::kJsonSchema:
      return compile_json_schema(output.schema, json);
    case Kind::kRegex:
      return compile_regex(output.source, {.max_source_bytes = StructuredOutput::kMaxRegexBytes});
    case Kind::kChoice:
      return compile_choice(output.choices);
    case Kind::kGrammar:
      return compile_ebnf(output.source);
  }
  return nullptr;
}

Json parameters_of(const Json& tool) {
  const Json& function = tool["function"];
  const auto found = function.find("parameters");
  return found == function.end() || found->is_null() ? Json({{"type", "object"}}) : *found;
}

// "#/$defs/X" of a schema that has moved to `place`. Values that are data, not schemas, stay.
void move_references(Json* schema, const std::string& place) {
  if (schema->is_array()) {
    for (Json& item : *schema) move_references(&item, place);
  }
  if (!schema->is_object()) return;
  for (auto& [key, value] : schema->items()) {
    if (key == "$ref" && value.is_string()) {
      const auto& target = value.get_ref<const std::string&>();
      if (target.starts_with("#") && (target.size() == 1 || target[1] == '/')) value = "#" + place + target.substr(1);
    } else if (key != "const" && key != "enum" && key != "default" && key != "examples") {
      move_references(&value, place);
    }
  }
}

bool is_strict(const Json& tool) {
  const auto found = tool["function"].find("strict");
  return found != tool["function"].end() && found->is_boolean() && found->get<bool>();
}

ApiExpected<Grammar> compile_strict_calls(const Json& tools, const ToolFormat& format) {
  std::vector<ToolSchema> schemas;
  bool any_strict = false;
  for (const Json& tool : tools) {
    schemas.push_back({tool["function"]["name"], parameters_of(tool), is_strict(tool)});
    any_strict = any_strict || schemas.back().strict;
  }
  if (!any_strict) return nullptr;
  return as_api(compile_tool_calls(format, schemas), "tools");
}

}  // namespace

ApiExpected<Grammar> compile_structured_output(const StructuredOutput& output) {
  return as_api(compile(output), output.field);
}

Json required_calls_schema(const Json& tools, bool parallel) {
  Json entries = Json::array();
  for (const Json& tool : tools) {
    Json parameters = parameters_of(tool);
    move_references(&parameters, fmt::format("/items/anyOf/{}/properties/parameters", entries.size()));
    entries.push_back({{"type", "object"},
                       {"properties",
                        {{"name", {{"type", "string"}, {"enum", Json::array({tool["function"]["name"]})}}},
                         {"parameters", std::move(parameters)}}},
                       {"required", {"name", "parameters"}},
                       {"additionalProperties", false}});
  }
  Json schema = {{"type", "array"}, {"minItems", 1}, {"items", {{"anyOf", std::move(entries)}}}};
  if (!parallel) schema["maxItems"] = 1;
  return schema;
}

ApiExpected<Grammar> compile_tool_use(const ToolUse& tool_use, const Json& tools, const ToolFormat* format) {
  switch (tool_use.choice) {
    case ToolUse::Choice::kNone:
      return nullptr;
    case ToolUse::Choice::kAuto:
      return format == nullptr ? ApiExpected<Grammar>(nullptr) : compile_strict_calls(tools, *format);
    case ToolUse::Choice::kRequired:
      return as_api(compile_json_schema(required_calls_schema(tools, tool_use.parallel)), "tools");
    case ToolUse::Choice::kNamed:
      for (const Json& tool : tools) {
        if (tool["function"]["name"] == tool_use.named_tool) {
          return as_api(compile_json_schema(parameters_of(tool)), "tools");
        }
      }
      return nullptr;
  }
  return nullptr;
}

ApiExpected<Grammar> GrammarCache::structured_output(const StructuredOutput& output) {
  if (output.kind == Kind::kNone) return nullptr;
  const Json key = {static_cast<int>(output.kind), output.any_whitespace, output.schema, output.source, output.choices};
  return get(dump_json(key), [&] { return compile_structured_output(output); });
}

ApiExpected<Grammar> GrammarCache::tool_use(const ToolUse& tool_use, const Json& tools, const ToolFormat* format) {
  if (tool_use.choice == ToolUse::Choice::kNone) return nullptr;
  const Json key = {"tools",
                    static_cast<int>(tool_use.choice),
                    tool_use.named_tool,
                    tool_use.parallel,
                    tools,
                    format == nullptr ? "" : std::string(format->name)};
  return get(dump_json(key), [&] { return compile_tool_use(tool_use, tools, format); });
}

// Compiles outside the lock: two requests that come at once may both compile.
ApiExpected<Grammar> GrammarCache::get(std::string key, const std::function<ApiExpected<Grammar>()>& compile) {
  {
    const std::lock_guard lock(mutex_);
    const auto found =
        std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.key == key; });
    if (found != entries_.end()) {
      entries_.splice(entries_.begin(), entries_, found);
      return found->grammar;
    }
  }
  auto compiled = compile();
  if (!compiled || *compiled == nullptr) return compiled;
  const std::lock_guard lock(mutex_);
  entries_.push_front({std::move(key), *compiled});
  if (entries_.size() > kMaxGrammars) entries_.pop_back();
  return compiled;
}

std::shared_ptr<const GrammarVocabulary> GrammarVocabularyCache::get(
    const std::shared_ptr<const Tokenizer>& tokenizer) {
  const std::lock_guard lock(mutex_);
  if (tokenizer_ != tokenizer) {
    vocabulary_ = GrammarVocabulary::make(*tokenizer);
    tokenizer_ = tokenizer;
  }
  return vocabulary_;
}

}  // namespace hadal
