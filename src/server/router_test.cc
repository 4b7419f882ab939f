// What happens to a request before and after its route: root path, ids, CORS, keys, and its line in the access log.
#include "server/router.h"

#include <gtest/gtest.h>

#include "server/access_log.h"
#include "server/cors.h"
#include "server/server_test_support.h"

namespace hadal {
namespace {

std::string header_of(const HttpHeaders& headers, std::string_view name) {
  for (const auto& [key, value] : headers) {
    if (equals_ignoring_case(key, name)) return value;
  }
  return "";
}

TEST(Router, RootPath) {
  const struct {
    const char* root;
    const char* path;
    const char* expected;
  } kCases[] = {
      {"", "/v1/models", "/v1/models"},
      {"/x", "/x/v1/models", "/v1/models"},
      {"/x", "/v1/models", "/v1/models"},
      {"/x/", "/x/v1/models", "/v1/models"},
      {"/x", "/x", "/"},
      {"/x", "/xy/v1/models", "/xy/v1/models"},
      {"/x", "/x/x/v1", "/x/v1"},
      {"/a/b", "/a/b/health", "/health"},
      {"/a/b", "/a/health", "/a/health"},
      {"/", "/v1/models", "/v1/models"},
  };
  for (const auto& one : kCases) {
    ServerOptions options;
    options.root_path = one.root;
    HttpRequest request{.method = "GET", .path = one.path};
    prepare_request(options, request);
    EXPECT_EQ(request.path, one.expected) << one.root << " " << one.path;
  }
}

TEST(Router, KeysHoldBehindTheRootPathToo) {
  ServerOptions options;
  options.root_path = "/proxy";
  options.api_keys = {"k1", "k2"};
  options.metrics_need_key = true;
  const TestServer s("hi", options);
  const auto status = [&](const char* path, const char* header) {
    return http_call(s.port(), "GET", path, "", header).status;
  };
  for (const char* path : {"/v1/models", "/proxy/v1/models", "/metrics", "/proxy/metrics", "/metrics/", "/nothing"}) {
    EXPECT_EQ(status(path, ""), 401) << path;
  }
  for (const char* path : {"/health", "/proxy/health", "/health/live", "/health/ready", "/ping", "/version"}) {
    EXPECT_EQ(status(path, ""), 200) << path;
  }
  EXPECT_EQ(status("/proxy/v1/models", "Authorization: Bearer k2\r\n"), 200);
  EXPECT_EQ(status("/v1/models", "X-Api-Key: k1\r\n"), 200);
  EXPECT_EQ(status("/v1/models", "Authorization: Bearer wrong\r\nX-Api-Key: k2\r\n"), 200);
  EXPECT_EQ(status("/metrics", "X-Api-Key: k1\r\n"), 200);
  for (const char* bad : {"X-Api-Key: \r\n", "X-Api-Key: k\r\n", "X-Api-Key: Bearer k1\r\n", "Authorization: k1\r\n"}) {
    EXPECT_EQ(status("/v1/models", bad), 401) << bad;
  }
}

TEST(Router, RequestIds) {
  HttpRequest given{.method = "GET", .path = "/", .headers = {{"x-request-id", "abc"}}};
  EXPECT_EQ(header_of(prepare_request({}, given), "X-Request-Id"), "abc");
  EXPECT_EQ(request_id(given), "abc");
  for (const std::string& bad : {std::string(), std::string("a b"), std::string("a\x80"), std::string(300, 'a')}) {
    HttpRequest request{.method = "GET", .path = "/", .headers = {{"X-Request-Id", bad}, {kMadeRequestId, "forged"}}};
    const std::string made = header_of(prepare_request({}, request), "X-Request-Id");
    EXPECT_EQ(made.size(), 32u);
    EXPECT_EQ(request_id(request), made);
  }
}

HttpHeaders cors(const CorsOptions& options, const char* method, HttpHeaders headers) {
  return cors_headers(options, {.method = method, .path = "/", .headers = std::move(headers)});
}

TEST(Cors, AnyOrigin) {
  EXPECT_TRUE(cors({}, "GET", {}).empty());
  const HttpHeaders simple = cors({}, "GET", {{"Origin", "http://a"}});
  EXPECT_EQ(header_of(simple, "Access-Control-Allow-Origin"), "*");
  EXPECT_EQ(header_of(simple, "Access-Control-Expose-Headers"), "X-Request-Id");
  const HttpHeaders preflight =
      cors({}, "OPTIONS", {{"Origin", "http://a"}, {"Access-Control-Request-Headers", "authorization, x-api-key"}});
  EXPECT_EQ(header_of(preflight, "Access-Control-Allow-Headers"), "authorization, x-api-key");
  EXPECT_NE(header_of(preflight, "Access-Control-Allow-Methods").find("POST"), std::string::npos);
  EXPECT_EQ(header_of(preflight, "Access-Control-Allow-Credentials"), "");
}

TEST(Cors, ListsAndCredentials) {
  const CorsOptions listed{.allowed_origins = {"http://a", "http://b"},
                           .allowed_methods = {"GET", "POST"},
                           .allowed_headers = {"authorization"}};
  EXPECT_TRUE(cors(listed, "OPTIONS", {{"Origin", "http://c"}}).empty());
  const HttpHeaders preflight =
      cors(listed, "OPTIONS", {{"Origin", "http://b"}, {"Access-Control-Request-Headers", "x-other"}});
  EXPECT_EQ(header_of(preflight, "Access-Control-Allow-Origin"), "http://b");
  EXPECT_EQ(header_of(preflight, "Vary"), "Origin");
  EXPECT_EQ(header_of(preflight, "Access-Control-Allow-Methods"), "GET, POST");
  EXPECT_EQ(header_of(preflight, "Access-Control-Allow-Headers"), "authorization");
  const HttpHeaders credentials = cors({.allow_credentials = true}, "GET", {{"Origin", "http://a"}});
  EXPECT_EQ(header_of(credentials, "Access-Control-Allow-Origin"), "http://a");  // browsers refuse "*" here
  EXPECT_EQ(header_of(credentials, "Access-Control-Allow-Credentials"), "true");
  EXPECT_EQ(header_of(credentials, "Vary"), "Origin");
}

TEST(AccessLog, LineAndFields) {
  const HttpRequest request{.method = "POST", .path = "/v1/completions", .body = "1234", .client = "127.0.0.1:5000"};
  const HttpAccess access{
      .request = request, .status = 200, .request_id = "abc", .num_response_bytes = 10, .duration_s = 0.0123};
  EXPECT_EQ(access_line(access), R"(127.0.0.1:5000 - "POST /v1/completions HTTP/1.1" 200 OK 12.3 ms id=abc)");
  std::vector<std::string> names;
  for (const LogField& field : access_fields(access)) names.push_back(field.name);
  EXPECT_EQ(names, (std::vector<std::string>{"client", "method", "path", "status", "duration_ms", "request_bytes",
                                             "response_bytes", "cut_short", "request_id"}));
}

TEST(AccessLog, ForeignBytesDoNotReachTheTerminal) {
  const HttpRequest request{.method = "GET", .path = "/\x1b[2J\x9b\" \xff" + std::string(1000, 'a')};
  const std::string line = access_line({.request = request, .status = 404});
  EXPECT_NE(line.find(R"("GET /%1B[2J%9B%22%20%FFaaa)"), std::string::npos) << line;
  EXPECT_LT(line.size(), 400u);
}

}  // namespace
}  // namespace hadal
