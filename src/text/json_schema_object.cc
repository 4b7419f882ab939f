#include <algorithm>
#include <set>

#include "base/utf8.h"
#include "text/grammar_data.h"
#include "text/json_schema_compiler.h"
#include "text/regex_grammar.h"

namespace hadal {
namespace {

using Expr = GrammarBuilder::Expr;

// Nodes of the graph of one object: properties times the number of members written, where that is bounded.
constexpr size_t kMaxObjectNodes = 200'000;

// What keys are spelled with, beside \uXXXX.
CodePointSet key_characters() { return {{'\b', '\n'}, {'\f', '\r'}, {0x20, 0x10FFFF}}; }

// Texts in which a pattern of a schema is found, with '>' in front: the empty one may be among them. Null: none.
Expected<Grammar> pattern_grammar(std::string_view pattern, const GrammarLimits& limits) {
  GrammarBuilder builder(limits);
  HADAL_ASSIGN_OR_RETURN(const Expr body, regex_expression(builder, pattern, {.search = true}));
  const GrammarBuilder::Rule root = builder.add_rule("pattern");
  builder.define(root, builder.sequence({builder.literal(">"), body}));
  auto grammar = builder.build(root);
  if (!grammar && grammar.error().code == ErrorCode::kInvalidArgument) return Grammar();
  return grammar;
}

}  // namespace

Expected<Expr> JsonSchemaCompiler::compile_object(const Json& schema, const Place& place) {
  ObjectShape shape;
  HADAL_ASSIGN_OR_RETURN(shape.members, compile_members(schema, place));
  HADAL_ASSIGN_OR_RETURN(shape.other_members, compile_other_members(schema, shape.members, place));
  HADAL_ASSIGN_OR_RETURN(shape.min_members, count_of(schema, "minProperties", 0, place));
  HADAL_ASSIGN_OR_RETURN(shape.max_members, count_of(schema, "maxProperties", GrammarBuilder::kUnbounded, place));
  const auto num_required = std::count_if(shape.members.begin(), shape.members.end(),
                                          [](const Member& member) { return member.is_required; });
  if (shape.min_members > num_required + 1 && shape.other_members != GrammarBuilder::kNothing) {
    // Keys outside of `properties` may repeat, which a reader counts once.
    return unsupported(place, "minProperties of more than the required properties and one other is");
  }
  const bool is_plain = shape.members.empty() && !schema.contains("additionalProperties") &&
                        !schema.contains("patternProperties") && !schema.contains("propertyNames");
  if (is_plain && shape.min_members == 0 && shape.max_members == GrammarBuilder::kUnbounded) return json_.object();
  HADAL_ASSIGN_OR_RETURN(const Expr body, object_expression(shape, place));
  return builder_.as_rule(place.pointer, body);
}

Expected<std::vector<JsonSchemaCompiler::Member>> JsonSchemaCompiler::compile_members(const Json& schema,
                                                                                      const Place& place) {
  std::vector<Member> members;
  std::set<std::string> names;
  if (const auto found = schema.find("properties"); found != schema.end()) {
    if (!found->is_object()) return invalid(place, "properties must be an object");
    for (const auto& [name, property] : found->items()) {
      HADAL_ASSIGN_OR_RETURN(const Expr value, compile(property, place.in("properties", name)));
      members.push_back({name, value, false});
      names.insert(name);
    }
  }
  const auto found = schema.find("required");
  if (found == schema.end() || found->is_boolean()) return members;  // draft 3 has a boolean here: inside the property
  if (!found->is_array()) return invalid(place, "required must be an array of names");
  std::set<std::string> required;
  for (const Json& name : *found) {
    if (!name.is_string()) return invalid(place, "required must be an array of names");
    if (!required.insert(name.get<std::string>()).second || names.contains(name.get<std::string>())) continue;
    // Not among the properties: what other members must be. Patterns are checked against it below.
    Expr value = json_.value();
    if (const auto other = schema.find("additionalProperties"); other != schema.end()) {
      HADAL_ASSIGN_OR_RETURN(value, compile(*other, place.in("additionalProperties")));
    }
    members.push_back({name.get<std::string>(), value, true});
  }
  for (Member& member : members) member.is_required |= required.contains(member.name);
  return members;
}

Expected<Expr> JsonSchemaCompiler::compile_other_members(const Json& schema, const std::vector<Member>& members,
                                                         const Place& place) {
  const auto names = schema.find("propertyNames");
  if (schema.contains("patternProperties")) {
    if (names != schema.end()) return unsupported(place, "propertyNames beside patternProperties is");
    return compile_pattern_members(schema, members, place);
  }
  const auto found = schema.find("additionalProperties");
  if (found == schema.end() && !members.empty() && names == schema.end()) return GrammarBuilder::kNothing;
  Expr value = json_.value();
  if (found != schema.end()) {
    HADAL_ASSIGN_OR_RETURN(value, compile(*found, place.in("additionalProperties")));
  }
  if (value == GrammarBuilder::kNothing) return value;
  Expr key = key_except(members);
  if (names != schema.end()) {
    if (!members.empty()) return unsupported(place, "propertyNames beside named properties is");
    HADAL_ASSIGN_OR_RETURN(const Json strings, merge(*names, Json{{"type", "string"}}, place.in("propertyNames")));
    HADAL_ASSIGN_OR_RETURN(key, compile(strings, place.in("propertyNames")));
  }
  return builder_.sequence({key, json_.colon(), value});
}

// One pattern (or several with the same schema). Members that no pattern matches are left out.
Expected<Expr> JsonSchemaCompiler::compile_pattern_members(const Json& schema, const std::vector<Member>& members,
                                                           const Place& place) {
  const Json& patterns = schema["patternProperties"];
  if (!patterns.is_object()) return invalid(place, "patternProperties must be an object");
  if (const auto found = schema.find("additionalProperties"); found != schema.end() && *found != Json(false)) {
    return unsupported(place, "patternProperties beside additionalProperties other than false is");
  }
  std::vector<Expr> keys;
  Expr value = GrammarBuilder::kNothing;
  for (const auto& [pattern, property] : patterns.items()) {
    const Place inner = place.in("patternProperties", pattern);
    if (property != patterns.front()) return unsupported(inner, "several patternProperties with different schemas are");
    auto found = pattern_grammar(pattern, builder_.limits());
    if (!found) return forward_error(std::move(found), fmt::format("schema at \"{}\"", inner.pointer));
    for (const Member& member : members) {
      if (*found && grammar_matches(**found, ">" + member.name)) {
        return unsupported(inner, fmt::format("a pattern that matches the property \"{}\" is", member.name));
      }
    }
    if (keys.empty()) {
      HADAL_ASSIGN_OR_RETURN(value, compile(property, inner));
    }
    auto key =
        regex_expression(builder_, pattern,
                         {.search = true, .character = [&](const CodePointSet& set) { return json_.character(set); }});
    if (!key) return forward_error(std::move(key), fmt::format("schema at \"{}\"", inner.pointer));
    keys.push_back(builder_.as_rule(inner.pointer, json_.quoted(*key)));
  }
  return builder_.sequence({builder_.choice(std::move(keys)), json_.colon(), value});
}

// Any string but the members' names: along the tree of the names, and away from it.
Expr JsonSchemaCompiler::key_except(const std::vector<Member>& members) {
  if (members.empty()) return json_.string();
  struct TreeNode {
    std::vector<std::pair<char32_t, uint32_t>> children;
    bool is_name = false;
  };
  std::vector<TreeNode> tree(1);
  for (const Member& member : members) {
    uint32_t node = 0;
    std::string_view rest = member.name;
    while (!rest.empty()) {
      const Utf8Step step = decode_utf8(rest);
      rest.remove_prefix(step.num_bytes);
      const auto& children = tree[node].children;
      const auto found = std::find_if(children.begin(), children.end(),
                                      [&](const auto& child) { return child.first == step.code_point; });
      if (found != children.end()) {
        node = found->second;
        continue;
      }
      const uint32_t next = static_cast<uint32_t>(tree.size());
      tree[node].children.emplace_back(step.code_point, next);
      tree.emplace_back();
      node = next;
    }
    tree[node].is_name = true;
  }
  const uint32_t away = static_cast<uint32_t>(tree.size());
  std::vector<GrammarBuilder::GraphEdge> edges = {{away, away, json_.any_character()}};
  std::vector<uint32_t> accepts = {away};
  for (uint32_t node = 0; node < tree.size(); ++node) {
    if (!tree[node].is_name) accepts.push_back(node);
    CodePointSet next;
    for (const auto& [character, child] : tree[node].children) {
      next.add(character, character);
      edges.push_back({node, child, json_.character({{character, character}})});
    }
    edges.push_back({node, away, json_.character(key_characters().minus(next))});
  }
  return builder_.as_rule("key", json_.quoted(builder_.graph(away + 1, std::move(edges), std::move(accepts))));
}

// Nodes: (members passed, members written), the latter up to where it no longer matters.
Expected<Expr> JsonSchemaCompiler::object_expression(const ObjectShape& shape, const Place& place) {
  const size_t num_members = shape.members.size();
  const bool is_limited = shape.max_members != GrammarBuilder::kUnbounded;
  const size_t last_count = std::max<size_t>(is_limited ? shape.max_members : std::max(1u, shape.min_members), 1);
  if (is_limited && shape.max_members == 0) {
    const bool is_possible = shape.min_members == 0 && std::none_of(shape.members.begin(), shape.members.end(),
                                                                    [](const Member& m) { return m.is_required; });
    return is_possible ? json_.object_of(GrammarBuilder::kEmpty) : GrammarBuilder::kNothing;
  }
  if ((num_members + 1) * (last_count + 1) > kMaxObjectNodes) {
    return make_error(ErrorCode::kResourceExhausted, "schema at \"{}\": minProperties or maxProperties is too large",
                      place.pointer);
  }
  const auto node = [&](size_t passed, size_t written) {
    return static_cast<uint32_t>(passed * (last_count + 1) + written);
  };
  std::vector<GrammarBuilder::GraphEdge> edges;
  const auto add_member = [&](size_t passed, size_t next, size_t written, Expr member) {
    if (member == GrammarBuilder::kNothing || (is_limited && written == last_count)) return;
    const Expr label = written == 0 ? member : builder_.sequence({json_.comma(), member});
    edges.push_back({node(passed, written), node(next, std::min(written + 1, last_count)), label});
  };
  bool may_be_empty = shape.min_members == 0;
  for (size_t i = 0; i < num_members; ++i) {
    const Member& member = shape.members[i];
    may_be_empty &= !member.is_required;
    const Expr whole = builder_.sequence({builder_.literal(dump_json(member.name)), json_.colon(), member.value});
    for (size_t written = 0; written <= std::min(i, last_count); ++written) {
      if (!member.is_required) edges.push_back({node(i, written), node(i + 1, written)});
      add_member(i, i + 1, written, whole);
    }
  }
  std::vector<uint32_t> accepts;
  for (size_t written = 0; written <= last_count; ++written) {
    add_member(num_members, num_members, written, shape.other_members);
    if (written >= std::max(shape.min_members, 1u)) accepts.push_back(node(num_members, written));
  }
  const uint32_t num_nodes = node(num_members, last_count) + 1;
  const Expr filled = json_.object_of(builder_.graph(num_nodes, std::move(edges), std::move(accepts)));
  return may_be_empty ? builder_.choice({json_.object_of(GrammarBuilder::kEmpty), filled}) : filled;
}

}  // namespace hadal
