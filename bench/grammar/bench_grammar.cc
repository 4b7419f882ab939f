// bench_grammar --tokenizer PATH: what structured output costs on one thread: compiling, the masks of a first request
// and those of later ones, along documents cut as the tokenizer cuts them.
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "text/grammar.h"
#include "text/tokenizer.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;
// CPU time: other work on the machine does not count.
double now_us() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e6 * static_cast<double>(now.tv_sec) + 1e-3 * static_cast<double>(now.tv_nsec);
}
double us_since(double begin) { return now_us() - begin; }

struct Case {
  std::string name;
  std::function<Expected<Grammar>()> compile;
  std::vector<std::string> texts;
  Json source;  // for the other library: {"schema": ...} or {"regex": ...}; null: ours alone
};

// A record of ten fields, and the same with bounds on everything.
Json record_schema(bool bounded) {
  Json schema = Json::parse(R"({"type": "object", "additionalProperties": false, "properties": {
    "name": {"type": "string"}, "age": {"type": "integer"}, "email": {"type": "string"},
    "address": {"type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"},
                "zip": {"type": "string"}}, "required": ["street", "city"], "additionalProperties": false},
    "tags": {"type": "array", "items": {"type": "string"}}, "score": {"type": "number"}, "active": {"type": "boolean"},
    "role": {"enum": ["admin", "editor", "viewer"]}, "notes": {"type": ["string", "null"]},
    "created": {"type": "string"}}})");
  Json required = Json::array();
  for (const auto& [name, property] : schema["properties"].items()) required.push_back(name);
  schema["required"] = required;
  if (bounded) {
    auto& properties = schema["properties"];
    properties["name"] = {{"type", "string"}, {"minLength", 1}, {"maxLength", 64}};
    properties["age"] = {{"type", "integer"}, {"minimum", 0}, {"maximum", 150}};
    properties["email"] = {{"type", "string"}, {"format", "email"}};
    properties["tags"]["maxItems"] = 8;
    properties["tags"]["items"] = {{"type", "string"}, {"pattern", "^[a-z0-9-]+$"}, {"maxLength", 24}};
    properties["score"] = {{"type", "number"}, {"minimum", 0}, {"maximum", 1}};
    properties["notes"] = {{"type", "string"}, {"maxLength", 1000}};
    properties["created"] = {{"type", "string"}, {"format", "date-time"}};
  }
  return schema;
}

const char kRecord[] =
    R"({"name": "Ada Lovelace", "age": 36, "email": "ada.lovelace@example.org", "address": {"street": "12 St James's )"
    R"(Square", "city": "London", "zip": "SW1Y 4LB"}, "tags": ["mathematics", "analytical-engine", "poetry"], "score": )"
    R"(0.9731, "active": true, "role": "editor", "notes": "Wrote the first program that was meant for a machine, with )"
    R"(notes longer than the article which she had translated; she saw that such a machine could do more than numbers.",)"
    R"( "created": "1843-09-05T12:30:00Z"})";

const char kNested[] = R"({
  "items": [
    {"id": 1, "path": ["a", "b", ["c", 2.5, null]], "更多": {"城市": "北京", "ok": true}},
    {"id": 2, "path": [], "nested": [[[1, 2], [3, 4]], [[5, 6], [7, -8e10]]], "text": "line\nbreak \u00e9 \"quoted\""}
  ],
  "count": 2
})";

std::vector<Case> cases() {
  std::vector<std::string> names;
  for (int i = 0; i < 1000; ++i)
    names.push_back(fmt::format("{}-{}", i % 2 ? "product" : "customer", i * 7919 % 100'003));
  const Json matrix = Json::parse(R"({"type": "array", "items": {"type": "array", "items": {"type": "array", "items":
    {"type": "number"}}}})");
  const std::string matrix_text = "[[[1, 2.5, -3], [4, 5e3, 6]], [[7, 8, 9], [10, 11, 12]], [[0.125, 0, 99]]]";
  const std::string regex = R"((?:[A-Z][a-z]+ )+[A-Z][a-z]+, \+\d{1,3}(?: \d{2,4}){2,4})";
  const auto schema_case = [](std::string name, Json schema, std::vector<std::string> texts) {
    return Case{
        std::move(name), [schema] { return compile_json_schema(schema); }, std::move(texts), {{"schema", schema}}};
  };
  const auto tool_calls = [] {
    const std::vector<ToolSchema> tools = {{"get_weather", {}, false}, {"save_record", record_schema(false), true}};
    return compile_tool_calls(*find_tool_format("deepseek_v31"), tools);
  };
  const std::string tool_text = std::string(
                                    "I will look that up for you, one "
                                    "moment.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>save_record<｜tool▁sep｜>") +
                                kRecord + "<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
  return {
      schema_case("any object", Json{{"type", "object"}}, {kRecord, kNested}),
      schema_case("record of 10 fields", record_schema(false), {kRecord}),
      schema_case("the same, bounded", record_schema(true), {kRecord}),
      schema_case("nested arrays", matrix, {matrix_text}),
      {"regex", [regex] { return compile_regex(regex); }, {"Ada Lovelace King, +44 20 7946 0958"}, {{"regex", regex}}},
      {"choice of 1,000", [names] { return compile_choice(names); }, {names[17], names[500], names[999]}, {}},
      {"tool calls", tool_calls, {tool_text}, {}}};
}

struct Times {
  std::vector<double> us;
  double at(double part) const { return us[static_cast<size_t>(part * static_cast<double>(us.size() - 1))]; }
  Json summary() {
    std::sort(us.begin(), us.end());
    return {{"median", at(0.5)}, {"p99", at(0.99)}, {"max", us.back()}};
  }
};

// Masks along the texts. Errors: kInternal for a token that is not in its mask.
Status walk(const Case& c, const Grammar& grammar, const Tokenizer& tokenizer,
            const std::shared_ptr<const GrammarVocabulary>& vocabulary, Times& masks, Times& accepts) {
  std::vector<uint64_t> mask((static_cast<size_t>(vocabulary->size()) + 63) / 64);
  for (const std::string& text : c.texts) {
    HADAL_ASSIGN_OR_RETURN(const auto ids, tokenizer.encode(text, {}));
    GrammarMatcher matcher(grammar, vocabulary);
    for (const int32_t id : ids) {
      double begin = now_us();
      matcher.fill_mask(mask);
      masks.us.push_back(us_since(begin));
      begin = now_us();
      const bool is_accepted = matcher.accept(id);
      accepts.us.push_back(us_since(begin));
      if (!is_accepted || !(mask[id / 64] >> (id % 64) & 1)) {
        return make_error(ErrorCode::kInternal, "{}: token {} \"{}\" is not allowed", c.name, id,
                          tokenizer.token_bytes(id));
      }
    }
    if (!matcher.can_end()) return make_error(ErrorCode::kInternal, "{}: the text is not complete", c.name);
  }
  return {};
}

Expected<Json> measure(const Case& c, const Tokenizer& tokenizer,
                       const std::shared_ptr<const GrammarVocabulary>& vocabulary, int repetitions) {
  double begin = now_us();
  HADAL_ASSIGN_OR_RETURN(const Grammar grammar, c.compile());
  const double compile_us = us_since(begin);
  Times first, later, accepts;
  HADAL_RETURN_IF_ERROR(walk(c, grammar, tokenizer, vocabulary, first, accepts));
  accepts.us.clear();
  for (int i = 0; i < repetitions; ++i) {
    HADAL_RETURN_IF_ERROR(walk(c, grammar, tokenizer, vocabulary, later, accepts));
  }
  const size_t num_tokens = first.us.size();
  double total = 0;
  for (const double us : first.us) total += us;
  return Json{{"case", c.name},
              {"tokens", num_tokens},
              {"compile_ms", compile_us / 1e3},
              {"first_request_mask_us", first.summary()},
              {"first_request_mask_total_ms", total / 1e3},
              {"later_mask_us", later.summary()},
              {"accept_us", accepts.summary()},
              {"source", c.source},
              {"texts", c.texts}};
}

// A folder for the loader where only tokenizer.json was named.
Expected<std::unique_ptr<Tokenizer>> load(const fs::path& path) {
  if (fs::is_directory(path)) return Tokenizer::load(path);
  const fs::path folder = fs::temp_directory_path() / fmt::format("bench_grammar_{}", getpid());
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (!failed) fs::create_symlink(fs::absolute(path), folder / "tokenizer.json", failed);
  if (failed) return make_error(ErrorCode::kIo, "{}: {}", folder.string(), failed.message());
  auto tokenizer = Tokenizer::load(folder);
  fs::remove_all(folder, failed);
  return tokenizer;
}

Status run(const fs::path& path, int repetitions, bool as_json) {
  HADAL_ASSIGN_OR_RETURN(const auto tokenizer, load(path));
  const double begin = now_us();
  const auto vocabulary = GrammarVocabulary::make(*tokenizer);
  const double vocabulary_ms = us_since(begin) / 1e3;
  if (!as_json) {
    std::printf("vocabulary of %d tokens, its tries built in %.1f ms\n", vocabulary->size(), vocabulary_ms);
    std::printf("%-20s %6s %8s  %26s  %26s  %6s\n", "", "", "compile,", "masks, first request, us", "later, us",
                "accept");
    std::printf("%-20s %6s %8s  %8s %8s %8s  %8s %8s %8s  %6s\n", "case", "tokens", "ms", "median", "p99", "max",
                "median", "p99", "max", "us");
  }
  Json rows = Json::array();
  for (const Case& c : cases()) {
    HADAL_ASSIGN_OR_RETURN(const Json row, measure(c, *tokenizer, vocabulary, repetitions));
    rows.push_back(row);
    if (as_json) continue;
    const auto print_group = [&](const char* group) {
      for (const char* name : {"median", "p99", "max"}) std::printf(" %8.1f", row[group][name].get<double>());
    };
    std::printf("%-20s %6zu %8.2f ", c.name.c_str(), row["tokens"].get<size_t>(), row["compile_ms"].get<double>());
    print_group("first_request_mask_us");
    std::printf(" ");
    print_group("later_mask_us");
    std::printf("  %6.2f\n", row["accept_us"]["median"].get<double>());
  }
  if (as_json) {
    std::printf(
        "%s\n",
        Json{{"vocabulary", vocabulary->size()}, {"vocabulary_ms", vocabulary_ms}, {"cases", rows}}.dump().c_str());
  }
  return {};
}

}  // namespace
}  // namespace hadal

int main(int argc, char** argv) {
  std::filesystem::path path;
  int repetitions = 20;
  bool as_json = false;
  CLI::App app("Measures the compile and mask times of structured output.");
  app.add_option("--tokenizer", path, "model folder, or a tokenizer.json")->required()->check(CLI::ExistingPath);
  app.add_option("--repetitions", repetitions, "walks after the first")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--json", as_json, "one JSON object instead of a table");
  CLI11_PARSE(app, argc, argv);

  const auto status = hadal::run(path, repetitions, as_json);
  if (!status) {
    std::fprintf(stderr, "error: %s\n", status.error().message.c_str());
    return 1;
  }
  return 0;
}
