// A small HTTP/1.1 server: sockets, framing, limits, timeouts, disconnects, draining. Knows no routes and no JSON
// beyond the error bodies that it is given a function for. TLS and unix sockets would be other stream types inside
// http.cc.
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

namespace hadal {

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

  // Runs `task` on the IO thread of this connection after the tasks posted before it, also when the client is gone.
  // Once the server is destroyed tasks are dropped.
  virtual void post(std::function<void()> task) = 0;
};

using HttpHandler = std::function<void(std::shared_ptr<HttpExchange>)>;

// What an access log and HTTP metrics need. `status` is 499 when the client left before the answer began.
struct HttpAccess {
  const HttpRequest& request;
  int status = 0;
  uint64_t num_response_bytes = 0;  // body
  double duration_s = 0;            // from arrival to the end of the answer
};

struct HttpServerOptions {
  std::string host = "0.0.0.0";  // address or name to listen on
  uint16_t port = 8000;          // 0: the system chooses
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
};

class HttpServer {
 public:
  // Binds, listens and serves. Errors: kIo naming host and port (in use, no such address).
  static Expected<std::unique_ptr<HttpServer>> start(HttpServerOptions options);
  ~HttpServer();  // as stop()

  uint16_t port() const;
  const std::string& host() const;

  // Accepts no more connections, closes idle ones, and the others when their answer is sent.
  void drain();
  // Waits until every answer begun is sent, at most `limit`. True when that is so.
  bool wait_drained(std::chrono::milliseconds limit);
  // Cuts all connections (their on_disconnect runs) and joins the IO threads. Idempotent.
  void stop();

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hadal
