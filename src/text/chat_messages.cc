// From OpenAI messages to what templates expect.
#include <algorithm>

#include "text/chat_template.h"
#include "text/jinja_json.h"
#include "text/jinja_value.h"

namespace hadal {
namespace {

constexpr std::string_view kReservedNames[] = {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"};

// JSON with Python's separators, the spelling that models were trained on.
Expected<std::string> python_json(const Json& value) {
  jinja::Budget budget(int64_t{1} << 24, int64_t{1} << 30);
  HADAL_ASSIGN_OR_RETURN(const jinja::Value converted, jinja::from_json(value, budget));
  std::string text;
  HADAL_RETURN_IF_ERROR(jinja::print_json(converted, {}, text, budget));
  return text;
}

Expected<Json> normalize_parts(const Json& parts, bool keeps_list) {
  std::string joined;
  Json list = Json::array();
  for (const Json& part : parts) {
    const bool is_object = part.is_object();
    const auto type = is_object ? part.find("type") : part.end();
    const auto text = is_object ? part.find("text") : part.end();
    const bool is_text = part.is_string() || (is_object && text != part.end() && text->is_string() &&
                                              (type == part.end() || *type == "text" || *type == "input_text"));
    if (!is_text) {
      return make_error(ErrorCode::kInvalidArgument, "content part {} is not text; this model reads text only",
                        list.size());
    }
    const std::string& value =
        part.is_string() ? part.get_ref<const std::string&>() : text->get_ref<const std::string&>();
    if (!list.empty()) joined += '\n';
    joined += value;
    list.push_back({{"type", "text"}, {"text", value}});
  }
  return keeps_list ? list : Json(std::move(joined));
}

Expected<Json> normalize_content(const Json* content, bool keeps_null, bool keeps_list) {
  if (!content || content->is_null()) return keeps_null ? Json() : Json("");
  if (content->is_string()) return *content;
  if (content->is_array()) return normalize_parts(*content, keeps_list);
  return make_error(ErrorCode::kInvalidArgument, "content is neither a string, a list of parts nor null");
}

Expected<Json> normalize_arguments(const Json* arguments, bool as_object) {
  const bool is_absent = !arguments || arguments->is_null() ||
                         (arguments->is_string() && arguments->get_ref<const std::string&>().empty());
  if (is_absent) return as_object ? Json::object() : Json("{}");
  if (arguments->is_string() != as_object) return *arguments;
  if (as_object) {
    auto parsed = parse_json(arguments->get_ref<const std::string&>());
    if (parsed) return parsed;
    return make_error(ErrorCode::kInvalidArgument, "arguments are no JSON: {}", parsed.error().message);
  }
  HADAL_ASSIGN_OR_RETURN(std::string text, python_json(*arguments));
  return Json(std::move(text));
}

Expected<Json> normalize_tool_call(const Json& call, bool arguments_as_object) {
  const auto function = call.is_object() ? call.find("function") : call.end();
  const bool has_name = call.is_object() && function != call.end() && function->is_object() &&
                        function->contains("name") && (*function)["name"].is_string();
  if (!has_name) return make_error(ErrorCode::kInvalidArgument, "needs a function with a name");
  Json out = Json::object();
  for (auto item = call.begin(); item != call.end(); ++item) {
    if (!item.value().is_null()) out[item.key()] = item.value();
  }
  if (!out.contains("type")) out["type"] = "function";
  const auto arguments = function->find("arguments");
  HADAL_ASSIGN_OR_RETURN(
      out["function"]["arguments"],
      normalize_arguments(arguments == function->end() ? nullptr : &*arguments, arguments_as_object));
  return out;
}

Expected<Json> normalize_message(const Json& message, const ChatTemplate::Traits& traits) {
  if (!message.is_object()) return make_error(ErrorCode::kInvalidArgument, "is not an object");
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string()) return make_error(ErrorCode::kInvalidArgument, "has no role");
  const auto calls = message.find("tool_calls");
  const bool has_calls = calls != message.end() && !calls->is_null() && !(calls->is_array() && calls->empty());
  const auto content = message.find("content");
  const bool keeps_null = has_calls && traits.null_content_with_tool_calls;
  Json out = Json::object();
  for (auto item = message.begin(); item != message.end(); ++item) {
    if (item.key() == "content") {
      out["content"] = nullptr;  // keeps its place among the keys
    } else if (!item.value().is_null() && item.key() != "tool_calls") {
      out[item.key()] = item.value();
    }
  }
  HADAL_ASSIGN_OR_RETURN(out["content"], normalize_content(content == message.end() ? nullptr : &*content, keeps_null,
                                                           traits.content_parts));
  // V3 renders the calls only beside a null content.
  if (keeps_null && out["content"].is_string() && out["content"].get_ref<const std::string&>().empty()) {
    out["content"] = nullptr;
  }
  if (!has_calls) return out;
  if (!calls->is_array()) return make_error(ErrorCode::kInvalidArgument, "tool_calls is not a list");
  Json list = Json::array();
  for (const Json& call : *calls) {
    auto normalized = normalize_tool_call(call, traits.arguments_as_object);
    if (!normalized) return forward_error(std::move(normalized), fmt::format("tool_calls[{}]", list.size()));
    list.push_back(std::move(*normalized));
  }
  out["tool_calls"] = std::move(list);
  return out;
}

}  // namespace

Expected<Json> normalize_messages(const Json& messages, const ChatTemplate& chat_template) {
  if (!messages.is_array()) return make_error(ErrorCode::kInvalidArgument, "messages is not a list");
  Json out = Json::array();
  for (const Json& message : messages) {
    auto normalized = normalize_message(message, chat_template.traits());
    if (!normalized) return forward_error(std::move(normalized), fmt::format("messages[{}]", out.size()));
    out.push_back(std::move(*normalized));
  }
  return out;
}

Expected<Json> template_context(const TemplateInput& input, const ChatTemplate& chat_template) {
  Json context = {{"messages", input.messages},
                  {"tools", input.tools},
                  {"add_generation_prompt", input.add_generation_prompt},
                  {"bos_token", input.bos_token},
                  {"eos_token", input.eos_token}};
  if (input.kwargs.is_null()) return context;
  if (!input.kwargs.is_object()) {
    return make_error(ErrorCode::kInvalidArgument, "chat_template_kwargs is not an object");
  }
  for (auto item = input.kwargs.begin(); item != input.kwargs.end(); ++item) {
    if (std::find(std::begin(kReservedNames), std::end(kReservedNames), item.key()) != std::end(kReservedNames)) {
      return make_error(ErrorCode::kInvalidArgument, "chat_template_kwargs may not set \"{}\"", item.key());
    }
    context[item.key()] = item.value();
  }
  constexpr std::pair<const char*, const char*> kAliases[] = {{"thinking", "enable_thinking"},
                                                              {"enable_thinking", "thinking"}};
  for (const auto& [wanted, given] : kAliases) {
    if (chat_template.references(wanted) && !input.kwargs.contains(wanted) && input.kwargs.contains(given)) {
      context[wanted] = input.kwargs[given];
    }
  }
  return context;
}

}  // namespace hadal
