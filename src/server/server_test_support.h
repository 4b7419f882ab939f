// The whole server for its tests: over a scripted engine and a tokenizer of single bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/fake_engine.h"
#include "server/server.h"
#include "server/test_client.h"

namespace hadal {

std::shared_ptr<const Tokenizer> test_tokenizer();     // kTestVocabSize ids
std::vector<int32_t> test_ids(std::string_view text);  // one id per byte, markers included

ServerOptions with_tool_parser(const std::string& name);

// A server over a FakeEngine.
class TestServer {
 public:
  explicit TestServer(FakeEngine::Script script, ServerOptions options = {}, bool attach = true);
  explicit TestServer(const std::string& answer, ServerOptions options = {});
  ~TestServer();
  void attach();

  uint16_t port() const { return server->port(); }
  HttpReply get(std::string_view path) const { return http_call(port(), "GET", path); }
  HttpReply post(std::string_view path, std::string_view body, std::string_view headers = "") const {
    return http_call(port(), "POST", path, body, headers);
  }
  // Value of a metric's line, NaN when absent.
  double metric(const std::string& name_and_labels) const;

  std::unique_ptr<Server> server;
  std::shared_ptr<FakeEngine> engine;
  int64_t max_model_len = 512;
  SamplingDefaults defaults;
};

// The strings at this JSON pointer of all events, one after the other.
std::string joined(const std::vector<std::string>& events, const std::string& pointer);

// The data of server-sent events with names, after checking that each event is its name, its data, whose type is the
// name, and a blank line.
std::vector<Json> named_events(const HttpReply& reply);

// Checks the error shape; `fragment` must be in the message.
void expect_error(const HttpReply& reply, int status, const std::string& fragment);

// Polls until true, at most 30 s.
bool eventually(const std::function<bool()>& condition);

}  // namespace hadal
