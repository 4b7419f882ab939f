#include "server/conversation_builder.h"

#include <algorithm>

namespace hadal {
namespace {

bool is_text_type(std::string_view type) {
  static constexpr std::string_view kTypes[] = {"text", "input_text", "output_text", "summary_text", "reasoning_text"};
  return std::find(std::begin(kTypes), std::end(kTypes), type) != std::end(kTypes);
}

bool has_only_reasoning(const Json& message) {
  return message["role"] == "assistant" && message.contains("reasoning_content") && message["content"].is_null() &&
         !message.contains("tool_calls");
}

}  // namespace

Json* ConversationBuilder::assistant_turn() {
  if (messages_.empty() || messages_.back()["role"] != "assistant") {
    messages_.push_back({{"role", "assistant"}, {"content", nullptr}});
  }
  return &messages_.back();
}

void ConversationBuilder::add_text(std::string_view role, std::string text) {
  if (role == "assistant" && !messages_.empty() && has_only_reasoning(messages_.back())) {
    messages_.back()["content"] = std::move(text);
    return;
  }
  messages_.push_back({{"role", role}, {"content", std::move(text)}});
}

void ConversationBuilder::add_reasoning(std::string text) {
  if (!messages_.empty() && has_only_reasoning(messages_.back())) {
    auto& earlier = messages_.back()["reasoning_content"].get_ref<std::string&>();
    earlier += "\n" + text;
    return;
  }
  messages_.push_back({{"role", "assistant"}, {"content", nullptr}, {"reasoning_content", std::move(text)}});
}

void ConversationBuilder::add_call(std::string id, std::string name, std::string arguments) {
  (*assistant_turn())["tool_calls"].push_back(
      {{"id", std::move(id)},
       {"type", "function"},
       {"function", {{"name", std::move(name)}, {"arguments", std::move(arguments)}}}});
}

void ConversationBuilder::add_result(std::string call_id, std::string text) {
  messages_.push_back({{"role", "tool"}, {"tool_call_id", std::move(call_id)}, {"content", std::move(text)}});
}

ApiExpected<std::string> string_member(const Json& object, const char* name, const std::string& where) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return "";
  if (!found->is_string()) return tl::unexpected(bad_request(where, "{}.{} must be a string", where, name));
  return found->get<std::string>();
}

ApiExpected<std::string> text_of_parts(const Json& content, const std::string& where) {
  if (content.is_null()) return "";
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) {
    return tl::unexpected(bad_request(where, "{} must be a string or a list of text parts", where));
  }
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const std::string part_name = fmt::format("{}[{}]", where, i);
    if (!part.is_object()) return tl::unexpected(bad_request(where, "{} must be an object", part_name));
    const auto type = string_member(part, "type", part_name);
    if (!type) return type;
    const bool is_refusal = *type == "refusal";
    if (!is_refusal && !is_text_type(*type)) {
      return tl::unexpected(bad_request(where, "{}: type \"{}\" is not supported, this model reads text only",
                                        part_name, type->substr(0, 64)));
    }
    const auto piece = string_member(part, is_refusal ? "refusal" : "text", part_name);
    if (!piece) return piece;
    text += (i == 0 ? "" : "\n") + *piece;
  }
  return text;
}

}  // namespace hadal
