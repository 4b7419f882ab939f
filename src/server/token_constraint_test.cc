#include "server/token_constraint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "server/server_test_support.h"
#include "server/structured_output.h"

namespace hadal {
namespace {

ConstraintPlan plan_for(const std::vector<std::string>& choices, ReasoningMode mode = ReasoningMode::kNone) {
  static GrammarVocabularyCache vocabulary;
  return {.grammar = compile_choice(choices).value(),
          .vocabulary = vocabulary.get(test_tokenizer()),
          .tokenizer = test_tokenizer(),
          .reasoning = {.mode = mode, .ending_markers = {}},
          .eos_token_ids = {kTestEos}};
}

// The ids that may come next, as text; EOS is "$", <think> is "T".
std::string allowed(TokenConstraint& constraint) {
  std::vector<float> logits(kTestVocabSize, 1.0F);
  constraint.apply(logits.data(), kTestVocabSize);
  std::string ids;
  for (int32_t id = 0; id < kTestVocabSize; ++id) {
    if (std::isinf(logits[id])) continue;
    ids += id == kTestEos ? '$' : id == kTestThink ? 'T' : id < 256 ? static_cast<char>(id) : '?';
  }
  return ids.size() == kTestVocabSize ? "all" : ids;
}

void accept(TokenConstraint& constraint, std::string_view text) {
  for (const int32_t id : test_ids(text)) constraint.accept(id);
}

TEST(TokenConstraint, EndTokensAreAllowedWhereTheAnswerMayEnd) {
  const ConstraintPlan plan = plan_for({"a", "abc", "d"});
  const auto constraint = make_token_constraint(plan, "", {});
  EXPECT_EQ(allowed(*constraint), "ad");
  accept(*constraint, "a");
  EXPECT_EQ(allowed(*constraint), "b$");
  accept(*constraint, "b");
  EXPECT_EQ(allowed(*constraint), "c");
  accept(*constraint, "c");
  EXPECT_EQ(allowed(*constraint), "$");
  constraint->accept(kTestEos);  // ignore_eos goes on
  EXPECT_EQ(allowed(*constraint), "$");
}

TEST(TokenConstraint, UsersStopTokensAreEndTokens) {
  const auto constraint = make_token_constraint(plan_for({"ab"}), "", std::vector<int32_t>{'x', 'b', kTestEos});
  EXPECT_EQ(allowed(*constraint), "a");
  accept(*constraint, "a");
  EXPECT_EQ(allowed(*constraint), "bx$");  // the grammar needs "b", which would end the answer: nothing else is left
  const auto complete = make_token_constraint(plan_for({"a"}), "", std::vector<int32_t>{'x'});
  accept(*complete, "a");
  EXPECT_EQ(allowed(*complete), "x$");
}

TEST(TokenConstraint, ReasoningIsFree) {
  const auto constraint = make_token_constraint(plan_for({"a"}, ReasoningMode::kAuto), "[assistant]<think>\n", {});
  EXPECT_EQ(allowed(*constraint), "all");
  accept(*constraint, "why <");
  EXPECT_EQ(allowed(*constraint), "all");
  accept(*constraint, "</think>");
  EXPECT_EQ(allowed(*constraint), "a");
  // Spelled with other tokens.
  const auto spelled = make_token_constraint(plan_for({"a"}, ReasoningMode::kDeepSeekR1), "[assistant]", {});
  for (const char byte : std::string_view("x</think")) spelled->accept(static_cast<uint8_t>(byte));
  EXPECT_EQ(allowed(*spelled), "all");
  spelled->accept('>');
  EXPECT_EQ(allowed(*spelled), "a");
}

TEST(TokenConstraint, AnswerMayBeginWithReasoning) {
  const auto thinking = make_token_constraint(plan_for({"a"}, ReasoningMode::kAuto), "[assistant]", {});
  EXPECT_EQ(allowed(*thinking), "aT");
  thinking->accept(kTestThink);
  EXPECT_EQ(allowed(*thinking), "all");
  accept(*thinking, "x</think>");
  EXPECT_EQ(allowed(*thinking), "a");
  const auto plain = make_token_constraint(plan_for({"ab"}, ReasoningMode::kAuto), "[assistant]", {});
  accept(*plain, "a");
  EXPECT_EQ(allowed(*plain), "b");
  const auto closed = make_token_constraint(plan_for({"a"}, ReasoningMode::kAuto), "[assistant]</think>", {});
  EXPECT_EQ(allowed(*closed), "a");
}

TEST(TokenConstraint, MaskEqualsItsDefinition) {
  std::mt19937_64 random(5);
  for (const size_t size : {1u, 63u, 64u, 65u, 200u, 1000u}) {
    for (const size_t num_words : {size_t{1}, (size + 63) / 64, (size + 63) / 64 + 2}) {
      std::vector<uint64_t> mask(num_words);
      for (uint64_t& word : mask) word = random() % 3 == 0 ? 0 : random() % 2 ? ~uint64_t{0} : random();
      std::vector<float> logits(size);
      for (size_t i = 0; i < size; ++i) logits[i] = static_cast<float>(i);
      mask_logits(mask, logits);
      for (size_t i = 0; i < size; ++i) {
        const bool is_set = i / 64 < mask.size() && ((mask[i / 64] >> (i % 64)) & 1);
        EXPECT_EQ(logits[i], is_set ? static_cast<float>(i) : -std::numeric_limits<float>::infinity());
      }
    }
  }
}

TEST(StructuredOutput, ReferencesMoveWithTheirSchema) {
  const Json tools = parse_json(R"([{"function":{"name":"a"}},{"function":{"name":"b","parameters":{
      "type":"object","properties":{"x":{"$ref":"#/$defs/X"},"y":{"const":{"$ref":"#/kept"}}},
      "$defs":{"X":{"type":"array","items":{"$ref":"#"}}}}}}])")
                         .value();
  const Json schema = required_calls_schema(tools, false);
  EXPECT_EQ(schema["maxItems"], 1);
  const Json b = schema["items"]["anyOf"][1]["properties"]["parameters"];
  const std::string place = "#/items/anyOf/1/properties/parameters";
  EXPECT_EQ(b["properties"]["x"]["$ref"], place + "/$defs/X");
  EXPECT_EQ(b["$defs"]["X"]["items"]["$ref"], place);
  EXPECT_EQ(b["properties"]["y"]["const"]["$ref"], "#/kept");
  EXPECT_TRUE(compile_json_schema(schema).has_value());
}

// A grammar holds its masks, so equal requests must get the same one, and other requests another.
TEST(GrammarCache, GivesEqualRequestsOneGrammar) {
  GrammarCache cache;
  const auto ask = [&](int bound, bool any_whitespace = true) {
    StructuredOutput output;
    output.kind = StructuredOutput::Kind::kJsonSchema;
    output.field = "guided_json";
    output.schema = {{"type", "integer"}, {"maximum", bound}};
    output.any_whitespace = any_whitespace;
    return cache.structured_output(output).value();
  };
  const Grammar first = ask(1);
  EXPECT_EQ(ask(1), first);
  EXPECT_NE(ask(2), first);
  EXPECT_NE(ask(1, false), first);
  for (int bound = 3; bound < 3 + static_cast<int>(GrammarCache::kMaxGrammars); ++bound) ask(bound);
  EXPECT_NE(ask(1), first) << "the oldest are forgotten";
  StructuredOutput bad;
  bad.kind = StructuredOutput::Kind::kRegex;
  bad.field = "guided_regex";
  bad.source = "(";
  EXPECT_EQ(cache.structured_output(bad).error().status, 400);
  EXPECT_EQ(cache.structured_output({}).value(), nullptr);

  const Json tools = Json::array({{{"type", "function"}, {"function", {{"name", "f"}}}}});
  const ToolUse required{.choice = ToolUse::Choice::kRequired};
  const Grammar calls = cache.tool_use(required, tools, nullptr).value();
  EXPECT_EQ(cache.tool_use(required, tools, nullptr).value(), calls);
  ToolUse single = required;
  single.parallel = false;
  EXPECT_NE(cache.tool_use(single, tools, nullptr).value(), calls);
}

}  // namespace
}  // namespace hadal
