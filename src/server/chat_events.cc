#include "server/chat_events.h"

#include <random>

#include "server/required_calls.h"
#include "text/argument_filter.h"
#include "text/reasoning_parser.h"
#include "text/tool_parser.h"

namespace hadal {
namespace {

using Kind = ChatEvent::Kind;

std::string random_call_id() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("chatcmpl-tool-{:016x}{:016x}", random(), random());
}

// What follows the reasoning: text, or calls in one of their forms. Events of one kind are not joined here.
class ContentReader {
 public:
  explicit ContentReader(const ChatTextOptions& options) : options_(options) {}
  virtual ~ContentReader() = default;
  virtual void push(std::string_view text, std::vector<ChatEvent>* events) = 0;
  virtual void flush(std::vector<ChatEvent>* events) = 0;
  int32_t num_calls() const { return num_calls_; }

 protected:
  // `id`: as the model wrote it; "": made.
  void begin_call(std::string name, std::string id, std::vector<ChatEvent>* events) {
    const int32_t index = num_calls_++;
    if (drops_call()) return;
    if (id.empty()) id = make_id(name, index);
    events->push_back({Kind::kCallBegin, {}, index, std::move(id), std::move(name)});
  }
  // Of the call begun last.
  void add_to_call(Kind kind, std::string text, std::vector<ChatEvent>* events) {
    if (!drops_call()) events->push_back({kind, std::move(text), num_calls_ - 1, {}, {}});
  }
  static void add_content(std::string text, std::vector<ChatEvent>* events) {
    if (!text.empty()) events->push_back({Kind::kContent, std::move(text), -1, {}, {}});
  }

 private:
  bool drops_call() const { return options_.single_call && num_calls_ > 1; }
  std::string make_id(const std::string& name, int32_t index) const {
    const ToolFormat* format = find_tool_format(options_.tool_parser);
    if (format == nullptr || !format->numbered_names) return random_call_id();
    return fmt::format("{}{}:{}", format->name_prefix, name, options_.first_call_number + index);
  }

  const ChatTextOptions options_;
  int32_t num_calls_ = 0;
};

class PlainContent : public ContentReader {
 public:
  using ContentReader::ContentReader;
  void push(std::string_view text, std::vector<ChatEvent>* events) override { add_content(std::string(text), events); }
  void flush(std::vector<ChatEvent>*) override {}
};

class ParsedCalls : public ContentReader {
 public:
  ParsedCalls(const ChatTextOptions& options, const ToolFormat& format)
      : ContentReader(options), parser_(format, options.tool_names) {}
  void push(std::string_view text, std::vector<ChatEvent>* events) override { translate(parser_.push(text), events); }
  void flush(std::vector<ChatEvent>* events) override { translate(parser_.flush(), events); }

 private:
  void translate(std::vector<ToolEvent>&& from, std::vector<ChatEvent>* events) {
    for (ToolEvent& event : from) {
      switch (event.kind) {
        case ToolEvent::Kind::kText:
          add_content(std::move(event.text), events);
          break;
        case ToolEvent::Kind::kCallBegin:
          begin_call(std::move(event.name), std::move(event.id), events);
          break;
        case ToolEvent::Kind::kArguments:
          add_to_call(Kind::kCallArguments, std::move(event.text), events);
          break;
        case ToolEvent::Kind::kCallEnd:
          add_to_call(Kind::kCallEnd, {}, events);
          break;
        case ToolEvent::Kind::kCallBroken:
          add_to_call(Kind::kCallBroken, std::move(event.text), events);
          break;
      }
    }
  }

  ToolParser parser_;
};

// The content is the arguments of one call. A grammar sees to that; without an answer there is no call.
class NamedCall : public ContentReader {
 public:
  explicit NamedCall(const ChatTextOptions& options) : ContentReader(options), name_(options.named_tool) {}
  void push(std::string_view text, std::vector<ChatEvent>* events) override {
    raw_ += text;
    add(filter_.push(text), events);
  }
  void flush(std::vector<ChatEvent>* events) override {
    add(filter_.finish(), events);
    if (num_calls() == 0) return;
    const bool is_whole = Json::accept(arguments_);
    add_to_call(is_whole ? Kind::kCallEnd : Kind::kCallBroken, is_whole ? "" : raw_, events);
  }

 private:
  void add(std::string text, std::vector<ChatEvent>* events) {
    if (text.empty()) return;
    if (num_calls() == 0) begin_call(name_, {}, events);
    arguments_ += text;
    add_to_call(Kind::kCallArguments, std::move(text), events);
  }

  const std::string name_;
  ArgumentFilter filter_{false};
  std::string raw_;
  std::string arguments_;
};

class RequiredCalls : public ContentReader {
 public:
  using ContentReader::ContentReader;
  void push(std::string_view text, std::vector<ChatEvent>* events) override { translate(reader_.push(text), events); }
  void flush(std::vector<ChatEvent>* events) override { translate(reader_.flush(), events); }

 private:
  void translate(std::vector<RequiredCallEvent>&& from, std::vector<ChatEvent>* events) {
    for (RequiredCallEvent& event : from) {
      switch (event.kind) {
        case RequiredCallEvent::Kind::kText:
          add_content(std::move(event.text), events);
          break;
        case RequiredCallEvent::Kind::kCallBegin:
          begin_call(std::move(event.text), {}, events);
          break;
        case RequiredCallEvent::Kind::kArguments:
          add_to_call(Kind::kCallArguments, std::move(event.text), events);
          break;
        case RequiredCallEvent::Kind::kCallEnd:
          add_to_call(Kind::kCallEnd, {}, events);
          break;
        case RequiredCallEvent::Kind::kCallBroken:
          add_to_call(Kind::kCallBroken, std::move(event.text), events);
          break;
      }
    }
  }

  RequiredCallReader reader_;
};

class Splitter : public ChatTextSplitter {
 public:
  Splitter(ReasoningParser reasoning, std::unique_ptr<ContentReader> content)
      : reasoning_(std::move(reasoning)), content_(std::move(content)) {}

  std::vector<ChatEvent> push(std::string_view text) override { return split(reasoning_.push(text)); }
  std::vector<ChatEvent> flush() override {
    std::vector<ChatEvent> events = split(reasoning_.flush());
    content_->flush(&events);
    return events;
  }
  bool in_reasoning() const override { return reasoning_.in_reasoning(); }
  bool saw_reasoning() const override { return reasoning_.saw_reasoning(); }
  int32_t num_calls() const override { return content_->num_calls(); }

 private:
  std::vector<ChatEvent> split(ReasoningDelta delta) {
    std::vector<ChatEvent> events;
    if (!delta.reasoning.empty()) events.push_back({Kind::kReasoning, std::move(delta.reasoning), -1, {}, {}});
    if (!delta.content.empty()) content_->push(delta.content, &events);
    return events;
  }

  ReasoningParser reasoning_;
  std::unique_ptr<ContentReader> content_;
};

}  // namespace

ApiExpected<std::unique_ptr<ChatTextSplitter>> ChatTextSplitter::make(const ChatTextOptions& options,
                                                                      std::string_view prompt_tail) {
  const auto mode = reasoning_mode(options.reasoning_parser, options.thinking);
  if (!mode) return tl::unexpected(to_api_error(mode.error()));
  ReasoningOptions reasoning{.mode = *mode, .ending_markers = {}};
  std::unique_ptr<ContentReader> content;
  switch (options.calls) {
    case ChatTextOptions::Calls::kNone:
      content = std::make_unique<PlainContent>(options);
      break;
    case ChatTextOptions::Calls::kParsed: {
      const auto format = choose_tool_format(options.tool_parser.empty() ? "none" : options.tool_parser, nullptr, {});
      if (!format) return tl::unexpected(to_api_error(format.error()));
      if (*format == nullptr) {
        content = std::make_unique<PlainContent>(options);
        break;
      }
      reasoning.ending_markers = {std::string((*format)->section_begin), std::string((*format)->call_begin)};
      content = std::make_unique<ParsedCalls>(options, **format);
      break;
    }
    case ChatTextOptions::Calls::kNamed:
      content = std::make_unique<NamedCall>(options);
      break;
    case ChatTextOptions::Calls::kRequired:
      content = std::make_unique<RequiredCalls>(options);
      break;
  }
  return std::make_unique<Splitter>(ReasoningParser(prompt_tail, std::move(reasoning)), std::move(content));
}

}  // namespace hadal
