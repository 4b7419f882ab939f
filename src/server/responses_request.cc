#include "server/responses_request.h"

#include "server/conversation_builder.h"
#include "server/field_reader.h"

namespace hadal {
namespace {

constexpr size_t kMaxIdBytes = 4096;
constexpr size_t kAnyLength = std::numeric_limits<size_t>::max();

// Mean the same in a chat request, which checks them.
constexpr const char* kSharedFields[] = {"model",
                                         "temperature",
                                         "top_p",
                                         "stream",
                                         "parallel_tool_calls",
                                         "user",
                                         "top_k",
                                         "min_p",
                                         "seed",
                                         "presence_penalty",
                                         "stop",
                                         "frequency_penalty",
                                         "stop_token_ids",
                                         "ignore_eos",
                                         "repetition_penalty",
                                         "min_tokens",
                                         "logit_bias",
                                         "priority",
                                         "cache_salt",
                                         "chat_template_kwargs",
                                         "allowed_token_ids"};

struct RefusedMember {
  const char* name;
  const char* why;
};
constexpr RefusedMember kRefused[] = {
    {"background", "background: responses are made while the client waits; send false"},
    {"conversation", "conversation: this server keeps no conversations; use previous_response_id"},
    {"prompt", "prompt: this server keeps no prompt templates; send input and instructions"},
};

bool is_unset(const Json& value) { return value.is_null() || value == false; }

ApiExpected<Json> chat_tool(const Json& tool, size_t index) {
  const std::string where = fmt::format("tools[{}]", index);
  if (!tool.is_object()) return tl::unexpected(bad_request("tools", "{} must be an object", where));
  const auto type = string_member(tool, "type", where);
  if (!type) return tl::unexpected(type.error());
  if (*type != "function") {
    return tl::unexpected(
        bad_request("tools", "{}: type \"{}\" is not supported, only \"function\"", where, type->substr(0, 64)));
  }
  Json function = Json::object();
  for (const char* name : {"name", "description", "parameters", "strict"}) {
    if (tool.contains(name) && !tool[name].is_null()) function[name] = tool[name];
  }
  return Json{{"type", "function"}, {"function", std::move(function)}};
}

void read_tools(FieldReader& reader, ResponsesRequest* request) {
  if (const Json* tools = reader.find("tools")) {
    if (!tools->is_array()) return reader.fail(bad_request("tools", "tools must be a list"));
    for (size_t i = 0; i < tools->size(); ++i) {
      auto tool = chat_tool((*tools)[i], i);
      if (!tool) return reader.fail(tool.error());
      request->chat["tools"].push_back(std::move(*tool));
    }
  }
  const Json* choice = reader.find("tool_choice");
  if (choice == nullptr) return;
  if (choice->is_string()) {
    request->chat["tool_choice"] = *choice;
  } else if (choice->is_object() && choice->value("type", Json()) == "function" && choice->contains("name")) {
    request->chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", (*choice)["name"]}}}};
  } else {
    reader.fail(bad_request("tool_choice",
                            "tool_choice must be \"none\", \"auto\", \"required\" or {{\"type\": \"function\", "
                            "\"name\": ...}}"));
  }
}

void read_text_format(FieldReader& reader, ResponsesRequest* request) {
  const Json* text = reader.find("text");
  if (text == nullptr) return;
  if (!text->is_object()) return reader.fail(bad_request("text", "text must be an object"));
  const auto format = text->find("format");
  if (format == text->end() || format->is_null()) return;
  if (!format->is_object()) return reader.fail(bad_request("text", "text.format must be an object"));
  Json chat_format = {{"type", format->value("type", Json())}};
  if (chat_format["type"] == "json_schema") {
    for (const char* name : {"name", "schema", "strict", "description"}) {
      if (format->contains(name)) chat_format["json_schema"][name] = (*format)[name];
    }
  }
  request->chat["response_format"] = std::move(chat_format);
}

void read_reasoning(FieldReader& reader, ResponsesRequest* request) {
  const Json* reasoning = reader.find("reasoning");
  if (reasoning == nullptr) return;
  if (!reasoning->is_object()) return reader.fail(bad_request("reasoning", "reasoning must be an object"));
  if (reasoning->contains("effort")) request->chat["reasoning_effort"] = (*reasoning)["effort"];
}

void read_limits(FieldReader& reader, ResponsesRequest* request) {
  std::optional<int64_t> max_tokens;
  reader.integer("max_output_tokens", 1, std::numeric_limits<int64_t>::max(), &max_tokens);
  if (max_tokens) request->chat["max_tokens"] = *max_tokens;
  std::optional<int64_t> top_logprobs;
  reader.integer("top_logprobs", 0, 20, &top_logprobs);
  if (top_logprobs.value_or(0) > 0) {
    request->chat["logprobs"] = true;
    request->chat["top_logprobs"] = *top_logprobs;
  }
  std::string truncation = "disabled";
  reader.string("truncation", kMaxIdBytes, &truncation);
  if (truncation != "disabled") {
    reader.fail(
        bad_request("truncation", "truncation must be \"disabled\": this server drops no parts of a conversation"));
  }
}

void read_input(FieldReader& reader, ResponsesRequest* request) {
  const Json* input = reader.find("input");
  if (input == nullptr || (!input->is_string() && !input->is_array())) {
    return reader.fail(bad_request("input", "input must be a string or a list of items"));
  }
  if (input->is_string()) {
    request->messages = Json::array({{{"role", "user"}, {"content", *input}}});
    return;
  }
  auto messages = messages_of_items(*input);
  if (!messages) return reader.fail(messages.error());
  request->messages = std::move(*messages);
}

Json echo_of(const Json& body) {
  const auto given = [&](const char* name, Json otherwise) {
    const auto found = body.find(name);
    return found == body.end() || found->is_null() ? std::move(otherwise) : *found;
  };
  Json text = given("text", Json::object());
  if (!text.contains("format") || text["format"].is_null()) text["format"] = {{"type", "text"}};
  return {{"background", false},
          {"instructions", given("instructions", nullptr)},
          {"max_output_tokens", given("max_output_tokens", nullptr)},
          {"metadata", given("metadata", Json::object())},
          {"parallel_tool_calls", given("parallel_tool_calls", true)},
          {"previous_response_id", given("previous_response_id", nullptr)},
          {"reasoning", given("reasoning", Json{{"effort", nullptr}, {"summary", nullptr}})},
          {"store", given("store", true)},
          {"temperature", given("temperature", nullptr)},
          {"text", std::move(text)},
          {"tool_choice", given("tool_choice", "auto")},
          {"tools", given("tools", Json::array())},
          {"top_logprobs", given("top_logprobs", 0)},
          {"top_p", given("top_p", nullptr)},
          {"truncation", "disabled"},
          {"user", given("user", nullptr)}};
}

ApiExpected<void> add_message_item(const Json& item, const std::string& where, ConversationBuilder* builder) {
  auto role = string_member(item, "role", where);
  if (!role) return tl::unexpected(role.error());
  if (role->empty()) return tl::unexpected(bad_request("input", "{}.role is required", where));
  auto text = text_of_parts(item.value("content", Json()), where + ".content");
  if (!text) return tl::unexpected(text.error());
  // The models' templates know no developer.
  builder->add_text(*role == "developer" ? "system" : *role, std::move(*text));
  return {};
}

ApiExpected<void> add_reasoning_item(const Json& item, const std::string& where, ConversationBuilder* builder) {
  for (const char* member : {"content", "summary"}) {
    auto text = text_of_parts(item.value(member, Json()), fmt::format("{}.{}", where, member));
    if (!text) return tl::unexpected(text.error());
    if (text->empty()) continue;
    builder->add_reasoning(std::move(*text));
    break;
  }
  return {};
}

ApiExpected<void> add_call_item(const Json& item, const std::string& where, ConversationBuilder* builder) {
  // A stream's call that came to nothing: its arguments are no JSON, and its text follows as a message.
  if (item.value("status", Json()) == "incomplete") return {};
  std::string values[3];
  const char* names[] = {"call_id", "name", "arguments"};
  for (size_t i = 0; i < 3; ++i) {
    auto value = string_member(item, names[i], where);
    if (!value) return tl::unexpected(value.error());
    values[i] = std::move(*value);
  }
  builder->add_call(std::move(values[0]), std::move(values[1]), std::move(values[2]));
  return {};
}

ApiExpected<void> add_result_item(const Json& item, const std::string& where, ConversationBuilder* builder) {
  auto call_id = string_member(item, "call_id", where);
  if (!call_id) return tl::unexpected(call_id.error());
  auto text = text_of_parts(item.value("output", Json()), where + ".output");
  if (!text) return tl::unexpected(text.error());
  builder->add_result(std::move(*call_id), std::move(*text));
  return {};
}

ApiExpected<void> add_item(const Json& item, const std::string& where, ConversationBuilder* builder) {
  if (!item.is_object()) return tl::unexpected(bad_request("input", "{} must be an object", where));
  const auto type = string_member(item, "type", where);
  if (!type) return tl::unexpected(type.error());
  if (type->empty() || *type == "message") return add_message_item(item, where, builder);
  if (*type == "reasoning") return add_reasoning_item(item, where, builder);
  if (*type == "function_call") return add_call_item(item, where, builder);
  if (*type == "function_call_output") return add_result_item(item, where, builder);
  return tl::unexpected(bad_request("input",
                                    "{}: type \"{}\" is not supported, only message, reasoning, function_call and "
                                    "function_call_output",
                                    where, type->substr(0, 64)));
}

}  // namespace

ApiExpected<Json> messages_of_items(const Json& items) {
  ConversationBuilder builder;
  for (size_t i = 0; i < items.size(); ++i) {
    if (auto added = add_item(items[i], fmt::format("input[{}]", i), &builder); !added) {
      return tl::unexpected(added.error());
    }
  }
  return builder.take();
}

ApiExpected<ResponsesRequest> parse_responses_request(const Json& body) {
  FieldReader reader(body);
  if (reader.error()) return tl::unexpected(*reader.error());
  ResponsesRequest request;
  request.chat = Json::object();
  for (const char* name : kSharedFields) {
    if (const Json* value = reader.find(name)) request.chat[name] = *value;
  }
  for (const RefusedMember& refused : kRefused) {
    const Json* value = reader.find(refused.name);
    if (value != nullptr && !is_unset(*value)) reader.fail({400, refused.why, refused.name});
  }
  read_tools(reader, &request);
  read_text_format(reader, &request);
  read_reasoning(reader, &request);
  read_limits(reader, &request);
  read_input(reader, &request);
  reader.string("instructions", kAnyLength, &request.instructions);
  reader.string("previous_response_id", kMaxIdBytes, &request.previous_response_id);
  reader.boolean("store", &request.store);
  if (reader.error()) return tl::unexpected(*reader.error());
  request.echo = echo_of(body);
  return request;
}

Json chat_request_of(const ResponsesRequest& request, const Json& earlier) {
  Json chat = request.chat;
  Json& messages = chat["messages"] = Json::array();
  if (!request.instructions.empty()) messages.push_back({{"role", "system"}, {"content", request.instructions}});
  for (const Json* part : {&earlier, &request.messages}) messages.insert(messages.end(), part->begin(), part->end());
  return chat;
}

}  // namespace hadal
