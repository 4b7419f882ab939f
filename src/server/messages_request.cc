#include "server/messages_request.h"

#include "server/conversation_builder.h"
#include "server/field_reader.h"

namespace hadal {
namespace {

// Mean the same in a chat request, which checks them.
constexpr const char* kSharedFields[] = {"model",
                                         "stream",
                                         "temperature",
                                         "top_p",
                                         "top_k",
                                         "min_p",
                                         "seed",
                                         "presence_penalty",
                                         "frequency_penalty",
                                         "repetition_penalty",
                                         "stop_token_ids",
                                         "priority",
                                         "ignore_eos",
                                         "min_tokens",
                                         "chat_template_kwargs",
                                         "cache_salt"};

ApiExpected<void> unsupported(const std::string& where, const std::string& type) {
  return tl::unexpected(bad_request("messages",
                                    "{}: type \"{}\" is not supported, only text, thinking, tool_use and tool_result",
                                    where, type.substr(0, 64)));
}

// The blocks of one message, in order. Texts that follow each other are joined.
class BlockReader {
 public:
  BlockReader(std::string role, ConversationBuilder* builder) : role_(std::move(role)), builder_(builder) {}

  ApiExpected<void> add(const Json& block, const std::string& where) {
    if (!block.is_object()) return tl::unexpected(bad_request("messages", "{} must be an object", where));
    const auto type = string_member(block, "type", where);
    if (!type) return tl::unexpected(type.error());
    if (*type == "text") return add_text(block, where);
    flush();
    if (*type == "thinking") return add_thinking(block, where);
    if (*type == "redacted_thinking") return {};  // made for another server's eyes
    if (*type == "tool_use") return add_call(block, where);
    if (*type == "tool_result") return add_result(block, where);
    return unsupported(where, *type);
  }

  void flush() {
    if (has_text_) builder_->add_text(role_, std::exchange(text_, ""));
    has_text_ = false;
  }

 private:
  ApiExpected<void> add_text(const Json& block, const std::string& where) {
    const auto text = string_member(block, "text", where);
    if (!text) return tl::unexpected(text.error());
    text_ += (has_text_ ? "\n" : "") + *text;
    has_text_ = true;
    return {};
  }

  ApiExpected<void> add_thinking(const Json& block, const std::string& where) {
    auto text = string_member(block, "thinking", where);
    if (!text) return tl::unexpected(text.error());
    if (!text->empty()) builder_->add_reasoning(std::move(*text));
    return {};
  }

  ApiExpected<void> add_call(const Json& block, const std::string& where) {
    auto id = string_member(block, "id", where);
    if (!id) return tl::unexpected(id.error());
    auto name = string_member(block, "name", where);
    if (!name) return tl::unexpected(name.error());
    builder_->add_call(std::move(*id), std::move(*name), dump_json(block.value("input", Json::object())));
    return {};
  }

  ApiExpected<void> add_result(const Json& block, const std::string& where) {
    auto id = string_member(block, "tool_use_id", where);
    if (!id) return tl::unexpected(id.error());
    auto text = text_of_parts(block.value("content", Json()), where + ".content");
    if (!text) return tl::unexpected(text.error());
    builder_->add_result(std::move(*id), std::move(*text));
    return {};
  }

  const std::string role_;
  ConversationBuilder* const builder_;
  std::string text_;
  bool has_text_ = false;
};

ApiExpected<void> add_message(const Json& message, const std::string& where, ConversationBuilder* builder) {
  if (!message.is_object()) return tl::unexpected(bad_request("messages", "{} must be an object", where));
  auto role = string_member(message, "role", where);
  if (!role) return tl::unexpected(role.error());
  if (role->empty()) return tl::unexpected(bad_request("messages", "{}.role is required", where));
  if (*role != "assistant") *role = "user";  // agents send others, too
  const Json content = message.value("content", Json());
  if (content.is_string()) {
    builder->add_text(*role, content.get<std::string>());
    return {};
  }
  if (!content.is_array()) {
    return tl::unexpected(bad_request("messages", "{}.content must be a string or a list of blocks", where));
  }
  BlockReader blocks(*role, builder);
  for (size_t i = 0; i < content.size(); ++i) {
    if (auto added = blocks.add(content[i], fmt::format("{}.content[{}]", where, i)); !added) return added;
  }
  blocks.flush();
  return {};
}

void read_messages(FieldReader& reader, Json* chat) {
  const Json* messages = reader.find("messages");
  if (messages == nullptr || !messages->is_array() || messages->empty()) {
    return reader.fail(bad_request("messages", "messages must be a list with at least one message"));
  }
  ConversationBuilder builder;
  if (const Json* system = reader.find("system")) {
    auto text = text_of_parts(*system, "system");
    if (!text) return reader.fail(text.error());
    if (!text->empty()) builder.add_text("system", std::move(*text));
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    const auto added = add_message((*messages)[i], fmt::format("messages[{}]", i), &builder);
    if (!added) return reader.fail(added.error());
  }
  (*chat)["messages"] = builder.take();
}

void read_tools(FieldReader& reader, Json* chat) {
  const Json* tools = reader.find("tools");
  if (tools == nullptr) return;
  if (!tools->is_array()) return reader.fail(bad_request("tools", "tools must be a list"));
  for (size_t i = 0; i < tools->size(); ++i) {
    const Json& tool = (*tools)[i];
    if (!tool.is_object()) return reader.fail(bad_request("tools", "tools[{}] must be an object", i));
    const Json type = tool.value("type", Json());
    if (!type.is_null() && type != "custom") {
      return reader.fail(
          bad_request("tools", "tools[{}]: only tools that the client runs (type \"custom\") are supported", i));
    }
    Json function = {{"name", tool.value("name", Json())}};
    if (tool.contains("description")) function["description"] = tool["description"];
    function["parameters"] = tool.value("input_schema", Json::object());
    (*chat)["tools"].push_back({{"type", "function"}, {"function", std::move(function)}});
  }
}

void read_tool_choice(FieldReader& reader, Json* chat) {
  const Json* choice = reader.find("tool_choice");
  if (choice == nullptr) return;
  const Json type = choice->is_object() ? choice->value("type", Json()) : Json();
  if (type == "auto" || type == "none") {
    (*chat)["tool_choice"] = type;
  } else if (type == "any") {
    (*chat)["tool_choice"] = "required";
  } else if (type == "tool") {
    (*chat)["tool_choice"] = {{"type", "function"}, {"function", {{"name", choice->value("name", Json())}}}};
  } else {
    return reader.fail(bad_request("tool_choice", "tool_choice.type must be auto, any, tool or none"));
  }
  if (choice->value("disable_parallel_tool_use", Json()) == true) (*chat)["parallel_tool_calls"] = false;
}

void read_thinking(FieldReader& reader, Json* chat) {
  const Json* thinking = reader.find("thinking");
  if (thinking == nullptr) return;
  const Json type = thinking->is_object() ? thinking->value("type", Json()) : Json();
  if (type != "enabled" && type != "disabled" && type != "adaptive") {
    return reader.fail(bad_request("thinking", "thinking.type must be enabled, disabled or adaptive"));
  }
  (*chat)["reasoning_effort"] = type == "disabled" ? "none" : "high";
}

void read_limits(FieldReader& reader, bool count_only, Json* chat) {
  std::optional<int64_t> max_tokens;
  reader.integer("max_tokens", 1, std::numeric_limits<int64_t>::max(), &max_tokens);
  if (max_tokens && !count_only) (*chat)["max_tokens"] = *max_tokens;
  if (!max_tokens && !count_only) reader.fail(bad_request("max_tokens", "max_tokens is required"));
  if (const Json* stop = reader.find("stop_sequences")) (*chat)["stop"] = *stop;
}

const char* messages_error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

}  // namespace

ApiExpected<Json> chat_request_of_messages(const Json& body, bool count_only) {
  FieldReader reader(body);
  if (reader.error()) return tl::unexpected(*reader.error());
  Json chat = Json::object();
  for (const char* name : kSharedFields) {
    if (const Json* value = reader.find(name)) chat[name] = *value;
  }
  read_limits(reader, count_only, &chat);
  read_messages(reader, &chat);
  read_tools(reader, &chat);
  read_tool_choice(reader, &chat);
  read_thinking(reader, &chat);
  if (reader.error()) return tl::unexpected(*reader.error());
  return chat;
}

Json messages_error_body(const ApiError& error) {
  return {{"type", "error"}, {"error", {{"type", messages_error_type(error.status)}, {"message", error.message}}}};
}

HttpResponse messages_error_response(const ApiError& error) {
  HttpResponse response = api_error_response(error);
  response.body = dump_json(messages_error_body(error));
  return response;
}

}  // namespace hadal
