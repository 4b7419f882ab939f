// A JSON schema as a grammar of its documents. Used by json_schema.cc and tool_grammar.cc.
//
// The grammar may leave out documents that the schema allows (other orders of properties, properties that it does not
// name unless it asks for them); it never has one that the schema refuses. What cannot be kept to is refused by name.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "text/grammar.h"
#include "text/grammar_builder.h"
#include "text/json_grammar.h"

namespace hadal {

// Keywords that say nothing about what is valid.
bool is_schema_annotation(std::string_view keyword);

// Single-owner. Refers to the builder and to the schema.
class JsonSchemaCompiler {
 public:
  using Expr = GrammarBuilder::Expr;

  JsonSchemaCompiler(GrammarBuilder& builder, JsonGrammar& json, const Json& root);

  // The documents of the whole schema. Errors: see compile_json_schema; the message begins with the JSON pointer.
  Expected<Expr> compile();

 private:
  // Where a schema is: pointer into the root, and how many schemas deep.
  struct Place {
    std::string pointer;
    int depth = 0;
    Place in(std::string_view keyword) const;
    Place in(std::string_view keyword, std::string_view name) const;
  };

  Expected<Expr> compile(const Json& schema, const Place& place);
  Expected<Expr> compile_reference(const std::string& reference, const Place& place);
  Expected<Expr> compile_alternatives(const Json& schema, const char* keyword, const Place& place);
  Expected<Expr> compile_values(const Json& schema, const Place& place);
  Expected<Expr> compile_types(const Json& schema, const Place& place);
  Expected<Expr> compile_type(std::string_view type, const Json& schema, const Place& place);

  // json_schema_object.cc
  struct Member {
    std::string name;
    Expr value = 0;
    bool is_required = false;
  };
  struct ObjectShape {
    std::vector<Member> members;
    Expr other_members = GrammarBuilder::kNothing;  // key, colon, value
    uint32_t min_members = 0, max_members = GrammarBuilder::kUnbounded;
  };
  Expected<Expr> compile_object(const Json& schema, const Place& place);
  Expected<std::vector<Member>> compile_members(const Json& schema, const Place& place);
  Expected<Expr> compile_other_members(const Json& schema, const std::vector<Member>& members, const Place& place);
  Expected<Expr> compile_pattern_members(const Json& schema, const std::vector<Member>& members, const Place& place);
  Expected<Expr> object_expression(const ObjectShape& shape, const Place& place);
  Expr key_except(const std::vector<Member>& members);

  Expected<Expr> compile_array(const Json& schema, const Place& place);   // json_schema_array.cc
  Expected<Expr> compile_string(const Json& schema, const Place& place);  // json_schema_string.cc

  // json_schema_merge.cc. What both schemas allow, as one schema.
  Expected<Json> merge(const Json& a, const Json& b, const Place& place);
  Expected<Json> merge_all(const Json& schema, const Place& place);
  Expected<Json> dereference(const Json& schema, const Place& place);
  Status merge_objects(const Json& a, const Json& b, Json& result, const Place& place);
  // Whether documents that the grammar makes for `a` never satisfy `b`.
  bool excludes(const Json& a, const Json& b, int depth);

  Expected<const Json*> resolve(const std::string& reference, const Place& place) const;
  tl::unexpected<Error> invalid(const Place& place, std::string_view what) const;
  tl::unexpected<Error> unsupported(const Place& place, std::string_view what) const;
  // A whole number of a keyword, `missing` where it is absent.
  Expected<uint32_t> count_of(const Json& schema, const char* keyword, uint32_t missing, const Place& place) const;

  GrammarBuilder& builder_;
  JsonGrammar& json_;
  const Json& root_;
  std::map<std::string, Expr> references_;       // calls of the rules of $ref's targets
  size_t num_schemas_ = 0, num_exclusions_ = 0;  // looked at so far
};

}  // namespace hadal
