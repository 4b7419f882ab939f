#include <map>

#include "base/utf8.h"
#include "text/json_schema_compiler.h"

namespace hadal {
namespace {

using Expr = GrammarBuilder::Expr;

// Text in which no marker appears: the automaton of Aho and Corasick over characters, without its final states.
Expr text_without(GrammarBuilder& builder, const std::vector<std::string_view>& markers) {
  struct Prefix {
    std::map<char32_t, uint32_t> next;
    uint32_t fallback = 0;  // the longest other prefix that ends like this one
    bool is_marker = false;
  };
  std::vector<Prefix> prefixes(1);
  CodePointSet alphabet;
  for (const std::string_view marker : markers) {
    uint32_t at = 0;
    for (std::string_view rest = marker; !rest.empty();) {
      const Utf8Step step = decode_utf8(rest);
      rest.remove_prefix(step.num_bytes);
      alphabet.add(step.code_point, step.code_point);
      const auto [found, is_new] =
          prefixes[at].next.try_emplace(step.code_point, static_cast<uint32_t>(prefixes.size()));
      at = found->second;
      if (is_new) prefixes.emplace_back();
    }
    prefixes[at].is_marker = true;
  }
  // Breadth first: completes `next` for all characters of the alphabet.
  std::vector<uint32_t> order = {0};
  for (size_t i = 0; i < order.size(); ++i) {
    const uint32_t at = order[i];
    for (const CodePointSet::Range& range : alphabet.ranges()) {
      for (char32_t c = range.low; c <= range.high; ++c) {
        const uint32_t fallback = at == 0 ? 0 : prefixes[prefixes[at].fallback].next[c];
        const auto [found, is_new] = prefixes[at].next.try_emplace(c, fallback);
        if (is_new) continue;
        prefixes[found->second].fallback = fallback;
        prefixes[found->second].is_marker |= prefixes[fallback].is_marker;
        order.push_back(found->second);
      }
    }
  }
  std::vector<GrammarBuilder::GraphEdge> edges;
  std::vector<uint32_t> accepts;
  const Expr others = builder.code_points(alphabet.complement());
  for (uint32_t at = 0; at < prefixes.size(); ++at) {
    if (prefixes[at].is_marker) continue;
    accepts.push_back(at);
    edges.push_back({at, 0, others});
    std::map<uint32_t, CodePointSet> by_target;
    for (const auto& [c, target] : prefixes[at].next) {
      if (!prefixes[target].is_marker) by_target[target].add(c, c);
    }
    for (const auto& [target, set] : by_target) edges.push_back({at, target, builder.code_points(set)});
  }
  return builder.graph(static_cast<uint32_t>(prefixes.size()), std::move(edges), std::move(accepts));
}

// Texts that a tokenizer may have as one token: the format's parts, and what is written "<...>" in them.
std::vector<std::string> marker_texts(const ToolFormat& format) {
  std::vector<std::string> texts;
  for (const std::string_view part : {format.section_begin, format.section_end, format.call_begin, format.call_end,
                                      format.name_prefix, format.args_begin, format.args_end}) {
    if (!part.empty()) texts.emplace_back(part);
    const size_t open = part.find('<'), close = part.rfind('>');
    if (open != std::string_view::npos && close != std::string_view::npos && open < close) {
      texts.emplace_back(part.substr(open, close + 1 - open));
    }
  }
  return texts;
}

Expected<Expr> call_of(GrammarBuilder& builder, JsonGrammar& json, const ToolFormat& format, const ToolSchema& tool) {
  Expr arguments = json.object();
  if (tool.strict && !tool.parameters.is_null()) {
    auto compiled = JsonSchemaCompiler(builder, json, tool.parameters).compile();
    if (!compiled) return forward_error(std::move(compiled), fmt::format("tool \"{}\"", tool.name));
    arguments = *compiled;
  }
  Expr number = GrammarBuilder::kEmpty;
  if (format.numbered_names) {
    const Expr digit = builder.bytes('0', '9');
    number =
        builder.sequence({builder.literal(":"),
                          builder.choice({builder.literal("0"),
                                          builder.sequence({builder.bytes('1', '9'), builder.repeat(digit, 0, 2)})})});
  }
  return builder.sequence({builder.literal(tool.name), number, builder.literal(format.args_begin), arguments,
                           builder.literal(format.args_end), builder.literal(format.call_end)});
}

}  // namespace

Expected<Grammar> compile_tool_calls(const ToolFormat& format, std::span<const ToolSchema> tools,
                                     const JsonSchemaOptions& options) {
  if (tools.empty()) return make_error(ErrorCode::kInvalidArgument, "tools: at least one is needed");
  size_t num_bytes = 0;
  for (const ToolSchema& tool : tools) {
    if (tool.name.empty()) return make_error(ErrorCode::kInvalidArgument, "tools: a tool without a name");
    num_bytes += tool.name.size() + (tool.strict ? dump_json(tool.parameters).size() : 0);
  }
  if (num_bytes > options.limits.max_source_bytes) {
    return make_error(ErrorCode::kResourceExhausted, "tools: {} bytes of schemas, at most {} accepted", num_bytes,
                      options.limits.max_source_bytes);
  }
  GrammarBuilder builder(options.limits);
  JsonGrammar json(builder, options.any_whitespace, true);
  std::vector<Expr> bodies;
  for (const ToolSchema& tool : tools) {
    HADAL_ASSIGN_OR_RETURN(const Expr body, call_of(builder, json, format, tool));
    bodies.push_back(body);
  }
  const Expr call =
      builder.as_rule("call", builder.sequence({builder.literal(format.call_begin), builder.literal(format.name_prefix),
                                                builder.choice(std::move(bodies))}));
  const Expr between = builder.optional(builder.literal(format.between_calls.empty() ? "\n" : format.between_calls));
  const Expr section =
      builder.sequence({builder.literal(format.section_begin), call,
                        builder.repeat(builder.sequence({between, call}), 0, GrammarBuilder::kUnbounded),
                        builder.literal(format.section_end)});
  std::vector<std::string> texts = marker_texts(format);
  std::vector<std::string_view> excluded;  // from free text
  for (const std::string& text : texts) {
    if (text.starts_with('<') && text.ends_with('>')) excluded.push_back(text);
  }
  const GrammarBuilder::Rule root = builder.add_rule("answer");
  builder.define(root, builder.sequence({text_without(builder, excluded), builder.optional(section)}));
  return builder.build(root, std::move(texts));
}

}  // namespace hadal
