// The chat page as HTTP sees it; what it does is tested in a browser (tests/e2e/web_chat_test.py).
#include "server/web_routes.h"

#include <gtest/gtest.h>

#include "server/server_test_support.h"

namespace hadal {
namespace {

size_t count(std::string_view text, std::string_view part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(WebChat, IsOnePageUnderAStrictPolicy) {
  const TestServer s("x");
  const HttpReply page = s.get("/");
  ASSERT_EQ(page.status, 200);
  EXPECT_EQ(page.body, kWebChatPage);
  EXPECT_EQ(page.header("content-type"), "text/html; charset=utf-8");
  EXPECT_EQ(page.header("content-security-policy"), kWebChatPolicy);
  EXPECT_EQ(page.header("x-content-type-options"), "nosniff");
  EXPECT_EQ(page.header("referrer-policy"), "no-referrer");
  EXPECT_EQ(kWebChatPolicy.find("unsafe"), std::string_view::npos);
  EXPECT_EQ(count(kWebChatPolicy, "'sha256-"), 2u);
  // All parts are in, once, and nothing of the template is left.
  EXPECT_EQ(count(page.body, "<script>"), 1u);
  EXPECT_EQ(count(page.body, "<style>"), 1u);
  EXPECT_EQ(page.body.find("@CHAT_"), std::string::npos);
  EXPECT_TRUE(page.body.ends_with("</html>\n"));
  for (const char* part : {"kWords", "async function* events", "localStorage", "splitBlocks", "class AnswerView",
                           "setUpSettings", "setUpPage();"}) {
    EXPECT_NE(page.body.find(part), std::string::npos) << part;
  }
}

TEST(WebChat, NeedsNoKeyAndNoModel) {
  ServerOptions options;
  options.api_keys = {"sesame"};
  const TestServer loading([](const Request&) { return std::vector<int32_t>(); }, options, /*attach=*/false);
  EXPECT_EQ(loading.get("/").status, 200);
  EXPECT_EQ(loading.get("/v1/models").status, 401);
}

TEST(WebChat, AnswersBelowTheRootPath) {
  ServerOptions options;
  options.root_path = "/x";
  const TestServer s("x", options);
  EXPECT_EQ(s.get("/x").body, kWebChatPage);
  EXPECT_EQ(s.get("/x/").body, kWebChatPage);
}

TEST(WebChat, CanBeSwitchedOff) {
  ServerOptions options;
  options.enable_web_chat = false;
  const TestServer s("x", options);
  expect_error(s.get("/"), 404, "Not Found");
}

}  // namespace
}  // namespace hadal
