#include "server/server_test_support.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "base/file.h"
#include "base/utf8.h"
#include "support/test_files.h"

namespace hadal {
namespace {

constexpr char kTemplate[] =
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if tools %}[tools]{% endif %}{% if add_generation_prompt %}[assistant]{% if thinking %}<think>{% endif %}"
    "{% endif %}";

// GPT-2's spelling of a byte.
std::string spelled(int byte) {
  const auto is_shown = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
  std::string out;
  if (is_shown(byte)) {
    append_utf8(out, static_cast<char32_t>(byte));
    return out;
  }
  int rank = 0;
  for (int b = 0; b < byte; ++b) rank += is_shown(b) ? 0 : 1;
  append_utf8(out, static_cast<char32_t>(256 + rank));
  return out;
}

Json tokenizer_json() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[spelled(byte)] = byte;
  Json added = Json::array();
  const auto add = [&](int32_t id, const char* content, bool special) {
    added.push_back({{"id", id},
                     {"content", content},
                     {"special", special},
                     {"normalized", false},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false}});
  };
  add(kTestBos, "<BOS>", true);
  add(kTestEos, "<EOS>", true);
  add(kTestThink, "<think>", false);
  add(kTestEndThink, "</think>", false);
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", Json::array({byte_level})}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}};
}

[[noreturn]] void give_up(const std::string& what) { throw std::runtime_error(what); }

}  // namespace

std::shared_ptr<const Tokenizer> test_tokenizer() {
  static const std::shared_ptr<const Tokenizer> kTokenizer = [] {
    const TempDir dir;
    const Json config = {{"add_bos_token", true}, {"bos_token", "<BOS>"}, {"eos_token", "<EOS>"}};
    if (!write_file_atomically(dir.path() / "tokenizer.json", dump_json(tokenizer_json())) ||
        !write_file_atomically(dir.path() / "tokenizer_config.json", dump_json(config))) {
      give_up("cannot write the test tokenizer");
    }
    auto loaded = Tokenizer::load(dir.path());
    if (!loaded) give_up(loaded.error().message);
    return std::shared_ptr<const Tokenizer>(std::move(*loaded));
  }();
  return kTokenizer;
}

std::vector<int32_t> test_ids(std::string_view text) {
  return test_tokenizer()->encode(text, {.add_special_tokens = false}).value();
}

TestServer::TestServer(FakeEngine::Script script, ServerOptions options, bool attach_now) {
  options.host = "127.0.0.1";
  options.port = 0;
  if (options.served_model_names.empty()) options.served_model_names = {"m", "second/name"};
  options.version = "1.2.3";
  options.log_access = false;
  auto started = Server::start(std::move(options));
  if (!started) give_up(started.error().message);
  server = std::move(*started);
  engine = std::make_shared<FakeEngine>(std::move(script), server->step_observer());
  if (attach_now) attach();
}

ServerOptions with_tool_parser(const std::string& name) {
  ServerOptions options;
  options.tool_call_parser = name;
  return options;
}

TestServer::TestServer(const std::string& answer, ServerOptions options)
    : TestServer([ids = test_ids(answer)](const Request&) { return ids; }, std::move(options)) {}

TestServer::~TestServer() {
  server.reset();
  if (engine) engine->stop();
}

void TestServer::attach() {
  ServingContext context{engine, test_tokenizer(), ChatTemplate::parse(kTemplate).value(), {}};
  context.facts = {
      .root = "/models/test", .max_model_len = max_model_len, .eos_token_ids = {kTestEos}, .defaults = defaults};
  server->attach(std::move(context));
}

double TestServer::metric(const std::string& name_and_labels) const {
  const std::string text = get("/metrics").body;
  const size_t at = text.find("\n" + name_and_labels + " ");
  if (at == std::string::npos) return std::nan("");
  return std::stod(text.substr(at + name_and_labels.size() + 2));
}

std::string joined(const std::vector<std::string>& events, const std::string& pointer) {
  std::string out;
  for (const std::string& event : events) {
    if (event == "[DONE]") continue;
    const Json chunk = parse_json(event).value();
    const auto at = Json::json_pointer(pointer);
    if (chunk.contains(at) && chunk[at].is_string()) out += chunk[at].get<std::string>();
  }
  return out;
}

std::vector<Json> named_events(const HttpReply& reply) {
  std::vector<Json> events;
  std::istringstream lines(reply.body);
  for (std::string name, data, blank; std::getline(lines, name) && std::getline(lines, data);) {
    std::getline(lines, blank);
    EXPECT_TRUE(data.starts_with("data: ")) << data;
    events.push_back(Json::parse(data.substr(data.find(' ') + 1)));
    EXPECT_EQ(name, "event: " + events.back()["type"].get<std::string>());
    EXPECT_EQ(blank, "");
  }
  return events;
}

void expect_error(const HttpReply& reply, int status, const std::string& fragment) {
  EXPECT_EQ(reply.status, status) << reply.body;
  const Json error = reply.json()["error"];
  EXPECT_EQ(error["code"], status);
  EXPECT_NE(error["message"].get<std::string>().find(fragment), std::string::npos) << reply.body;
  EXPECT_TRUE(error.contains("type") && error.contains("param"));
  EXPECT_EQ(reply.header("content-type"), "application/json");
}

bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 3000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return condition();
}

}  // namespace hadal
