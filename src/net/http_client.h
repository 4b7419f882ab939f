// An HTTP/1.1 client: plain, TLS, unix socket; whole answers and streams. One request, one connection, every length and
// every wait bounded. Redirects are not followed: any status is an answer.
//
// Threads: a client has one IO thread, which moves the bytes of all its calls (thousands at once) and runs their
// callbacks. Every method may be called from any thread, except that the blocking ones must not be called from a
// callback.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "net/http_reply.h"
#include "net/url.h"

namespace hadal {

struct HttpCall {
  std::string method = "GET";
  std::string url;      // see url.h
  std::string body;     // JSON unless `headers` say otherwise; sent when not empty
  std::string api_key;  // "Authorization: Bearer <key>" when not empty
  // Further headers. One that this client sets itself (Authorization, Content-Type, Accept, ..) replaces that.
  std::vector<std::pair<std::string, std::string>> headers;
};

// Zero: no such limit, for the three times.
struct HttpCallLimits {
  std::chrono::milliseconds timeout{10'000};          // of the whole call
  std::chrono::milliseconds connect_timeout{10'000};  // until connected, name look-up and TLS included
  std::chrono::milliseconds idle_timeout{0};          // between two pieces of the answer, and before the first
  size_t max_bytes = size_t{16} << 20;                // of the answer's body
};

struct HttpClientOptions {
  std::string ca_file;     // certificates (PEM) to trust for https instead of the system's
  bool verify_tls = true;  // false: any certificate will do
};

using HttpTime = std::chrono::steady_clock::time_point;  // of the read that brought the bytes

// What one call is told, on the IO thread; must not block. Any of them may be empty. on_end runs exactly once, as the
// last. Errors that it gets begin with the URL: kUnavailable (nobody listens, out of time, the connection broke),
// kCancelled, and what HttpReplyParser says.
struct HttpCallbacks {
  std::function<void(const HttpReply& head, HttpTime when)> on_head;  // status and headers, no body yet
  std::function<void(std::string_view bytes, HttpTime when)> on_body;
  std::function<void(Status end, HttpTime when)> on_end;
};

// An answer that one thread reads piece by piece as it comes. Single-owner, except cancel(). Its client may be
// destroyed first; then it ends as cancelled.
class HttpStream {
 public:
  ~HttpStream();  // cancels
  HttpStream(const HttpStream&) = delete;
  HttpStream& operator=(const HttpStream&) = delete;

  struct Piece {
    std::string bytes;  // of the body, as it arrived; never empty
    HttpTime when;
  };

  // Blocks until the head is there; its body is empty. Errors: as HttpCallbacks::on_end.
  Expected<HttpReply> head();
  // Blocks until there is a piece; nothing at the end of the body. Errors: as HttpCallbacks::on_end.
  Expected<std::optional<Piece>> next();
  // What is left of the body; for the body of an error status.
  Expected<std::string> rest();
  // Thread-safe, idempotent: the connection closes, and whoever waits gets kCancelled.
  void cancel();

 private:
  friend class HttpClient;
  struct State;
  explicit HttpStream(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

class HttpClient {
 public:
  // Errors of the TLS options come from the first https call: kInvalidArgument.
  explicit HttpClient(HttpClientOptions options = {});
  ~HttpClient();  // cancels what still runs (its on_end runs before this returns)
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Blocks until the answer is whole. Errors name the URL: kInvalidArgument (URL, header or method that cannot be
  // sent); as HttpCallbacks::on_end.
  Expected<HttpReply> call(const HttpCall& call, const HttpCallLimits& limits = {});

  // Begins a call and returns at once. Errors: kInvalidArgument as call(); then no callback runs.
  Expected<std::unique_ptr<HttpStream>> open(const HttpCall& call, const HttpCallLimits& limits = {});
  Expected<uint64_t> start(const HttpCall& call, const HttpCallLimits& limits, HttpCallbacks callbacks);
  // Of start(): ends the call with kCancelled, unless it has ended.
  void cancel(uint64_t id);

  // Runs `task` on the IO thread, now or after `delay`: for programs whose callbacks share state without locks. Tasks
  // that still wait when the client is destroyed are dropped.
  void post(std::function<void()> task, std::chrono::nanoseconds delay = {});

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// One call with a client of its own, options at their defaults.
Expected<HttpReply> http_call(const HttpCall& call, const HttpCallLimits& limits = {});

// The body of a 200 answer to a GET. Errors: as http_call(); kNotFound for another status.
Expected<std::string> http_get(const std::string& url, const HttpCallLimits& limits = {});

}  // namespace hadal
