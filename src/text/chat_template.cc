#include "text/chat_template.h"

#include "text/jinja_ast.h"
#include "text/jinja_eval.h"
#include "text/jinja_parser.h"

namespace hadal {
namespace {

constexpr std::string_view kProbeFunction = "probe_function";

// A conversation that every template should render: question, call, result.
Json probe_context(const Json& user_content, const Json& call_content, const Json& arguments, bool with_tools) {
  const Json parameters = {{"type", "object"}, {"properties", Json::object()}};
  Json context = {{"add_generation_prompt", true}, {"bos_token", ""}, {"eos_token", ""}, {"tools", nullptr}};
  if (with_tools) {
    const Json function = {{"name", kProbeFunction}, {"description", "probe"}, {"parameters", parameters}};
    context["tools"] = Json::array({{{"type", "function"}, {"function", function}}});
  }
  Json messages = Json::array();
  messages.push_back({{"role", "user"}, {"content", user_content}});
  if (!arguments.is_null()) {
    const Json call = {{"id", "functions.probe_call:0"},
                       {"type", "function"},
                       {"function", {{"name", "probe_call"}, {"arguments", arguments}}}};
    messages.push_back({{"role", "assistant"}, {"content", call_content}, {"tool_calls", Json::array({call})}});
    messages.push_back({{"role", "tool"}, {"content", "42"}, {"tool_call_id", "functions.probe_call:0"}});
  }
  context["messages"] = std::move(messages);
  return context;
}

bool holds(const Expected<std::string>& text, std::string_view part) {
  return text && text->find(part) != std::string::npos;
}

}  // namespace

Expected<ChatTemplate> ChatTemplate::parse(std::string source) {
  auto parsed = jinja::parse_template(std::move(source));
  if (!parsed) return forward_error(std::move(parsed), "chat template");
  ChatTemplate chat_template(std::shared_ptr<const jinja::Template>(std::move(*parsed)));
  chat_template.probe_traits();
  return chat_template;
}

Expected<std::string> ChatTemplate::render(const Json& context, const Limits& limits,
                                           std::optional<std::time_t> now) const {
  const jinja::RenderSettings settings = {limits.max_output_bytes, limits.max_steps, limits.max_copied_bytes,
                                          now.value_or(std::time(nullptr))};
  auto text = jinja::render_template(*parsed_, context, settings);
  if (!text) return forward_error(std::move(text), "chat template");
  return text;
}

void ChatTemplate::probe_traits() {
  constexpr Limits kProbeLimits = {.max_output_bytes = 1 << 20, .max_steps = 100'000, .max_copied_bytes = 16 << 20};
  const auto probe = [&](const Json& user_content, const Json& call_content, const Json& arguments, bool with_tools) {
    return render(probe_context(user_content, call_content, arguments, with_tools), kProbeLimits);
  };
  constexpr std::string_view kArgumentsText = R"({"probe": 1})";
  const Json arguments_object = {{"probe", 1}};
  // A string that comes out quoted and escaped was piped through tojson: then the object is what is meant.
  traits_.arguments_as_object = !holds(probe("ask", "", kArgumentsText, false), kArgumentsText) &&
                                holds(probe("ask", "", arguments_object, false), "\"probe\"");
  const Json arguments = traits_.arguments_as_object ? arguments_object : Json(kArgumentsText);
  traits_.null_content_with_tool_calls = !holds(probe("ask", "", arguments, false), "probe_call") &&
                                         holds(probe("ask", nullptr, arguments, false), "probe_call");
  if (traits_.null_content_with_tool_calls) {
    traits_.arguments_as_object = !holds(probe("ask", nullptr, kArgumentsText, false), kArgumentsText) &&
                                  holds(probe("ask", nullptr, arguments_object, false), "\"probe\"");
  }
  // A list that is printed as a whole shows its keys.
  const auto parts = probe(Json::array({{{"type", "text"}, {"text", "probe_part"}}}), "", nullptr, false);
  traits_.content_parts = holds(parts, "probe_part") && !holds(parts, "'text'") && !holds(parts, "\"text\"");
  traits_.tools_in_prompt = holds(probe("ask", "", nullptr, true), kProbeFunction);
}

bool ChatTemplate::references(std::string_view variable) const { return parsed_->names.contains(variable); }
const std::string& ChatTemplate::source() const { return parsed_->source; }

}  // namespace hadal
