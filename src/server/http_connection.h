// One connection: requests in, one at a time, answers out. Private to http.cc and http_connection.cc, which with
// http_parser.cc are the only files that see Asio (compile time).
#pragma once

#include <utility>  // Asio 1.74 uses std::exchange without it

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_set>

#include "server/http.h"
#include "server/http_head.h"
#include "server/http_parser.h"
#include "server/tls.h"

namespace hadal {

class HttpConnection;

// Runs the connections that belong to it, without locks.
struct IoThread {
  boost::asio::io_context context{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> keep_running{context.get_executor()};
  std::unordered_set<std::shared_ptr<HttpConnection>> connections;  // touched on this thread only
  std::array<char, 65536> read_buffer;  // the same; shared, so that idle connections are small
  boost::asio::steady_timer ticker{context};
  std::atomic<int64_t> last_tick_ms{0};  // steady clock
  std::thread thread;
};

// What connections share.
struct HttpShared {
  HttpServerOptions options;
  std::shared_ptr<const TlsContext> tls;  // null: none
  std::atomic<bool> draining{false};
  std::atomic<size_t> num_connections{0};
  std::atomic<size_t> num_body_bytes{0};

  // Connections that owe bytes to their client; what a drain waits for.
  std::mutex mutex;
  std::condition_variable none_busy;
  size_t num_busy = 0;
  void add_busy(int change);
};

// All methods run on its IO thread.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  using Clock = std::chrono::steady_clock;
  using Socket = boost::asio::generic::stream_protocol::socket;  // TCP or unix
  class Exchange;

  HttpConnection(std::shared_ptr<HttpShared> shared, const std::shared_ptr<IoThread>& thread, Socket socket);
  ~HttpConnection();

  void start();
  bool is_due(Clock::time_point now) const;  // check() would do something
  void check(Clock::time_point now);
  void abort();

  // Of HttpExchange.
  void respond(Exchange* exchange, HttpResponse response);
  void start_stream(Exchange* exchange, HttpResponse response);
  void write(Exchange* exchange, std::string_view bytes);
  void finish(Exchange* exchange);
  void on_disconnect(Exchange* exchange, std::function<void()> callback);
  void set_deadline(Exchange* exchange, Clock::time_point when, std::function<void()> callback);
  void keep_alive(Exchange* exchange, StreamKeepAlive keep_alive);

 private:
  static constexpr Clock::time_point kNever = Clock::time_point::max();

  // Of the request being answered.
  struct Answer {
    HttpHeaders prepared_headers;
    std::string request_id;
    std::function<void()> on_disconnect;
    std::function<void()> on_deadline;
    Clock::time_point deadline = kNever;
    std::optional<StreamKeepAlive> keep_alive;
    bool silent = false;  // nothing written since silent_since; maintained by check()
    Clock::time_point silent_since;
    bool head_only = false;
    bool streaming = false;
    bool chunked = false;
    int status = 0;
    uint64_t num_bytes = 0;
  };

  const HttpLimits& limits() const { return shared_->options.limits; }
  bool current(const Exchange* exchange) const { return !closed_ && exchange_.get() == exchange; }
  bool idle() const { return !exchange_ && !parser_ && out_.empty() && !writing_ && !lingering_; }
  size_t num_unsent_bytes() const { return out_.size() + sending_.size() - num_sent_; }
  bool backlogged() const { return num_unsent_bytes() > limits().max_unsent_bytes; }
  void post(void (HttpConnection::*method)());

  // Reading.
  void wait_readable();
  void on_readable(const boost::system::error_code& error);
  void take_bytes(std::string_view bytes);
  void take_input(std::string_view bytes);
  void on_tls_failed();
  void on_peer_done();
  void process();
  bool react_to_parser(HttpRequestParser::State state_before);
  void count_body(size_t num_bytes);
  void dispatch();
  void fail(int status, std::string message);

  // Answering.
  HttpHead make_head(HttpFraming framing);
  void finish_headers(HttpResponse* response);
  void append_body(std::string_view bytes);
  void write_piece(std::string_view bytes);
  void break_silence(Clock::time_point now);
  void report_access(const HttpRequest& request, bool cut_short);
  void end_exchange();

  // Sending.
  void process_and_flush();
  void flush_soon();
  void flush();
  bool send_all();
  void take_sendable();
  void after_event();
  void linger();
  void set_busy(bool busy);

  const std::shared_ptr<HttpShared> shared_;
  const std::weak_ptr<IoThread> thread_;
  Socket socket_;
  std::unique_ptr<TlsSession> tls_;  // null: plain
  std::string client_;
  const bool is_late_;  // accepted while draining: nobody waits for it

  std::string in_;                           // read, not yet parsed
  std::optional<HttpRequestParser> parser_;  // of a request that is partly read
  size_t counted_body_bytes_ = 0;            // in HttpShared::num_body_bytes
  bool processing_ = false;
  bool held_back_ = false;  // in_ waits until the answers before it are sent
  bool discard_input_ = false;
  bool peer_done_ = false;

  std::shared_ptr<Exchange> exchange_;  // the request being answered
  Answer answer_;
  bool http_1_1_ = true;
  bool keep_alive_ = true;

  std::string out_;      // to send after sending_, not yet encrypted
  std::string sending_;  // handed to the socket
  size_t num_sent_ = 0;
  bool writing_ = false;  // waits until the socket takes more
  bool flush_posted_ = false;
  bool closing_ = false;    // close when all is sent
  bool lingering_ = false;  // our side is closed
  bool closed_ = false;
  bool busy_ = false;
  Clock::time_point read_deadline_ = kNever;
  Clock::time_point write_deadline_ = kNever;
};

}  // namespace hadal
