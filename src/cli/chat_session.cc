#include "cli/chat_session.h"

#include <fmt/ranges.h>

#include <cmath>
#include <cstdlib>

#include "base/file.h"
#include "base/names.h"

namespace hadal {
namespace {

constexpr double kMostCount = 1e9;

std::string text_at(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

const ChatSetting* find_setting(const std::string& name) {
  for (const ChatSetting& setting : chat_settings()) {
    if (name == setting.name) return &setting;
  }
  return nullptr;
}

Status check_setting(const std::string& name, double value) {
  const ChatSetting* setting = find_setting(name);
  if (setting == nullptr) {
    std::vector<std::string> names;
    for (const ChatSetting& each : chat_settings()) names.emplace_back(each.name);
    const std::string near = closest_name(name, names);
    return make_error(ErrorCode::kInvalidArgument, "no setting is called {}{}; there are: {}", name,
                      near.empty() ? "" : fmt::format(" (did you mean {}?)", near), fmt::join(names, ", "));
  }
  const bool fits =
      value >= setting->least && value <= setting->most && (!setting->is_whole || value == std::floor(value));
  if (fits) return {};
  return make_error(ErrorCode::kInvalidArgument, "{} {}: expected {} from {} to {}", name, value,
                    setting->is_whole ? "a whole number" : "a number", setting->least, setting->most);
}

Json number_json(const std::string& name, double value) {
  if (find_setting(name)->is_whole) return static_cast<int64_t>(value);
  return value;
}

Status check_message(const Json& message, bool of_user) {
  const char* role = of_user ? "user" : "assistant";
  if (!message.is_object() || text_at(message, "role") != role || !message.contains("content") ||
      !message["content"].is_string()) {
    return make_error(ErrorCode::kCorrupt, "expected a message with role {} and content", role);
  }
  return {};
}

bool has_open_question(const Json& messages) { return !messages.empty() && messages.back()["role"] == "user"; }

std::string quoted(const std::string& text) {
  std::string out = "> ";
  for (const char c : text) out += c == '\n' ? std::string("\n> ") : std::string(1, c);
  return out;
}

}  // namespace

const std::vector<ChatSetting>& chat_settings() {
  static const std::vector<ChatSetting> kSettings = {
      {"temperature", 0, 2, false},        {"top_p", 0, 1, false},
      {"top_k", -1, kMostCount, true},     {"min_p", 0, 1, false},
      {"max_tokens", 1, kMostCount, true}, {"seed", 0, 9007199254740991.0, true},
      {"repetition_penalty", 0, 2, false}, {"presence_penalty", -2, 2, false},
      {"frequency_penalty", -2, 2, false}};
  return kSettings;
}

Status ChatSession::set(const std::string& name, const std::string& value) {
  if (value == "default") {
    HADAL_RETURN_IF_ERROR(check_setting(name, find_setting(name) ? find_setting(name)->most : 0));
    settings.erase(name);
    return {};
  }
  char* end = nullptr;
  const double number = std::strtod(value.c_str(), &end);
  if (value.empty() || *end != '\0' || !std::isfinite(number)) {
    return make_error(ErrorCode::kInvalidArgument, "{} \"{}\": expected a number, or `default`", name, value);
  }
  HADAL_RETURN_IF_ERROR(check_setting(name, number));
  settings[name] = number_json(name, number);
  return {};
}

void ChatSession::add_question(std::string text) {
  if (has_open_question(messages)) messages.erase(messages.size() - 1);
  messages.push_back({{"role", "user"}, {"content", std::move(text)}});
}

void ChatSession::add_answer(const ChatReply& reply) {
  Json message = {{"role", "assistant"}, {"content", reply.content}};
  if (!reply.reasoning.empty()) message["reasoning_content"] = reply.reasoning;
  messages.push_back(std::move(message));
  last = reply;
  ++num_answers;
  num_answer_tokens += reply.num_tokens;
}

Status ChatSession::drop_last_answer() {
  if (messages.empty()) return make_error(ErrorCode::kNotFound, "nothing was asked yet");
  if (messages.back()["role"] == "assistant") messages.erase(messages.size() - 1);
  return {};
}

void ChatSession::clear() {
  messages = Json::array();
  last = {};
}

Json ChatSession::request(const std::string& model) const {
  Json body = {{"model", model}, {"messages", Json::array()}, {"stream", true}};
  body["stream_options"] = {{"include_usage", true}};
  if (!system.empty()) body["messages"].push_back({{"role", "system"}, {"content", system}});
  for (const Json& message : messages) {
    body["messages"].push_back({{"role", message["role"]}, {"content", message["content"]}});
  }
  for (const auto& [name, value] : settings.items()) body[name] = value;
  if (thinking) body["chat_template_kwargs"] = {{"thinking", *thinking}, {"enable_thinking", *thinking}};
  return body;
}

Json ChatSession::to_json() const {
  return {{"hadal_chat", kChatFileVersion},
          {"system", system},
          {"thinking", thinking ? Json(*thinking) : Json()},
          {"settings", settings},
          {"messages", messages}};
}

Expected<ChatSession> ChatSession::from_json(const Json& json) {
  if (!json.is_object() || !json.contains("hadal_chat") || json["hadal_chat"] != kChatFileVersion) {
    return make_error(ErrorCode::kCorrupt, "\"hadal_chat\": {} is missing: this is no saved conversation",
                      kChatFileVersion);
  }
  ChatSession session;
  session.system = text_at(json, "system");
  if (json.contains("thinking") && json["thinking"].is_boolean()) session.thinking = json["thinking"].get<bool>();
  const Json settings = json.contains("settings") ? json["settings"] : Json::object();
  if (!settings.is_object()) return make_error(ErrorCode::kCorrupt, "settings: expected an object");
  for (const auto& [name, value] : settings.items()) {
    if (!value.is_number()) return make_error(ErrorCode::kCorrupt, "settings: {} is no number", name);
    HADAL_RETURN_IF_ERROR(check_setting(name, value.get<double>()));
    session.settings[name] = number_json(name, value.get<double>());
  }
  if (!json.contains("messages") || !json["messages"].is_array()) {
    return make_error(ErrorCode::kCorrupt, "messages: a list is missing");
  }
  for (const Json& message : json["messages"]) {
    const auto checked = check_message(message, session.messages.size() % 2 == 0);
    if (!checked) {
      return make_error(ErrorCode::kCorrupt, "messages[{}]: {}", session.messages.size(), checked.error().message);
    }
    Json own = {{"role", message["role"]}, {"content", message["content"]}};
    if (const std::string thought = text_at(message, "reasoning_content"); !thought.empty()) {
      own["reasoning_content"] = thought;
    }
    session.messages.push_back(std::move(own));
  }
  if (has_open_question(session.messages)) session.messages.erase(session.messages.size() - 1);
  return session;
}

std::string ChatSession::to_markdown() const {
  std::string text;
  if (!system.empty()) text += fmt::format("## System\n\n{}\n\n", system);
  for (const Json& message : messages) {
    text += message["role"] == "user" ? "## You\n\n" : "## Answer\n\n";
    if (const std::string thought = text_at(message, "reasoning_content"); !thought.empty()) {
      text += quoted(thought) + "\n\n";
    }
    text += message["content"].get<std::string>() + "\n\n";
  }
  return text;
}

Status save_chat(const ChatSession& session, const std::filesystem::path& path) {
  const std::string text = path.extension() == ".md"
                               ? session.to_markdown()
                               : session.to_json().dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  return write_file_atomically(path, text);
}

Expected<ChatSession> load_chat(const std::filesystem::path& path) {
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxChatFileBytes));
  auto json = parse_json(text);
  if (!json) return forward_error(std::move(json), path.string());
  auto session = ChatSession::from_json(*json);
  if (!session) return forward_error(std::move(session), path.string());
  return session;
}

}  // namespace hadal
