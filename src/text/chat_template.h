// Chat templates: the Jinja subset that the model folders use, rendered as Python transformers does (sandboxed,
// trim_blocks, lstrip_blocks, no autoescape, `tojson` without ASCII escaping). Judged by renders of Jinja2 3.1.6.
// What the subset lacks is refused by name when the template is parsed, not when a request comes.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/status.h"

namespace hadal {

namespace jinja {
struct Template;
}

// Immutable, thread-safe, cheap to copy.
class ChatTemplate {
 public:
  // Errors: kInvalidArgument "chat template line 3: expected ..." for broken or unsupported syntax.
  static Expected<ChatTemplate> parse(std::string source);

  // Bounds against templates that never end or explode.
  struct Limits {
    size_t max_output_bytes = size_t{64} << 20;
    int64_t max_steps = 10'000'000;               // expressions evaluated, loop rounds, values visited
    int64_t max_copied_bytes = int64_t{1} << 30;  // by all string operations together
  };
  // `context` is an object: messages, tools (null when absent), add_generation_prompt, bos_token, eos_token, and the
  // keys of chat_template_kwargs (see template_context). `now` feeds strftime_now; the current time when absent.
  // Errors: kInvalidArgument (HTTP 400) with the line and the template's own text (raise_exception, undefined values,
  // type errors), kResourceExhausted beyond the limits.
  Expected<std::string> render(const Json& context, const Limits& limits, std::optional<std::time_t> now = {}) const;
  Expected<std::string> render(const Json& context) const { return render(context, Limits{}); }

  // What the template expects of messages, found by rendering small probe conversations.
  struct Traits {
    // tool_calls[].function.arguments: object (the template applies tojson), else the JSON text as a string, also where
    // the template takes either: so history repeats the model's own spelling.
    bool arguments_as_object = false;
    // content may be a list of parts; else it must be a string.
    bool content_parts = false;
    // content of an assistant message with tool calls must stay null (V3 drops the calls otherwise); else "" is right.
    bool null_content_with_tool_calls = false;
    // The tools argument appears in the prompt.
    bool tools_in_prompt = false;
  };
  const Traits& traits() const { return traits_; }
  bool arguments_as_object() const { return traits_.arguments_as_object; }

  // True if the template reads this variable ("thinking", "enable_thinking", "tools").
  bool references(std::string_view variable) const;

  const std::string& source() const;

 private:
  explicit ChatTemplate(std::shared_ptr<const jinja::Template> parsed) : parsed_(std::move(parsed)) {}
  void probe_traits();

  std::shared_ptr<const jinja::Template> parsed_;
  Traits traits_;
};

// OpenAI messages in the form the template needs: null keys and empty tool_calls dropped; content null or absent -> ""
// (see Traits); lists of text parts -> their texts joined by "\n"; tool calls get "type": "function"; arguments string
// <-> object per Traits, empty or absent ones -> {}. Other keys pass unchanged, in order.
// Errors: kInvalidArgument naming the message index: not an object, no role, a part that is not text, arguments that
// are no JSON where an object is needed.
Expected<Json> normalize_messages(const Json& messages, const ChatTemplate& chat_template);

struct TemplateInput {
  Json messages;  // normalised
  Json tools;     // OpenAI tools array, or null
  bool add_generation_prompt = true;
  std::string bos_token;
  std::string eos_token;
  Json kwargs;  // chat_template_kwargs: object or null
};
// The render context. `enable_thinking` stands in for an absent `thinking` where only the latter is read, and the
// other way round. Errors: kInvalidArgument when kwargs is no object or sets a reserved name (messages, tools, ...).
Expected<Json> template_context(const TemplateInput& input, const ChatTemplate& chat_template);

}  // namespace hadal
