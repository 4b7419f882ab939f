#include "server/chat_events.h"

#include <random>

#include "server/required_calls.h"
#include "text/argument_filter.h"
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

// Calls that a ToolParser or a RequiredCallReader finds in the text.
template <typename Reader>
class FoundCalls : public ContentReader {
 public:
  FoundCalls(const ChatTextOptions& options, Reader reader) : ContentReader(options), reader_(std::move(reader)) {}
  void push(std::string_view text, std::vector<ChatEvent>* events) override { translate(reader_.push(text), events); }
  void flush(std::vector<ChatEvent>* events) override { translate(reader_.flush(), events); }

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

  Reader reader_;
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

// Of the calls to be parsed; null: they stay text.
ApiExpected<const ToolFormat*> parsed_format(const ChatTextOptions& options) {
  if (options.calls != ChatTextOptions::Calls::kParsed || options.tool_parser.empty()) return nullptr;
  const auto format = choose_tool_format(options.tool_parser, nullptr, {});
  if (!format) return tl::unexpected(to_api_error(format.error()));
  return *format;
}

std::unique_ptr<ContentReader> make_content_reader(const ChatTextOptions& options, const ToolFormat* format) {
  switch (options.calls) {
    case ChatTextOptions::Calls::kNone:
      break;
    case ChatTextOptions::Calls::kParsed:
      if (format == nullptr) break;
      return std::make_unique<FoundCalls<ToolParser>>(options, ToolParser(*format, options.tool_names));
    case ChatTextOptions::Calls::kNamed:
      return std::make_unique<NamedCall>(options);
    case ChatTextOptions::Calls::kRequired:
      return std::make_unique<FoundCalls<RequiredCallReader>>(options, RequiredCallReader());
  }
  return std::make_unique<PlainContent>(options);
}

}  // namespace

ApiExpected<ReasoningOptions> reasoning_options(const ChatTextOptions& options, const ToolFormat* format) {
  const auto mode = reasoning_mode(options.reasoning_parser, options.thinking);
  if (!mode) return tl::unexpected(to_api_error(mode.error()));
  ReasoningOptions reasoning{.mode = *mode, .ending_markers = {}};
  if (options.calls == ChatTextOptions::Calls::kParsed && format != nullptr) {
    reasoning.ending_markers = {std::string(format->section_begin), std::string(format->call_begin)};
  }
  return reasoning;
}

ApiExpected<std::unique_ptr<ChatTextSplitter>> ChatTextSplitter::make(const ChatTextOptions& options,
                                                                      std::string_view prompt_tail) {
  const auto format = parsed_format(options);
  if (!format) return tl::unexpected(format.error());
  auto reasoning = reasoning_options(options, *format);
  if (!reasoning) return tl::unexpected(reasoning.error());
  return std::make_unique<Splitter>(ReasoningParser(prompt_tail, std::move(*reasoning)),
                                    make_content_reader(options, *format));
}

}  // namespace hadal
