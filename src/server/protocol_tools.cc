// The fields about tools of chat requests.
#include "server/protocol_common.h"

namespace hadal {
namespace {

constexpr size_t kMaxToolNameBytes = 512;

std::optional<ApiError> check_tool(const Json& tool) {
  const auto wrong = [](std::string_view what) { return bad_request("tools", "tools: {}", what); };
  if (!tool.is_object() || !tool.contains("function") || !tool["function"].is_object()) {
    return wrong("entries must be {\"type\": \"function\", \"function\": {\"name\": ...}}");
  }
  if (tool.contains("type") && tool["type"] != "function") return wrong("only the type \"function\" is supported");
  const Json& function = tool["function"];
  const auto of_kind = [&](const char* name, auto is_kind) {
    const auto found = function.find(name);
    return found == function.end() || found->is_null() || is_kind(*found);
  };
  const auto name = function.find("name");
  if (name == function.end() || !name->is_string()) return wrong("every function needs a name");
  const size_t name_bytes = name->get_ref<const std::string&>().size();
  if (name_bytes == 0 || name_bytes > kMaxToolNameBytes) {
    return bad_request("tools", "tools: function names must have 1 to {} bytes, got {}", kMaxToolNameBytes, name_bytes);
  }
  if (!of_kind("parameters", [](const Json& v) { return v.is_object(); })) {
    return wrong("parameters must be an object (a JSON schema)");
  }
  if (!of_kind("description", [](const Json& v) { return v.is_string(); }))
    return wrong("description must be a string");
  if (!of_kind("strict", [](const Json& v) { return v.is_boolean(); })) return wrong("strict must be true or false");
  return {};
}

bool declares(const Json& tools, const std::string& name) {
  for (const Json& tool : tools) {
    if (tool["function"]["name"] == name) return true;
  }
  return false;
}

// {"type": "function", "function": {"name": "f"}}
void read_named_choice(FieldReader& reader, const Json& choice, const Json& tools, ToolUse* tool_use) {
  const auto function = choice.find("function");
  const bool is_named = choice.value("type", Json("function")) == "function" && function != choice.end() &&
                        function->is_object() && function->contains("name") && (*function)["name"].is_string();
  if (!is_named) {
    return reader.fail(bad_request("tool_choice",
                                   "tool_choice: expected {{\"type\": \"function\", \"function\": {{\"name\": "
                                   "\"my_function\"}}}}"));
  }
  tool_use->choice = ToolUse::Choice::kNamed;
  tool_use->named_tool = (*function)["name"];
  if (!declares(tools, tool_use->named_tool)) {
    reader.fail(bad_request("tool_choice",
                            "The tool specified in `tool_choice` (\"{}\") does not match any of the specified `tools`",
                            tool_use->named_tool));
  }
}

}  // namespace

void read_tools(FieldReader& reader, const ProtocolOptions& options, ConversationInput* conversation) {
  const Json* tools = reader.find("tools");
  if (tools == nullptr) return;
  if (!tools->is_array() || tools->size() > static_cast<size_t>(options.max_tools)) {
    return reader.fail(bad_request("tools", "tools must be a list of at most {} functions", options.max_tools));
  }
  for (const Json& tool : *tools) {
    if (auto error = check_tool(tool)) return reader.fail(std::move(*error));
  }
  if (!tools->empty()) conversation->tools = *tools;
}

void read_tool_use(FieldReader& reader, const ProtocolOptions& options, ConversationInput* conversation,
                   ToolUse* tool_use) {
  reader.boolean("parallel_tool_calls", &tool_use->parallel);
  const Json* choice = reader.find("tool_choice");
  const bool has_tools = !conversation->tools.is_null();
  if (choice == nullptr) {
    if (has_tools) tool_use->choice = ToolUse::Choice::kAuto;
    return;
  }
  if (!has_tools) {
    if (*choice == "none" || *choice == "auto") return;
    return reader.fail(bad_request("tool_choice", "When using `tool_choice`, `tools` must be set."));
  }
  if (*choice == "none") {
    if (options.exclude_tools_when_tool_choice_none) conversation->tools = nullptr;
  } else if (*choice == "auto") {
    tool_use->choice = ToolUse::Choice::kAuto;
  } else if (*choice == "required") {
    tool_use->choice = ToolUse::Choice::kRequired;
  } else if (choice->is_object()) {
    read_named_choice(reader, *choice, conversation->tools, tool_use);
  } else {
    reader.fail(bad_request("tool_choice",
                            "tool_choice must be \"none\", \"auto\", \"required\" or a named tool, got {}",
                            dump_json(*choice).substr(0, 80)));
  }
}

}  // namespace hadal
