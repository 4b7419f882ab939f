// A small HTTP/1.1 server: sockets, TLS, framing, limits, timeouts, disconnects, draining. Knows no routes and no JSON
// beyond the error bodies that it is given a function for.
//
// Threads: each connection belongs to one of a few IO threads; its handler, callbacks and posted tasks run there and
// must not block. Every method below may be called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "server/http_message.h"
#include "server/tls.h"

namespace hadal {

// For clients behind proxies that cut silent connections.
struct StreamKeepAlive {
  std::chrono::milliseconds interval{0};  // of silence
  HttpResponse head;                      // begins the stream when that has not happened yet
  std::string filler;                     // a piece of the body that means nothing
  // A whole answer that comes when the stream has begun: the pieces to send instead.
  std::function<std::string(const HttpResponse&)> late_answer;
};

// One request and the way to answer it: respond() once, or start_stream(), write()..., finish(). Calls after the end of
// the answer or of the connection do nothing. Held by whoever is going to answer; may outlive the server.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;

  virtual const HttpRequest& request() const = 0;

  // The whole answer. For HEAD the body is dropped and its length is kept.
  virtual void respond(HttpResponse response) = 0;

  // Sends the header now and the body in pieces, chunked (HTTP/1.0: until close). `head.body` is not used.
  virtual void start_stream(HttpResponse head) = 0;
  virtual void write(std::string bytes) = 0;
  virtual void finish() = 0;

  // Runs `callback` once, on the IO thread, when the client is gone before the end of the answer (closed or half-closed
  // its side, reset, reads too slowly, or the server is stopped), at once if that has happened. It is dropped, with all
  // it holds, at the end of the answer.
  virtual void on_disconnect(std::function<void()> callback) = 0;
  virtual bool disconnected() const = 0;

  // Runs `callback` once, on the IO thread, when the answer has not ended at `when` (up to 0.1 s late). It is dropped,
  // with all it holds, at the end of the answer. A second call replaces the first one.
  virtual void set_deadline(std::chrono::steady_clock::time_point when, std::function<void()> callback) = 0;

  // From now on the answer is a stream which is never silent for longer than the interval (and 0.1 s).
  virtual void keep_alive(StreamKeepAlive keep_alive) = 0;

  // Runs `task` on the IO thread of this connection after the tasks posted before it, also when the client is gone.
  // Once the server is destroyed tasks are dropped.
  virtual void post(std::function<void()> task) = 0;
};

using HttpHandler = std::function<void(std::shared_ptr<HttpExchange>)>;

// What an access log and HTTP metrics need. `status` is 499 when the client left before the answer began.
struct HttpAccess {
  const HttpRequest& request;
  int status = 0;
  bool cut_short = false;           // the client left before the end
  std::string_view request_id;      // X-Request-Id of the answer; "" without one
  uint64_t num_response_bytes = 0;  // body
  double duration_s = 0;            // from arrival to the end of the answer
};

struct HttpServerOptions {
  std::string host = "0.0.0.0";  // address or name to listen on
  uint16_t port = 8000;          // 0: the system chooses
  std::string unix_socket;       // path: listens there instead
  TlsOptions tls;
  int num_io_threads = 2;
  HttpLimits limits;
  // Called for every well-formed request.
  HttpHandler handler;
  // Before the handler: may change the request, and returns headers for its answer, whatever that will be. A header
  // that the answer sets itself wins. May be empty.
  std::function<HttpHeaders(HttpRequest&)> prepare;
  // Answers for requests that never reach the handler (malformed, too large, too many connections).
  std::function<HttpResponse(int status, const std::string& message)> error_response;
  std::function<void(const HttpAccess&)> on_access;  // may be empty
  std::function<void()> on_tick;                     // about every 0.1 s, on an IO thread; must not block; may be empty
};

class HttpServer {
 public:
  // Binds, listens and serves. Errors: kIo naming the address (in use, no such address), kInvalidArgument (TLS files).
  static Expected<std::unique_ptr<HttpServer>> start(HttpServerOptions options);
  ~HttpServer();  // as stop()

  uint16_t port() const;  // 0 on a unix socket

  // No IO thread has been busy with one thing for longer than `limit`.
  bool responsive(std::chrono::milliseconds limit) const;

  // Closes idle connections, and the others when their answer is sent. New ones are still answered, so that the handler
  // can send clients elsewhere, but nobody waits for them.
  void drain();
  // Waits until every answer begun on connections from before the drain is sent, at most `limit`. True when that is so.
  bool wait_drained(std::chrono::milliseconds limit);
  // Stops listening, cuts all connections (their on_disconnect runs) and joins the IO threads. Idempotent.
  void stop();

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hadal
