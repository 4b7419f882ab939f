#include "net/sse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hadal {
namespace {

using ::testing::HasSubstr;

// "type:data|" for each event.
std::string events_of(std::string_view bytes, size_t step) {
  SseParser parser;
  std::string out;
  for (size_t at = 0; at < bytes.size(); at += step) {
    EXPECT_TRUE(parser.push(bytes.substr(at, step)));
    while (const auto event = parser.next()) out += event->type + ":" + event->data + "|";
  }
  return out;
}

TEST(SseParser, EventsAreTheSameHoweverTheBytesAreCut) {
  const std::pair<const char*, const char*> cases[] = {
      {"data: {\"a\":1}\n\ndata: [DONE]\n\n", ":{\"a\":1}|:[DONE]|"},
      {"data: a\r\n\r\ndata: b\r\n\r\n", ":a|:b|"},
      {"data: a\r\rdata: b\r\r", ":a|:b|"},
      {"data: a\rdata: b\n\r\n", ":a\nb|"},
      {": comment\n\ndata:a\ndata: b\ndata:  c\n\n", ":a\nb\n c|"},
      {"\xEF\xBB\xBF"
       "data: a\n\n",
       ":a|"},
      {"data\n\ndata\ndata\n\n", ":|:\n|"},
      {"event: error\ndata: x\nid: 7\nretry: 10\n\ndata: y\n\n", "error:x|:y|"},
      {"event: alone\n\ndata: y\n\n", ":y|"},
      {"data: a:b: c\ndatum: no\n\n", ":a:b: c|"},
      {"data: never ended", ""},
      {"data: no empty line\n", ""},
      {"\n\n\n", ""},
      {"data: \xE4\xBD\xA0\xE5\xA5\xBD\n\n", ":\xE4\xBD\xA0\xE5\xA5\xBD|"},
  };
  for (const auto& [bytes, expected] : cases) {
    for (const size_t step : {1, 2, 3, 5, 1000}) EXPECT_EQ(events_of(bytes, step), expected) << bytes << step;
  }
}

TEST(SseParser, LinesAndEventsAreBounded) {
  SseParser lines(8);
  EXPECT_TRUE(lines.push("data: ab"));
  EXPECT_THAT(lines.push("c").error().message, HasSubstr("a line of an event stream has more than 8 bytes"));
  SseParser events(8);
  EXPECT_TRUE(events.push("data:abc\ndata:def\n"));
  EXPECT_EQ(events.push("data:g\n").error().code, ErrorCode::kResourceExhausted);
}

}  // namespace
}  // namespace hadal
