#include "text/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/utf8.h"
#include "text/grammar_test_support.h"

namespace hadal {
namespace {

using testing::HasSubstr;

Grammar must(Expected<Grammar> grammar) {
  if (!grammar) throw std::runtime_error(grammar.error().message);
  return *grammar;
}

struct MatchCase {
  const char* source;
  std::vector<std::string> matches, others;
};

TEST(Regex, MatchesWholeTexts) {
  const std::vector<MatchCase> cases = {
      {"abc", {"abc"}, {"", "ab", "abcd", "xabc"}},
      {"a*b+c?", {"b", "aabbc", "bc"}, {"", "a", "c", "abcc"}},
      {"(foo|bar){2,3}", {"foobar", "barbarbar"}, {"foo", "foofoofoofoo", "fobar"}},
      {"[a-c^x-]+", {"abc", "^-x"}, {"d", ""}},
      {"[^a-z]", {"A", "1", "\xC3\xA9", "\xF0\x9F\x98\x80", "\n"}, {"a", "z", "\xC3", ""}},
      {".", {"x", "\xE4\xB8\xAD", "\t"}, {"\n", "\r", "", "xx", "\xFF", "\xED\xA0\x80"}},
      {"(?s:.)", {"\n"}, {""}},
      {R"(\d{3}-\w+\s?)", {"123-a_9", "000-z "}, {"12-a", "123-", "123-a  "}},
      {R"([\d\-.]+\.\/\\)", {R"(1-2../\)"}, {R"(1-2/\)"}},
      {R"(\x41\u00e9\u{1F600}\x{42})",
       {"A\xC3\xA9\xF0\x9F\x98\x80"
        "B"},
       {"A"}},
      {R"(\ud83d\ude00)", {"\xF0\x9F\x98\x80"}, {""}},
      {"(?i)ab[c-d]|(?-i:x)",
       {"AB"
        "C",
        "abD", "x"},
       {"X", "abe"}},
      {"^a|b$", {"a", "b"}, {"ab", ""}},
      {"(?:a(?<name>b)(?P<x>c))", {"abc"}, {"ab"}},
      {"a{2}{", {"aa{"}, {"aa"}},
      {"a*?b+?", {"b", "aab"}, {"a"}},
      {"[[:alpha:]_]+", {"aZ_"}, {"1"}},
      {"[]a]+", {"]a"}, {"b"}},
      {"[\xC3\xA9-\xE4\xB8\xAD]", {"\xC3\xA9", "\xE0\xA4\x85", "\xE4\xB8\xAD"}, {"\xC3\xA8", "\xE4\xB8\xAE", "a"}},
      {R"(a|)", {"a", ""}, {"b"}},
  };
  for (const MatchCase& c : cases) {
    const auto grammar = compile_regex(c.source);
    ASSERT_TRUE(grammar.has_value()) << c.source << ": " << grammar.error().message;
    for (const auto& text : c.matches) EXPECT_TRUE(accepts_text(*grammar, text)) << c.source << " on " << text;
    for (const auto& text : c.others) EXPECT_FALSE(accepts_text(*grammar, text)) << c.source << " on " << text;
  }
}

TEST(Masks, EqualTryingEachToken) {
  const std::vector<Grammar> grammars = {
      must(compile_json_object()),
      must(compile_regex(R"((?:[a-z]+, )*(?:\d+|the end\.|"[^"]*"))")),
      must(compile_choice(std::vector<std::string>{"hello", "help", "the abc", "true", "tru"})),
      must(compile_ebnf("root ::= expr\nexpr ::= expr \"+\" term | term\nterm ::= [0-9]+ | \"(\" expr \")\" | "
                        "name*\nname ::= [a-z]+ \" \"")),
      must(compile_json_schema(Json::parse(R"({"type":"object","properties":{"id":{"type":"integer","minimum":-5,
        "maximum":1234},"name":{"type":"string","maxLength":5},"value":{"anyOf":[{"type":"null"},{"$ref":"#"},
        {"type":"array","items":{"type":"number"},"maxItems":3}]}},"required":["id"],"additionalProperties":{"type":"boolean"}})"))),
  };
  std::mt19937 random(3);
  size_t num_states = 0;
  for (const Grammar& grammar : grammars) {
    for (int walk = 0; walk < 20; ++walk) {
      GrammarMatcher matcher(grammar, small_vocabulary().vocabulary);
      for (int step = 0; step < 40; ++step) {
        const std::vector<int32_t> ids = ids_of(mask_of(matcher, small_vocabulary()));
        ASSERT_EQ(ids, ids_by_trying(matcher, small_vocabulary()));
        EXPECT_EQ(ids.empty(), matcher.must_end());
        ++num_states;
        if (ids.empty()) break;
        ASSERT_TRUE(matcher.accept(ids[random() % ids.size()]));
      }
    }
  }
  EXPECT_GT(num_states, 1000u);
}

TEST(Regex, RefusesByName) {
  const struct {
    std::string pattern;
    ErrorCode code;
    const char* message;
  } cases[] = {
      {"(?=a)", ErrorCode::kUnsupported, "look-around"},
      {"(?<!a)b", ErrorCode::kUnsupported, "look-around"},
      {R"((a)\1)", ErrorCode::kUnsupported, "back references"},
      {R"((?<n>a)\k<n>)", ErrorCode::kUnsupported, "back references"},
      {R"(\bword)", ErrorCode::kUnsupported, "word boundaries"},
      {R"(\p{L})", ErrorCode::kUnsupported, "Unicode properties"},
      {"(?>a)", ErrorCode::kUnsupported, "atomic groups"},
      {"a++", ErrorCode::kUnsupported, "possessive"},
      {"(?m)^a", ErrorCode::kUnsupported, "the group \"(?m\""},
      {"a^b", ErrorCode::kUnsupported, "'^' inside"},
      {"(a$)*", ErrorCode::kUnsupported, "'$' inside"},
      {R"(\Qa)", ErrorCode::kUnsupported, "escape \"\\Q\""},
      {"[[:kana:]]", ErrorCode::kUnsupported, "class"},
      {"a{,3}", ErrorCode::kUnsupported, "{0,"},
      {"(", ErrorCode::kInvalidArgument, "'(' without ')'"},
      {"a)", ErrorCode::kInvalidArgument, "byte 1: ')' without '('"},
      {"[a", ErrorCode::kInvalidArgument, "'[' without ']'"},
      {"[z-a]", ErrorCode::kInvalidArgument, "range"},
      {"*a", ErrorCode::kInvalidArgument, "nothing before"},
      {"a**", ErrorCode::kInvalidArgument, "behind a quantifier"},
      {"^*", ErrorCode::kInvalidArgument, "behind an anchor"},
      {"a{3,2}", ErrorCode::kInvalidArgument, "minimum is above"},
      {"\\", ErrorCode::kInvalidArgument, "backslash at the end"},
      {R"(\x{110000})", ErrorCode::kInvalidArgument, "U+10FFFF"},
      {R"(\x{FFFFFFFF00000041})", ErrorCode::kInvalidArgument, "U+10FFFF"},
      {R"(\x{})", ErrorCode::kInvalidArgument, "hexadecimal digits"},
      {R"(\u00e)", ErrorCode::kInvalidArgument, "4 hexadecimal digits"},
      {R"(\ud800)", ErrorCode::kInvalidArgument, "surrogate"},
      {"a\xFF", ErrorCode::kInvalidArgument, "UTF-8 at byte 1"},
      {"(?<a", ErrorCode::kInvalidArgument, "group name"},
      {"[^\\s\\S]", ErrorCode::kInvalidArgument, "no text at all"},
      {"a{1000000}", ErrorCode::kResourceExhausted, "repetitions"},
      {"(a{1000}){1000}", ErrorCode::kResourceExhausted, "states"},
      {"((((a{0,90}){0,90}){0,90}){0,90}){0,90}", ErrorCode::kResourceExhausted, "states"},
      {"(((){1000}){1000}){1000}", ErrorCode::kResourceExhausted, "states"},
      {std::string(1000, '('), ErrorCode::kUnsupported, "nested deeper"},
      {std::string(300 << 10, 'a'), ErrorCode::kResourceExhausted, "at most"},
  };
  for (const auto& c : cases) {
    const auto grammar = compile_regex(c.pattern);
    ASSERT_FALSE(grammar.has_value()) << c.pattern;
    EXPECT_EQ(grammar.error().code, c.code) << c.pattern << ": " << grammar.error().message;
    EXPECT_THAT(grammar.error().message, HasSubstr(c.message)) << c.pattern.substr(0, 100);
  }
}

// 2^20 subsets: stays an automaton with overlapping edges.
TEST(Regex, DoesNotExplodeWithNondeterminism) {
  const Grammar grammar = must(compile_regex("(?:a|b)*a(?:a|b){20}"));
  EXPECT_TRUE(accepts_text(grammar, "bbba" + std::string(20, 'b')));
  EXPECT_FALSE(accepts_text(grammar, "bbbb" + std::string(20, 'b')));
  GrammarMatcher matcher(grammar, small_vocabulary().vocabulary);
  ASSERT_TRUE(matcher.accept_bytes("abababab"));
  EXPECT_EQ(ids_of(mask_of(matcher, small_vocabulary())), ids_by_trying(matcher, small_vocabulary()));
}

TEST(Choice, TakesOneOfTheStrings) {
  const Grammar grammar = must(compile_choice(std::vector<std::string>{"yes", "yes please", "no\n"}));
  EXPECT_TRUE(accepts_text(grammar, "yes"));
  EXPECT_TRUE(accepts_text(grammar, "yes please"));
  EXPECT_TRUE(accepts_text(grammar, "no\n"));
  EXPECT_FALSE(accepts_text(grammar, "no"));
  EXPECT_FALSE(accepts_text(grammar, ""));
  GrammarMatcher matcher(grammar, small_vocabulary().vocabulary);
  ASSERT_TRUE(matcher.accept_bytes("yes"));
  EXPECT_TRUE(matcher.can_end());
  EXPECT_FALSE(matcher.must_end());
  ASSERT_TRUE(matcher.accept_bytes(" please"));
  EXPECT_TRUE(matcher.must_end());
  EXPECT_FALSE(matcher.accept_bytes("x"));
  EXPECT_TRUE(matcher.must_end());

  EXPECT_THAT(compile_choice({}).error().message, HasSubstr("at least one"));
  EXPECT_THAT(compile_choice(std::vector<std::string>{"a", ""}).error().message,
              HasSubstr("cannot contain an empty string"));
  GrammarLimits limits;
  limits.max_source_bytes = 3;
  EXPECT_EQ(compile_choice(std::vector<std::string>{"ab", "cd"}, limits).error().code, ErrorCode::kResourceExhausted);
}

TEST(Ebnf, Gbnf) {
  const std::vector<MatchCase> cases = {
      {"root ::= \"a\" b? # comment\nb ::= [0-9]{2,3} | \"\\x41\\u00e9\"", {"a", "a12", "aA\xC3\xA9"}, {"a1", "b"}},
      {"root ::= (\"x\" | y)*\n  | [^a-z\\n]+\ny ::=\n  \"y\" .", {"", "xxy\xC3\xA9", "AB"}, {"y", "a", "A\n"}},
      // Left recursion.
      {"root ::= root \"+\" n | n\nn ::= [0-9]+", {"1", "1+23+4"}, {"+1", "1+", "1+a"}},
      {"root ::= \"(\" root \")\" root | \"\"", {"", "(())()"}, {"(", ")("}},
      {"root ::= [a-c\\]-]{2} \"-\"{0,}", {"a]--", "--"}, {"a", "d-"}},
      {"root ::= a-b\na-b ::= \"q\"{3}", {"qqq"}, {"qq"}},
  };
  for (const MatchCase& c : cases) {
    const auto grammar = compile_ebnf(c.source);
    ASSERT_TRUE(grammar.has_value()) << c.source << ": " << grammar.error().message;
    for (const auto& text : c.matches) EXPECT_TRUE(accepts_text(*grammar, text)) << c.source << " on " << text;
    for (const auto& text : c.others) EXPECT_FALSE(accepts_text(*grammar, text)) << c.source << " on " << text;
  }
}

TEST(Ebnf, Lark) {
  const std::vector<MatchCase> cases = {
      {"start: \"a\" B? // comment\nB: /[0-9]+/ | \"b\"i", {"a", "a12", "ab", "aB"}, {"b", "a1b"}},
      {"?start: sum\n?sum: product | sum \"+\" product -> add\n     | sum \"-\" product\nproduct: NUMBER\n%import "
       "common.NUMBER\n"
       "%import common.WS_INLINE\n%ignore WS_INLINE\n",
       {"1", "1 + 2.5 -3", "1+1"},
       {"1+", "+1", "1 2"}},
      {"start: pair (\",\" pair)* [\";\"]\npair: NAME ~ 2..3\nNAME.2: \"a\"..\"c\"",
       {"ab", "abc,ba;"},
       {"a", "abca", "ab;;"}},
      {"start: /a[\\/\\]]b/is | \"\\\"\\\\\"", {"A/B", "a]b", "\"\\"}, {"ab"}},
      {"start: ESCAPED_STRING\n%import common.ESCAPED_STRING", {"\"a\\\"b\""}, {"\"a"}},
  };
  for (const MatchCase& c : cases) {
    const auto grammar = compile_ebnf(c.source);
    ASSERT_TRUE(grammar.has_value()) << c.source << ": " << grammar.error().message;
    for (const auto& text : c.matches) EXPECT_TRUE(accepts_text(*grammar, text)) << c.source << " on " << text;
    for (const auto& text : c.others) EXPECT_FALSE(accepts_text(*grammar, text)) << c.source << " on " << text;
  }
}

TEST(Ebnf, RefusesByName) {
  const struct {
    std::string source;
    ErrorCode code;
    const char* message;
  } cases[] = {
      {"", ErrorCode::kInvalidArgument, "neither \"root ::= ...\""},
      {"a ::= \"x\"", ErrorCode::kInvalidArgument, "no rule \"root\""},
      {"root ::= b", ErrorCode::kInvalidArgument, "rule \"b\" is used but not defined"},
      {"root ::= \"a\"\nroot ::= \"b\"", ErrorCode::kInvalidArgument, "line 2: a second rule \"root\""},
      {"root ::= \"a", ErrorCode::kInvalidArgument, "string that does not end"},
      {"root ::= \"\\q\"", ErrorCode::kUnsupported, "escape \"\\q\""},
      {"root ::= \"\\x4\"", ErrorCode::kInvalidArgument, "2 hexadecimal digits"},
      {"root ::= \"\\U00110000\"", ErrorCode::kInvalidArgument, "no character"},
      {"root ::= \"\\UFFFFFFFF\"", ErrorCode::kInvalidArgument, "no character"},
      {"root ::= \"\\uD800\"", ErrorCode::kInvalidArgument, "no character"},
      {"root ::= [a", ErrorCode::kInvalidArgument, "'[' without ']'"},
      {"root ::= (\"a\"", ErrorCode::kInvalidArgument, "')' expected"},
      {"root ::= \"a\"{3,2}", ErrorCode::kInvalidArgument, "minimum is above"},
      {"root ::= \"a\"{9999999}", ErrorCode::kResourceExhausted, "repetitions"},
      {"root ::= (= \"a\")", ErrorCode::kUnsupported, "look-ahead"},
      {"root ::= Macro(1)", ErrorCode::kUnsupported, "macro \"Macro(\""},
      {"root ::= a \"x\" | \"y\"\na ::= root", ErrorCode::kInvalidArgument, "begins with itself (left recursion)"},
      {"root ::= \"\"? root \"x\" | \"y\"", ErrorCode::kInvalidArgument, ""},
      {"root ::= root", ErrorCode::kInvalidArgument, "no text at all"},
      {"root ::= a\na ::= \"x\" a", ErrorCode::kInvalidArgument, "no text at all"},
      {"root ::= " + std::string(1000, '('), ErrorCode::kUnsupported, "nested deeper"},
      {"root ::= \"\xFF\"", ErrorCode::kInvalidArgument, "UTF-8 at byte 10"},
      {"start: a{b}", ErrorCode::kUnsupported, "parameters"},
      {"start: A\n%import python.X", ErrorCode::kUnsupported, "%import"},
      {"start: A\n%import common.X", ErrorCode::kUnsupported, "%import of \"X\""},
      {"start: A\n%declare A", ErrorCode::kUnsupported, "%declare"},
      {"start: /a(?=b)/", ErrorCode::kUnsupported, "line 1: regex, byte 3: look-around"},
      {"start: /a/x", ErrorCode::kUnsupported, "flag 'x'"},
      {"start: \"a\"..\"bc\"", ErrorCode::kInvalidArgument, "a range"},
      {"start: ]", ErrorCode::kInvalidArgument, "']' is not expected"},
      {"start \"a\"", ErrorCode::kInvalidArgument, "':' expected"},
  };
  for (const auto& c : cases) {
    const auto grammar = compile_ebnf(c.source);
    if (std::string_view(c.message).empty()) continue;
    ASSERT_FALSE(grammar.has_value()) << c.source;
    EXPECT_EQ(grammar.error().code, c.code) << c.source << ": " << grammar.error().message;
    EXPECT_THAT(grammar.error().message, HasSubstr(c.message)) << c.source;
  }
}

// Rules that may be empty, in a long chain and a long row.
TEST(Ebnf, FindsEmptyRulesInLinearTime) {
  std::string chain = "root ::= \"x\" (r0 | row)", row = "\nrow ::=";
  for (int i = 0; i < 500; ++i) chain += fmt::format("\nr{} ::= r{}", i, i + 1);
  for (int i = 0; i < 200; ++i) row += " r499";
  const Grammar grammar = must(compile_ebnf(chain + "\nr500 ::= \"y\"?" + row));
  EXPECT_TRUE(accepts_text(grammar, "x"));
  EXPECT_TRUE(accepts_text(grammar, "xyyy"));
}

// Each rule doubles the last: 2^40 characters, or as many ways to read them.
TEST(Ebnf, DoesNotExplode) {
  std::string doubling = "root ::= r0\n", ambiguous = "root ::= a0\n";
  for (int i = 0; i < 40; ++i) {
    doubling += fmt::format("r{} ::= r{} r{}\n", i, i + 1, i + 1);
    ambiguous += fmt::format("a{} ::= a{} | a{} \"x\" | a{} \"y\"\n", i, i + 1, i + 1, i + 1);
  }
  const Grammar long_text = must(compile_ebnf(doubling + "r40 ::= \"x\"\n"));
  GrammarMatcher matcher(long_text, small_vocabulary().vocabulary);
  EXPECT_TRUE(matcher.accept_bytes(std::string(1000, 'x')));
  EXPECT_FALSE(matcher.can_end());

  const Grammar many_ways = must(compile_ebnf(ambiguous + "a40 ::= \"z\"\n"));
  EXPECT_TRUE(accepts_text(many_ways, "zxyxy"));
  // Every suffix of the text may be any of the rules: threads are cut off, with the mask to say so.
  const Grammar wild = must(compile_ebnf("root ::= s\ns ::= s1 s | s1\ns1 ::= \"x\" s \"x\" | \"x\" s | \"x\""));
  GrammarMatcher wild_matcher(wild, small_vocabulary().vocabulary);
  for (int i = 0; i < 200 && wild_matcher.accept_bytes("x"); ++i) mask_of(wild_matcher, small_vocabulary());
}

TEST(Matcher, SpecialTokensAreNeverAllowedButMarkersWhereDue) {
  const ToolFormat format{.name = "test",
                          .section_begin = "<calls>",
                          .section_end = "</calls>",
                          .call_begin = "<call>",
                          .call_end = "</call>",
                          .name_prefix = "functions.",
                          .numbered_names = true,
                          .args_begin = "<args>",
                          .args_end = "",
                          .between_calls = "\n"};
  TestVocabulary vocabulary;
  vocabulary.tokenizer = make_test_tokenizer(test_words(), {"<calls>", "</calls>", "<call>", "</call>", "<args>"});
  vocabulary.vocabulary = GrammarVocabulary::make(*vocabulary.tokenizer);
  const auto id = [&](const char* text) { return *vocabulary.tokenizer->token_id(text); };
  std::vector<ToolSchema> tools = {{"free", {}, false},
                                   {"other", {{"properties", {{"x", {{"type", "integer"}}}}}}, true}};
  const Grammar grammar = must(compile_tool_calls(format, tools));

  GrammarMatcher matcher(grammar, vocabulary.vocabulary);
  const auto specials = [&] {
    std::vector<std::string> names;
    for (const int32_t i : ids_of(mask_of(matcher, vocabulary))) {
      if (vocabulary.tokenizer->is_special(i)) names.emplace_back(vocabulary.tokenizer->token_bytes(i));
    }
    return names;
  };
  using testing::ElementsAre;
  EXPECT_TRUE(matcher.can_end());
  EXPECT_THAT(specials(), ElementsAre("<calls>"));
  ASSERT_TRUE(matcher.accept_bytes("Let me see <call, "));
  EXPECT_FALSE(matcher.accept_bytes("<call>"));
  EXPECT_FALSE(matcher.accept(id("<call>")));
  EXPECT_FALSE(matcher.accept(id("</s>")));
  ASSERT_TRUE(matcher.accept(id("<calls>")));
  EXPECT_FALSE(matcher.can_end());
  EXPECT_THAT(specials(), ElementsAre("<call>"));
  ASSERT_TRUE(matcher.accept(id("<call>")));
  EXPECT_FALSE(GrammarMatcher(matcher).accept_bytes("functions.unknown"));
  EXPECT_TRUE(GrammarMatcher(matcher).accept_bytes("functions.free:0<args>{\"a\": \"<b> <\"}</call>"));
  EXPECT_FALSE(GrammarMatcher(matcher).accept_bytes("functions.free:0<args>{\"a\": \"<|"));
  ASSERT_TRUE(matcher.accept_bytes("functions.free:0"));
  EXPECT_THAT(specials(), ElementsAre("<args>"));
  ASSERT_TRUE(matcher.accept_bytes("<args>{\"any\": [1]}"));
  ASSERT_TRUE(matcher.accept(id("</call>")));
  EXPECT_THAT(specials(), testing::UnorderedElementsAre("<call>", "</calls>"));
  EXPECT_FALSE(GrammarMatcher(matcher).accept_bytes("\n<call>functions.other:1<args>{\"x\": \"a\""));
  ASSERT_TRUE(matcher.accept_bytes("\n<call>functions.other:1<args>{\"x\": 1}</call></calls>"));
  EXPECT_TRUE(matcher.must_end());

  EXPECT_THAT(compile_tool_calls(format, {}).error().message, HasSubstr("at least one"));
  tools[1].parameters = {{"not", Json::object()}};
  EXPECT_THAT(compile_tool_calls(format, tools).error().message,
              HasSubstr("tool \"other\": schema at \"#\": keyword \"not\""));
}

// In JSON and in text, tokens that are halves of characters lead to whole ones only.
TEST(Matcher, TextsAreValidUtf8) {
  std::mt19937 random(11);
  const Grammar json = must(compile_json_object());
  const Grammar text = must(compile_regex("[^a]{5,20}"));
  for (int i = 0; i < 100; ++i) {
    for (const Grammar& grammar : {json, text}) {
      EXPECT_EQ(find_invalid_utf8(random_walk(grammar, small_vocabulary(), random)), std::string_view::npos);
    }
  }
}

TEST(Matcher, RefusedTokensChangeNothing) {
  GrammarMatcher matcher(must(compile_regex("ab*c")), small_vocabulary().vocabulary);
  EXPECT_FALSE(matcher.accept_bytes("abx"));
  EXPECT_FALSE(matcher.accept(-1));
  EXPECT_FALSE(matcher.accept(1 << 30));
  EXPECT_TRUE(matcher.accept_bytes("ab"));
  EXPECT_FALSE(matcher.can_end());
  GrammarMatcher copy(matcher);
  EXPECT_TRUE(copy.accept_bytes("c"));
  EXPECT_TRUE(copy.must_end());
  EXPECT_FALSE(matcher.must_end());
}

}  // namespace
}  // namespace hadal
