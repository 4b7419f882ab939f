// Doubles and clients for the server's tests: a tokenizer of single bytes, an engine with scripted answers, and a
// blocking HTTP client that shows every byte.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "server/server.h"

struct sockaddr;

namespace hadal {

// Ids 0..255 are the bytes; then these.
inline constexpr int32_t kTestBos = 256;
inline constexpr int32_t kTestEos = 257;
inline constexpr int32_t kTestThink = 258;     // "<think>", not special
inline constexpr int32_t kTestEndThink = 259;  // "</think>", not special
inline constexpr int32_t kTestVocabSize = 260;
std::shared_ptr<const Tokenizer> test_tokenizer();
std::vector<int32_t> test_ids(std::string_view text);  // one id per byte, markers included

// Answers each request with its script, one token per step, then EOS; obeys max_tokens, stop_token_ids and the
// constraint (a forbidden token is replaced by the lowest allowed one, blanks last). The k-th
// token has logprob -(k + 1) / 8, alternatives are the next ids at one less each.
class FakeEngine : public Engine {
 public:
  using Script = std::function<std::vector<int32_t>(const Request&)>;
  explicit FakeEngine(Script script, StepObserver observer = {});
  ~FakeEngine() override;

  Status submit(Request request, OutputSink sink) override;
  void abort(const std::string& request_id) override;
  EngineStats stats() const override;
  bool healthy() const override { return healthy_; }
  void reset_prefix_cache() override {}
  void stop() override;

  // No step happens between hold() and release(), but those asked for.
  void hold();
  void release();
  void step(int num_steps = 1);
  void set_healthy(bool healthy) { healthy_ = healthy; }
  void set_max_running(size_t max) { max_running_ = max; }
  void set_tokens_per_step(int num) { tokens_per_step_ = num; }
  void fail_next_step(std::string error);

  bool wait_running(size_t num) const;  // within 30 s
  size_t num_aborted() const;
  std::vector<Request> seen() const;

 private:
  struct Running {
    Request request;
    OutputSink sink;
    std::vector<int32_t> answer;
    size_t num_made = 0;
    bool aborted = false;
  };
  void loop();
  void run_step(std::unique_lock<std::mutex>& lock);
  RequestOutput advance(Running* running, StepRecord* record) const;

  const Script script_;
  const StepObserver observer_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::vector<std::shared_ptr<Running>> running_;
  std::vector<Request> seen_;
  size_t num_aborted_ = 0;
  EngineStats totals_;  // tokens only
  size_t max_running_ = 1024;
  int tokens_per_step_ = 1;
  bool held_ = false;
  int steps_allowed_ = 0;
  bool stopping_ = false;
  std::atomic<bool> healthy_{true};
  std::string error_;
  std::thread thread_;
};

struct HttpReply {
  int status = 0;                                   // 0: the connection ended before a status line
  std::multimap<std::string, std::string> headers;  // names in lower case
  std::string body;                                 // chunks joined
  std::string header(const std::string& name) const;
  Json json() const;
  // The data of server-sent events; any line that is neither empty nor "data: ..." is reported as "BAD <line>".
  std::vector<std::string> events() const;
};

class TestClient {
 public:
  explicit TestClient(uint16_t port);
  explicit TestClient(const std::string& unix_socket);
  ~TestClient();
  void send(std::string_view bytes);
  bool try_send(std::string_view bytes);  // false once the peer refuses more
  HttpReply read_reply(bool head = false);
  std::string read_some();  // "" at the end of the connection or after 120 s
  std::string read_all();
  bool closed_by_peer();  // true when the connection ends within 120 s without another byte
  void half_close();
  void close();
  void set_receive_buffer(int num_bytes);

 private:
  void open(const sockaddr* address, size_t size);
  bool fill();
  int fd_ = -1;
  std::string buffer_;
};

std::string http_request(std::string_view method, std::string_view path, std::string_view body = "",
                         std::string_view extra_headers = "");
HttpReply http_call(uint16_t port, std::string_view method, std::string_view path, std::string_view body = "",
                    std::string_view extra_headers = "");

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

// Checks the error shape; `fragment` must be in the message.
void expect_error(const HttpReply& reply, int status, const std::string& fragment);

// Polls until true, at most 30 s.
bool eventually(const std::function<bool()>& condition);

}  // namespace hadal
