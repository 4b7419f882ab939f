#include "cli/chat_commands.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/names.h"

namespace hadal {
namespace {

using Next = CommandOutcome::Next;

struct ChatCommand {
  const char* name;
  const char* arguments;
  const char* help;
  CommandOutcome (*run)(const std::string& argument, ChatContext* context);
};

CommandOutcome say(std::string text) { return {Next::kPrompt, std::move(text)}; }

std::string trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t") - begin + 1));
}

std::filesystem::path path_of(const std::string& argument) {
  const char* home = std::getenv("HOME");
  if (argument.rfind("~/", 0) == 0 && home != nullptr) return std::filesystem::path(home) / argument.substr(2);
  return argument;
}

CommandOutcome run_system(const std::string& argument, ChatContext* context) {
  std::string& system = context->session.system;
  if (argument.empty()) return say(system.empty() ? "no system prompt" : "system prompt: " + system);
  system = argument == "none" ? "" : argument;
  return say(system.empty() ? "no system prompt from now on" : "the system prompt holds from the next answer on");
}

CommandOutcome run_save(const std::string& argument, ChatContext* context) {
  if (argument.empty()) return say("/save FILE: JSON that /load takes, or Markdown for FILE.md");
  const std::filesystem::path path = path_of(argument);
  auto& own = context->own_files;
  const bool is_own = std::find(own.begin(), own.end(), path.string()) != own.end();
  if (!is_own && std::filesystem::exists(std::filesystem::symlink_status(path))) {
    return say(fmt::format("{} exists and is not of this conversation: choose another name", path.string()));
  }
  if (const Status saved = save_chat(context->session, path); !saved) return say(saved.error().message);
  if (!is_own) own.push_back(path.string());
  return say(fmt::format("saved {} messages in {}", context->session.messages.size(), path.string()));
}

CommandOutcome run_load(const std::string& argument, ChatContext* context) {
  if (argument.empty()) return say("/load FILE: what /save wrote");
  auto loaded = load_chat(path_of(argument));
  if (!loaded) return say(loaded.error().message);
  context->session = std::move(*loaded);
  context->own_files.push_back(path_of(argument).string());
  return say(fmt::format("{} messages", context->session.messages.size()));
}

CommandOutcome run_clear(const std::string&, ChatContext* context) {
  context->session.clear();
  return say("a new conversation; system prompt and settings stay");
}

CommandOutcome run_regenerate(const std::string&, ChatContext* context) {
  if (const Status dropped = context->session.drop_last_answer(); !dropped) return say(dropped.error().message);
  return {Next::kAsk, ""};
}

CommandOutcome run_set(const std::string& argument, ChatContext* context) {
  ChatSession& session = context->session;
  if (argument.empty()) {
    std::string text;
    for (const ChatSetting& setting : chat_settings()) {
      const auto found = session.settings.find(setting.name);
      const std::string value = found == session.settings.end() ? "the server's default" : found->dump();
      text += fmt::format("{}{:<20} {}", text.empty() ? "" : "\n", setting.name, value);
    }
    return say(std::move(text));
  }
  const size_t gap = argument.find_first_of(" \t=");
  const std::string name = argument.substr(0, gap);
  const std::string value = gap == std::string::npos ? "" : trimmed(std::string_view(argument).substr(gap + 1));
  if (const Status set = session.set(name, value); !set) return say(set.error().message);
  return say(value == "default" ? fmt::format("{}: the server's default", name) : fmt::format("{} {}", name, value));
}

CommandOutcome run_thinking(const std::string& argument, ChatContext* context) {
  auto& thinking = context->session.thinking;
  if (argument == "on" || argument == "off") {
    thinking = argument == "on";
  } else if (argument == "auto") {
    thinking.reset();
  } else if (!argument.empty()) {
    return say(fmt::format("/thinking {}: expected on, off or auto", argument));
  }
  return say(fmt::format("thinking: {}", !thinking ? "as the model" : *thinking ? "on" : "off"));
}

CommandOutcome run_stats(const std::string&, ChatContext* context) {
  const ChatSession& session = context->session;
  std::string text = fmt::format("model {}", context->model);
  if (context->max_model_len > 0) text += fmt::format(", context {} tokens", context->max_model_len);
  text += fmt::format("\n{} answers, {} tokens in this run", session.num_answers, session.num_answer_tokens);
  if (session.last.empty()) return say(std::move(text));
  text += "\nlast answer: " + stat_line(session.last);
  if (const int64_t prompt = session.last.num_prompt_tokens; prompt > 0) {
    text += fmt::format(", after a prompt of {}", prompt);
    if (context->max_model_len > 0) {
      const double used = 100.0 * static_cast<double>(prompt + session.last.num_tokens);
      text += fmt::format(" ({:.0f} % of the context used)", used / static_cast<double>(context->max_model_len));
    }
  }
  return say(std::move(text));
}

CommandOutcome run_quit(const std::string&, ChatContext*) { return {Next::kQuit, ""}; }

CommandOutcome run_help(const std::string& argument, ChatContext* context);

constexpr ChatCommand kCommands[] = {
    {"system", "[TEXT|none]", "show or set the system prompt", run_system},
    {"set", "[NAME VALUE|default]", "show or set temperature, top_p, top_k, max_tokens, seed, ..", run_set},
    {"thinking", "[on|off|auto]", "whether the model thinks first, where it leaves the choice", run_thinking},
    {"regenerate", "", "ask the last question again", run_regenerate},
    {"clear", "", "begin a new conversation", run_clear},
    {"save", "FILE", "save the conversation: JSON, or Markdown for FILE.md", run_save},
    {"load", "FILE", "go on with a saved one", run_load},
    {"stats", "", "tokens, speed, how full the context is", run_stats},
    {"help", "", "this list", run_help},
    {"quit", "", "end; Ctrl-D does too", run_quit}};

CommandOutcome run_help(const std::string&, ChatContext*) {
  std::string text;
  for (const ChatCommand& command : kCommands) {
    const std::string usage = fmt::format("/{} {}", command.name, command.arguments);
    text += fmt::format("{:<28} {}\n", usage, command.help);
  }
  return say(text +
             "A line that ends in \\ goes on in the next one; a text between lines of \"\"\" may have any number.\n"
             "Ctrl-C stops an answer, Ctrl-D or two Ctrl-C end the program.");
}

std::string_view command_name(std::string_view line) {
  line.remove_prefix(1);
  return line.substr(0, line.find_first_of(" \t\n"));
}

}  // namespace

bool is_command(std::string_view line) {
  if (!line.starts_with('/')) return false;
  const std::string_view name = command_name(line);
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) { return c >= 'a' && c <= 'z'; });
}

CommandOutcome run_command(std::string_view line, ChatContext* context) {
  const std::string name(command_name(line));
  const std::string argument = trimmed(line.substr(std::min(line.size(), name.size() + 1)));
  std::vector<std::string> names;
  for (const ChatCommand& command : kCommands) {
    if (name == command.name) return command.run(argument, context);
    names.emplace_back(command.name);
  }
  const std::string near = closest_name(name, names);
  return say(fmt::format("no command is called /{}{}; /help lists them", name,
                         near.empty() ? "" : fmt::format(" (did you mean /{}?)", near)));
}

std::string stat_line(const ChatReply& reply) {
  std::string line;
  const auto add = [&](const std::string& part) { line += (line.empty() ? "" : " · ") + part; };
  if (reply.first_s) add(fmt::format("first token {:.2f} s", *reply.first_s));
  if (const auto speed = reply.tokens_per_s()) add(fmt::format("{:.1f} tokens/s", *speed));
  if (reply.num_tokens > 0) add(fmt::format("{} tokens", reply.num_tokens));
  if (reply.finish_reason == "length") add("cut at max_tokens");
  if (reply.finish_reason == "stopped") add("stopped");
  return line;
}

}  // namespace hadal
