// The conversation without a terminal: streams, settings, commands, saved files, lines put together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "cli/chat_commands.h"
#include "cli/chat_prompt.h"
#include "cli/chat_screen.h"
#include "cli/chat_session.h"
#include "cli/chat_stream.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using Piece = ChatStream::Piece;

constexpr const char* kStream =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"Hm\",\"reasoning\":\"Hm\"}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"4\xe4\xb8\xad\"}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\","
    "\"arguments\":\"\"}}]}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":9}}\n\n"
    "data: [DONE]\n\n";

TEST(ChatStream, IsTheSameHoweverItIsCut) {
  const std::string bytes = kStream;
  for (size_t size = 1; size <= bytes.size(); size += size < 8 ? 1 : 37) {
    std::vector<std::pair<Piece, std::string>> pieces;
    ChatStream stream({}, [&](Piece piece, std::string_view text) { pieces.emplace_back(piece, text); });
    for (size_t i = 0; i < bytes.size(); i += size) {
      ASSERT_TRUE(stream.push(std::string_view(bytes).substr(i, size), {}));
    }
    EXPECT_TRUE(stream.done());
    EXPECT_THAT(pieces, ElementsAre(Pair(Piece::kReasoning, "Hm"), Pair(Piece::kContent, "4中"),
                                    Pair(Piece::kToolCall, "f"), Pair(Piece::kToolCall, "{}")));
    const ChatReply& reply = stream.reply();
    EXPECT_EQ(reply.reasoning + "|" + reply.content + "|" + reply.finish_reason, "Hm|4中|stop");
    EXPECT_EQ(reply.num_prompt_tokens, 7);
    EXPECT_EQ(reply.num_tokens, 9);
  }
}

TEST(ChatStream, TimesTheFirstPieceAndTheRest) {
  const ChatStream::Time asked{};
  ChatStream stream(asked, {});
  const auto event = [](const char* text) {
    return std::string("data: {\"choices\":[{\"delta\":{\"content\":\"") + text + "\"}}]}\n\n";
  };
  ASSERT_TRUE(stream.push(event(""), asked + milliseconds(100)));  // the role: no text yet
  EXPECT_FALSE(stream.reply().first_s);
  ASSERT_TRUE(stream.push(event("a"), asked + milliseconds(300)));
  EXPECT_FALSE(stream.reply().tokens_per_s());
  ASSERT_TRUE(stream.push(event("b") + event("c"), asked + milliseconds(800)));
  EXPECT_DOUBLE_EQ(*stream.reply().first_s, 0.3);
  EXPECT_DOUBLE_EQ(*stream.reply().tokens_per_s(), 2 / 0.5);
  EXPECT_EQ(stat_line(stream.reply()), "first token 0.30 s · 4.0 tokens/s · 3 tokens");
}

TEST(ChatStream, RefusesWhatIsNoAnswer) {
  const std::pair<const char*, const char*> cases[] = {
      {"data: {\n\n", "an event of the stream"},
      {"data: [1]\n\n", "no JSON object"},
      {"data: {\"error\":{\"message\":\"out of blocks\",\"code\":500}}\n\n", "the server gave up: out of blocks"},
      {"data: {\"error\":\"x\"}\n\n", "the server gave up: \"x\""},
      {"data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":5}]}}]}\n\n", "tool call 5 after 0"}};
  for (const auto& [bytes, message] : cases) {
    ChatStream stream({}, {});
    const Status pushed = stream.push(bytes, {});
    ASSERT_FALSE(pushed) << bytes;
    EXPECT_THAT(pushed.error().message, HasSubstr(message));
  }
  // Odd, but no reason to give up.
  for (const char* bytes : {"data: {}\n\n", "data: {\"choices\":[3]}\n\n", "data: {\"choices\":{}}\n\n", ": x\n\n",
                            "data: {\"choices\":[{\"delta\":{\"content\":null,\"tool_calls\":null}}]}\n\n",
                            "data: {\"usage\":null}\n\n", "data: {\"usage\":{\"completion_tokens\":-1}}\n\n"}) {
    ChatStream stream({}, {});
    EXPECT_TRUE(stream.push(bytes, {})) << bytes;
    EXPECT_TRUE(stream.reply().empty());
  }
}

TEST(ErrorMessage, IsTheServersInEveryShape) {
  EXPECT_EQ(error_message_of(R"({"error":{"message":"no"}})"), "no");
  EXPECT_EQ(error_message_of(R"({"object":"error","message":"flat"})"), "flat");
  EXPECT_EQ(error_message_of("<html>"), "<html>");
  EXPECT_EQ(error_message_of(std::string(1000, 'x')).size(), 300u);
}

TEST(ChatSession, RequestHasSystemPromptSettingsAndThinking) {
  ChatSession session;
  session.system = "Be brief.";
  session.thinking = false;
  ASSERT_TRUE(session.set("temperature", "0.6"));
  ASSERT_TRUE(session.set("max_tokens", "100"));
  session.add_question("never answered");
  session.add_question("2+2?");
  session.add_answer({.reasoning = "easy", .content = "4"});
  session.add_question("sure?");
  const Json body = session.request("m");
  EXPECT_EQ(body["messages"], Json::parse(R"([{"role":"system","content":"Be brief."},{"role":"user","content":"2+2?"},
                                              {"role":"assistant","content":"4"},{"role":"user","content":"sure?"}])"));
  EXPECT_EQ(body["temperature"], 0.6);
  EXPECT_EQ(body["max_tokens"].dump(), "100");
  EXPECT_EQ(body["chat_template_kwargs"]["thinking"], false);
  EXPECT_EQ(body["stream_options"]["include_usage"], true);
  ASSERT_TRUE(session.set("temperature", "default"));
  EXPECT_FALSE(session.request("m").contains("temperature"));
}

TEST(ChatSession, RefusesSettingsThatMeanNothing) {
  ChatSession session;
  const std::tuple<const char*, const char*, const char*> cases[] = {{"temprature", "1", "did you mean temperature?"},
                                                                     {"temperature", "warm", "expected a number"},
                                                                     {"temperature", "3", "from 0 to 2"},
                                                                     {"temperature", "", "expected a number"},
                                                                     {"temperature", "nan", "expected a number"},
                                                                     {"top_k", "1.5", "a whole number"},
                                                                     {"nonsense", "default", "no setting"}};
  for (const auto& [name, value, message] : cases) {
    const Status set = session.set(name, value);
    ASSERT_FALSE(set) << name << value;
    EXPECT_THAT(set.error().message, HasSubstr(message));
  }
  EXPECT_TRUE(session.settings.empty());
}

class ChatFiles : public ::testing::Test {
 protected:
  std::filesystem::path folder_ =
      std::filesystem::path(::testing::TempDir()) / ::testing::UnitTest::GetInstance()->current_test_info()->name();
  void SetUp() override {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    context_.session.system = "S";
    context_.session.add_question("q\n二");
    context_.session.add_answer({.reasoning = "r", .content = "a"});
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string run(const std::string& line) { return run_command(line, &context_).text; }

  ChatContext context_;
};

TEST_F(ChatFiles, SavedIsLoaded) {
  ASSERT_TRUE(context_.session.set("top_k", "5"));
  context_.session.thinking = true;
  const Json saved = context_.session.to_json();
  EXPECT_THAT(run("/save " + (folder_ / "c.json").string()), HasSubstr("saved 2 messages"));
  EXPECT_THAT(run("/save " + (folder_ / "c.json").string()), HasSubstr("saved"));  // its own file
  context_ = {};
  EXPECT_THAT(run("/load " + (folder_ / "c.json").string()), HasSubstr("2 messages"));
  EXPECT_EQ(context_.session.to_json(), saved);
  run("/save " + (folder_ / "c.md").string());
  EXPECT_EQ(*read_file(folder_ / "c.md", 1000), "## System\n\nS\n\n## You\n\nq\n二\n\n## Answer\n\n> r\n\na\n\n");
}

TEST_F(ChatFiles, OtherFilesAreLeftAlone) {
  ASSERT_TRUE(write_file_atomically(folder_ / "mine", "precious"));
  EXPECT_THAT(run("/save " + (folder_ / "mine").string()), HasSubstr("exists"));
  EXPECT_EQ(*read_file(folder_ / "mine", 100), "precious");
  EXPECT_THAT(run("/save " + (folder_ / "no/such/folder/x").string()), HasSubstr("no/such/folder"));
}

TEST_F(ChatFiles, DamagedFilesAreRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "mine"},
      {"{}", "hadal_chat"},
      {"[]", "hadal_chat"},
      {R"({"hadal_chat":2})", "hadal_chat"},
      {R"({"hadal_chat":1})", "messages"},
      {R"({"hadal_chat":1,"messages":[3]})", "messages[0]"},
      {R"({"hadal_chat":1,"messages":[{"role":"assistant","content":"a"}]})", "role user"},
      {R"({"hadal_chat":1,"messages":[{"role":"user"}]})", "messages[0]"},
      {R"({"hadal_chat":1,"settings":[],"messages":[]})", "settings"},
      {R"({"hadal_chat":1,"settings":{"top_p":"x"},"messages":[]})", "top_p"},
      {R"({"hadal_chat":1,"settings":{"evil":1},"messages":[]})", "evil"}};
  for (const auto& [text, message] : cases) {
    ASSERT_TRUE(write_file_atomically(folder_ / "mine", text));
    const auto loaded = load_chat(folder_ / "mine");
    ASSERT_FALSE(loaded) << text;
    EXPECT_THAT(loaded.error().message, HasSubstr(message)) << text;
  }
  const auto odd = ChatSession::from_json(
      Json::parse(R"({"hadal_chat":1,"system":3,"thinking":"x","messages":[{"role":"user","content":"open"}]})"));
  ASSERT_TRUE(odd);
  EXPECT_TRUE(odd->messages.empty());
}

TEST_F(ChatFiles, CommandsAnswer) {
  const std::pair<const char*, const char*> cases[] = {{"/hlp", "did you mean /help?"},
                                                       {"/regen", "/help lists them"},
                                                       {"/set", "the server's default"},
                                                       {"/set temperature 0.5", "temperature 0.5"},
                                                       {"/set temperature=0.25", "temperature 0.25"},
                                                       {"/set temprature 1", "did you mean temperature?"},
                                                       {"/thinking perhaps", "expected on, off or auto"},
                                                       {"/thinking on", "thinking: on"},
                                                       {"/thinking auto", "as the model"},
                                                       {"/system", "system prompt: S"},
                                                       {"/system  two words ", "holds from the next answer"},
                                                       {"/stats", "1 answers"},
                                                       {"/load", "/load FILE"},
                                                       {"/load /no/such/file", "/no/such/file"},
                                                       {"/help", "/regenerate"}};
  for (const auto& [line, text] : cases) EXPECT_THAT(run(line), HasSubstr(text)) << line;
  EXPECT_EQ(context_.session.system, "two words");
  EXPECT_EQ(run_command("/quit", &context_).next, CommandOutcome::Next::kQuit);
  EXPECT_EQ(run_command("/regenerate", &context_).next, CommandOutcome::Next::kAsk);
  EXPECT_EQ(context_.session.messages.size(), 1u);
  run("/clear");
  EXPECT_EQ(run_command("/regenerate", &context_).next, CommandOutcome::Next::kPrompt);
  EXPECT_TRUE(is_command("/anything"));
  EXPECT_FALSE(is_command("/usr/bin/env"));
  EXPECT_FALSE(is_command("/"));
  EXPECT_FALSE(is_command("a /b"));
}

TEST(QuestionLines, AreJoined) {
  const auto join = [](std::initializer_list<const char*> lines) {
    QuestionLines question;
    std::string left;
    for (const char* line : lines) {
      if (auto whole = question.add(line)) left += "[" + *whole + "]";
    }
    return left + (question.has_begun() ? "..." : "");
  };
  EXPECT_EQ(join({"one"}), "[one]");
  EXPECT_EQ(join({"one\\", "two\\", "three", "next"}), "[one\ntwo\nthree][next]");
  EXPECT_EQ(join({"\"\"\"", "a", "", "b\\", "\"\"\""}), "[a\n\nb\\]");
  EXPECT_EQ(join({"\"\"\"a", "b\"\"\""}), "[a\nb]");
  EXPECT_EQ(join({"\"\"\"a\"\"\"", "x"}), "[a][x]");
  EXPECT_EQ(join({"open\\"}), "...");
}

TEST(ChatScreen, TextCannotMoveTheCursor) {
  EXPECT_EQ(without_controls("a\x1b[2Jb\a\b\tc\nd\x7f"), "a[2Jb\tc\nd");
  EXPECT_EQ(without_controls("\xc2\x9b"
                             "31m\xe4\xb8\xad"),
            "31m中");  // U+009B is CSI
  EXPECT_EQ(without_controls("\xff\xe4"), "\xef\xbf\xbd\xef\xbf\xbd");
}

}  // namespace
}  // namespace hadal
