// hadal chat: a conversation in the terminal, or one question through a pipe. The model runs in this process
// (local_server.h) or behind any OpenAI-compatible URL; both are asked over HTTP, so there is one code path.
#include <pthread.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/log.h"
#include "base/utf8.h"
#include "cli/chat_client.h"
#include "cli/chat_commands.h"
#include "cli/chat_prompt.h"
#include "cli/chat_screen.h"
#include "cli/command.h"
#include "cli/eval_model.h"
#include "cli/local_server.h"

namespace hadal {
namespace {

constexpr size_t kMaxPromptBytes = size_t{16} << 20;

struct ChatOptions {
  ServeOptions model;
  std::string base_url, api_key;
  std::string prompt, system, thinking;
  std::vector<std::string> settings;  // "temperature=0.6"
  bool json = false;
  bool no_history = false;
};
ChatOptions g_options;  // filled by CLI11 before run()
CLI::Option* g_prompt_option;

// Takes the signals that end programs. SIGINT stops the answer that runs; without one it ends a program that loads or
// answers a single question, and is ignored in a conversation, whose prompt reads Ctrl-C as a key.
class ChatSignals {
 public:
  // Before any other thread starts, so that all of them inherit the blocked mask.
  ChatSignals() {
    sigemptyset(&signals_);
    for (const int signal_number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals_, signal_number);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    std::thread([this] { watch(); }).detach();
  }
  // Removes the folder when a signal ends the process.
  void remove_at_end(const std::string& folder) { folder_ = new std::string(folder); }
  // From now on SIGINT stops the client's answers only. The client lives as long as the process runs.
  void begin_conversation(ChatClient* client) { client_ = client; }

 private:
  void watch() {
    for (;;) {
      int signal_number = 0;
      sigwait(&signals_, &signal_number);
      ChatClient* client = client_;
      if (signal_number == SIGINT && client != nullptr) {
        client->cancel();
        continue;
      }
      restore_terminal();
      std::error_code ignored;
      if (const std::string* folder = folder_) std::filesystem::remove_all(*folder, ignored);
      std::_Exit(128 + signal_number);
    }
  }

  sigset_t signals_;
  std::atomic<ChatClient*> client_{nullptr};
  std::atomic<const std::string*> folder_{nullptr};
};

int fail(const Error& error) {
  std::fprintf(stderr, "hadal chat: %s\n", error.message.c_str());
  return error.code == ErrorCode::kInvalidArgument ? kExitBadUsage : kExitFailed;
}

// Standard input to its end.
Expected<std::string> read_question_from_pipe() {
  std::string text;
  char bytes[65536];
  for (size_t count; (count = std::fread(bytes, 1, sizeof bytes, stdin)) > 0;) {
    text.append(bytes, count);
    if (text.size() > kMaxPromptBytes) {
      return make_error(ErrorCode::kInvalidArgument, "standard input: more than {} bytes", kMaxPromptBytes);
    }
  }
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  if (text.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "standard input is empty: send a question, or give --prompt TEXT");
  }
  return to_valid_utf8(text);
}

Status apply_options(const ChatOptions& options, ChatSession* session) {
  session->system = options.system;
  if (!options.thinking.empty() && options.thinking != "auto") session->thinking = options.thinking == "on";
  for (const std::string& setting : options.settings) {
    const size_t equals = setting.find('=');
    if (equals == std::string::npos) {
      return make_error(ErrorCode::kInvalidArgument, "--set {}: expected NAME=VALUE", setting);
    }
    const Status set = session->set(setting.substr(0, equals), setting.substr(equals + 1));
    if (!set) return make_error(ErrorCode::kInvalidArgument, "--set {}: {}", setting, set.error().message);
  }
  return {};
}

Json reply_json(const ChatReply& reply, const std::string& model) {
  Json calls = Json::array();
  for (const ChatToolCall& call : reply.tool_calls) {
    calls.push_back({{"id", call.id}, {"name", call.name}, {"arguments", call.arguments}});
  }
  const auto number_or_null = [](std::optional<double> value) { return value ? Json(*value) : Json(); };
  return {{"model", model},
          {"content", reply.content},
          {"reasoning_content", reply.reasoning},
          {"tool_calls", std::move(calls)},
          {"finish_reason", reply.finish_reason},
          {"prompt_tokens", reply.num_prompt_tokens},
          {"completion_tokens", reply.num_tokens},
          {"first_token_s", number_or_null(reply.first_s)},
          {"tokens_per_s", number_or_null(reply.tokens_per_s())}};
}

int answer_once(ChatClient& client, ChatContext& context, std::string question) {
  context.session.add_question(std::move(question));
  ChatScreen screen(ScreenStyle::detect());
  screen.begin_answer();
  const auto show = [&](ChatStream::Piece piece, std::string_view text) {
    if (!g_options.json) screen.show(piece, text);
  };
  const auto reply = client.ask(context.session.request(context.model), show);
  screen.end_answer();
  if (!reply) return fail(reply.error());
  if (g_options.json) std::printf("%s\n", dump_json(reply_json(*reply, context.model)).c_str());
  if (reply->finish_reason == "length") {
    std::fputs("hadal chat: the answer was cut at max_tokens or at the context's end\n", stderr);
  }
  return kExitOk;
}

// Asks the conversation's last question.
void answer(ChatClient& client, ChatContext& context, ChatScreen& screen) {
  screen.begin_answer();
  const auto reply = client.ask(context.session.request(context.model),
                                [&](ChatStream::Piece piece, std::string_view text) { screen.show(piece, text); });
  screen.end_answer();
  if (!reply) {
    std::fprintf(stderr, "%s\n", without_controls(reply.error().message).c_str());
    return;  // the question stays: /regenerate asks it again
  }
  if (!reply->empty()) context.session.add_answer(*reply);
  screen.note(stat_line(*reply));
}

int converse(ChatClient& client, ChatContext& context) {
  ChatScreen screen(ScreenStyle::detect());
  ChatPrompt prompt(g_options.no_history ? std::filesystem::path() : chat_history_file());
  std::string about = context.model;
  if (context.max_model_len > 0) about += fmt::format(" · {} tokens of context", context.max_model_len);
  screen.note(about + " · /help lists the commands");
  for (;;) {
    auto question = prompt.read();
    if (!question) return kExitOk;
    if (is_command(*question)) {
      const CommandOutcome outcome = run_command(*question, &context);
      if (outcome.next == CommandOutcome::Next::kQuit) return kExitOk;
      if (!outcome.text.empty()) std::printf("%s\n", without_controls(outcome.text).c_str());
      if (outcome.next == CommandOutcome::Next::kPrompt) continue;
    } else {
      context.session.add_question(std::move(*question));
    }
    answer(client, context, screen);
  }
}

// Who is asked: its URL and model name.
Expected<ChatContext> find_model(ChatClient& client) {
  ChatContext context;
  HADAL_RETURN_IF_ERROR(apply_options(g_options, &context.session));
  if (!g_options.base_url.empty() && !g_options.model.model.empty()) {
    context.model = g_options.model.model;
    return context;
  }
  HADAL_ASSIGN_OR_RETURN(const ServedModel model, client.first_model());
  context.model = model.name;
  context.max_model_len = model.max_model_len;
  return context;
}

int run_chat() {
  set_log_level(LogLevel::kWarning);
  if (g_options.base_url.empty() && g_options.model.model.empty()) {
    return fail({ErrorCode::kInvalidArgument, "give --model DIR (a Hugging Face folder), or --base-url URL"});
  }
  ChatSession checked;
  if (const Status applied = apply_options(g_options, &checked); !applied) return fail(applied.error());
  const bool is_conversation = g_prompt_option->count() == 0 && ::isatty(STDIN_FILENO) != 0;
  if (is_conversation && g_options.json) {
    return fail({ErrorCode::kInvalidArgument, "--json is for one question: give --prompt TEXT, or a pipe"});
  }
  std::string question = g_options.prompt;
  ChatSignals& signals = *new ChatSignals;  // its thread lives as long as the process
  if (!is_conversation && g_prompt_option->count() == 0) {
    auto piped = read_question_from_pipe();
    if (!piped) return fail(piped.error());
    question = std::move(*piped);
  }
  std::unique_ptr<PrivateFolder> folder;
  std::unique_ptr<LocalServer> local;
  if (g_options.base_url.empty()) {
    auto made = PrivateFolder::make();
    if (!made) return fail(made.error());
    folder = std::move(*made);
    signals.remove_at_end(folder->path());
    auto started = LocalServer::start(g_options.model, folder->path());
    if (!started) return fail(started.error());
    local = std::move(*started);
  }
  // Not destroyed: a signal may still reach it.
  ChatClient& client = *new ChatClient(local ? local->url() : g_options.base_url, local ? "" : g_options.api_key);
  auto context = find_model(client);
  if (!context) return fail(context.error());
  if (!is_conversation) return answer_once(client, *context, std::move(question));
  signals.begin_conversation(&client);
  return converse(client, *context);
}

void add_chat_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand("chat", "Talk to a model in the terminal");
  add_eval_model_options(*command, g_options.model);
  CLI::Option* base_url = command->add_option(
      "--base-url", g_options.base_url,
      "Ask this server (http://HOST:PORT/v1, https://.., unix:/SOCKET); --model is its model's name "
      "[the first it has]");
  exclude_numerics_options(*command, base_url);
  command->add_option("--max-model-len", g_options.model.max_model_len, "Context in tokens; 0: the model's")
      ->check(CLI::NonNegativeNumber)
      ->excludes(base_url);
  command->add_option("--chat-template", g_options.model.chat_template, "File with a Jinja template, or the template")
      ->excludes(base_url);
  command->add_option("--api-key", g_options.api_key, "Of that server")->envname("OPENAI_API_KEY");
  g_prompt_option = command->add_option("--prompt", g_options.prompt, "Answer this and end");
  command->add_option("--system", g_options.system, "System prompt");
  command->add_option("--thinking", g_options.thinking, "on, off or auto: as the model")
      ->check(CLI::IsMember({"on", "off", "auto"}));
  command->add_option("--set", g_options.settings, "NAME=VALUE: temperature, top_p, top_k, max_tokens, seed, ..");
  command->add_flag("--json", g_options.json, "One question's answer as a JSON object with its times");
  command->add_flag("--no-history", g_options.no_history, "Keep no file of the lines typed");
  command->footer(
      "Examples:\n  hadal chat --model models/nano\n  echo 'Who are you?' | hadal chat --model models/nano\n"
      "  hadal chat --base-url http://127.0.0.1:8000/v1 --prompt 'Who are you?' --set temperature=0");
}

}  // namespace

const Command kChatCommand = {add_chat_command, "chat", run_chat};

}  // namespace hadal
