#include "server/http.h"

#include <sys/resource.h>

#include <utility>  // Asio 1.74 uses std::exchange without it

#include <boost/asio/dispatch.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_set>

#include "base/log.h"
#include "server/http_head.h"
#include "server/http_parser.h"

namespace hadal {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using tcp = asio::ip::tcp;
using Clock = std::chrono::steady_clock;

constexpr auto kNever = Clock::time_point::max();
constexpr auto kLingerTime = std::chrono::seconds(2);
constexpr auto kTick = std::chrono::milliseconds(100);  // how late a timeout may be noticed
constexpr auto kAcceptRetry = std::chrono::milliseconds(100);
// Input that a client may send ahead while its request is being answered. Beyond that it is read and thrown away, since
// only reading shows that the client left, and the connection closes after the answer.
constexpr size_t kMaxPipelinedBytes = size_t{1} << 20;

class Connection;

// Runs the connections that belong to it, without locks.
struct IoThread {
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> keep_running{context.get_executor()};
  std::unordered_set<std::shared_ptr<Connection>> connections;  // touched on this thread only
  asio::steady_timer ticker{context};
  std::thread thread;
};

// What connections share.
struct Shared {
  HttpServerOptions options;
  std::atomic<bool> draining{false};
  std::atomic<size_t> num_connections{0};
  std::atomic<size_t> num_body_bytes{0};

  // Connections that owe bytes to their client; what a drain waits for.
  std::mutex mutex;
  std::condition_variable none_busy;
  size_t num_busy = 0;
  void add_busy(int change) {
    const std::lock_guard lock(mutex);
    num_busy += static_cast<size_t>(change);
    if (num_busy == 0) none_busy.notify_all();
  }
};

class Exchange : public HttpExchange, public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(std::weak_ptr<IoThread> thread, std::weak_ptr<Connection> connection, HttpRequest request)
      : thread_(std::move(thread)), connection_(std::move(connection)), request_(std::move(request)) {}

  const HttpRequest& request() const override { return request_; }
  bool disconnected() const override { return disconnected_.load(std::memory_order_acquire); }
  void respond(HttpResponse response) override;
  void start_stream(HttpResponse head) override;
  void write(std::string bytes) override;
  void finish() override;
  void on_disconnect(std::function<void()> callback) override;
  void post(std::function<void()> task) override {
    if (const auto thread = thread_.lock()) asio::post(thread->context, std::move(task));
  }

  // On the IO thread.
  void mark_disconnected() { disconnected_.store(true, std::memory_order_release); }

 private:
  // Runs method(connection) on the IO thread: now when this is that thread.
  template <typename Method>
  void on_connection(Method method);

  const std::weak_ptr<IoThread> thread_;
  const std::weak_ptr<Connection> connection_;
  const HttpRequest request_;
  std::atomic<bool> disconnected_{false};
};

// All methods run on its IO thread.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<Shared> shared, std::shared_ptr<IoThread> thread, tcp::socket socket)
      : shared_(std::move(shared)), thread_(thread), socket_(std::move(socket)) {
    shared_->num_connections.fetch_add(1);
  }
  ~Connection() { shared_->num_connections.fetch_sub(1); }

  void start() {
    error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    socket_.set_option(tcp::socket::keep_alive(true), ignored);  // finds clients whose host is gone
    const auto peer = socket_.remote_endpoint(ignored);
    const std::string address = peer.address().to_string();
    client_ = (peer.address().is_v6() ? "[" + address + "]" : address) + fmt::format(":{}", peer.port());
    read_deadline_ = Clock::now() + limits().idle_timeout;
    read();
  }

  void check_deadlines(Clock::time_point now) {
    if (now >= write_deadline_) return abort();
    if (now >= read_deadline_) {
      if (lingering_ || !parser_) return abort();  // idle: nothing to say
      fail(408, "The request did not arrive in time");
      return after_event();
    }
    if (shared_->draining && idle()) abort();
  }

  void abort() {
    if (closed_) return;
    closed_ = true;
    error_code ignored;
    socket_.close(ignored);
    release_body();
    if (const auto exchange = std::exchange(exchange_, nullptr)) {
      exchange->mark_disconnected();
      report_access(*exchange, status_ == 0 ? 499 : status_);
      if (const auto callback = std::exchange(on_disconnect_, nullptr)) callback();
    }
    set_busy(false);
    thread_.lock()->connections.erase(shared_from_this());
  }

  void respond(Exchange* exchange, HttpResponse response) {
    if (!current(exchange) || streaming_) return;
    HttpHead head = make_head(HttpFraming::kLength);
    head.content_length = response.body.size();
    status_ = response.status;
    add_prepared_headers(&response);
    out_ += format_head(response, head);
    if (!head_only_) append_body(response.body);
    end_exchange();
  }

  void start_stream(Exchange* exchange, HttpResponse response) {
    if (!current(exchange) || streaming_) return;
    add_prepared_headers(&response);
    chunked_ = http_1_1_;
    if (!chunked_) keep_alive_ = false;
    status_ = response.status;
    out_ += format_head(response, make_head(chunked_ ? HttpFraming::kChunked : HttpFraming::kUntilClose));
    streaming_ = true;
    flush();
  }

  void write(Exchange* exchange, std::string_view bytes) {
    if (!current(exchange) || !streaming_ || bytes.empty() || head_only_) return;
    append_body(chunked_ ? format_chunk(bytes) : std::string(bytes));
    flush();
    if (out_.size() + sending_.size() - num_sent_ > limits().max_unsent_bytes) {
      log_warning("{} reads too slowly: {} bytes unsent, connection closed", client_, out_.size());
      abort();
    }
  }

  void finish(Exchange* exchange) {
    if (!current(exchange) || !streaming_) return;
    if (chunked_ && !head_only_) out_ += "0\r\n\r\n";
    end_exchange();
  }

  void on_disconnect(Exchange* exchange, std::function<void()> callback) {
    if (!current(exchange)) {
      if (exchange->disconnected()) callback();
      return;
    }
    on_disconnect_ = std::move(callback);
    if (peer_done_) abort();
  }

 private:
  const HttpLimits& limits() const { return shared_->options.limits; }
  bool current(const Exchange* exchange) const { return !closed_ && exchange_.get() == exchange; }
  bool idle() const { return !exchange_ && !parser_ && out_.empty() && !writing_ && !lingering_; }

  HttpHead make_head(HttpFraming framing) {
    if (shared_->draining) keep_alive_ = false;
    return {.http_1_1 = http_1_1_, .keep_alive = keep_alive_, .framing = framing};
  }

  void add_prepared_headers(HttpResponse* response) {
    HttpHeaders& headers = response->headers;
    for (auto& header : response_headers_) {
      const bool is_set = std::any_of(headers.begin(), headers.end(),
                                      [&](const auto& one) { return equals_ignoring_case(one.first, header.first); });
      if (!is_set) headers.push_back(std::move(header));
    }
    response_headers_.clear();
  }

  void append_body(std::string_view bytes) {
    num_response_bytes_ += bytes.size();
    out_ += bytes;
  }

  void set_busy(bool busy) {
    if (busy != busy_) shared_->add_busy(busy ? 1 : -1);
    busy_ = busy;
  }

  void read() {
    socket_.async_read_some(asio::buffer(read_buffer_),
                            [self = shared_from_this()](error_code error, size_t size) { self->on_read(error, size); });
  }

  void on_read(error_code error, size_t size) {
    if (closed_) return;
    if (error == asio::error::eof) return on_peer_done();
    if (error) return abort();
    if (!lingering_ && !discard_input_) {
      in_.append(read_buffer_.data(), size);
      process();
      if (exchange_ && in_.size() > kMaxPipelinedBytes) {
        discard_input_ = true;
        std::string().swap(in_);
      }
    }
    after_event();
    if (!closed_) read();
  }

  // The client sends no more: it closed, or at least its own side. A FIN is all that a close shows until we write, so
  // an answer in the making counts as unwanted, once somebody listens for that; answers already made are delivered.
  void on_peer_done() {
    peer_done_ = true;
    if (lingering_ || on_disconnect_) return abort();
    process();
    after_event();
  }

  // Takes requests from in_, one at a time.
  void process() {
    if (processing_) return;
    processing_ = true;
    while (!closed_ && !exchange_ && !closing_ && !in_.empty()) {
      if (!parser_) {
        parser_.emplace(limits());
        read_deadline_ = Clock::now() + limits().header_timeout;
      }
      const auto state_before = parser_->state();
      const size_t num_consumed = parser_->feed(in_);
      in_.erase(0, num_consumed);
      if (!react_to_parser(state_before) && num_consumed == 0) break;
    }
    processing_ = false;
  }

  // False when more input is needed, or none is wanted.
  bool react_to_parser(HttpRequestParser::State state_before) {
    using State = HttpRequestParser::State;
    const State state = parser_->state();
    if (state == State::kError) {
      fail(parser_->error_status(), parser_->error_message());
      return false;
    }
    count_body(parser_->num_body_bytes());
    if (shared_->num_body_bytes > limits().max_total_body_bytes) {
      fail(503, "Too many large requests at once");
      return false;
    }
    if (state == State::kDone) {
      dispatch();
      return true;
    }
    if (state_before == State::kHeader && state == State::kBody) {
      read_deadline_ = Clock::now() + limits().body_timeout;
      if (parser_->expects_continue() && in_.empty()) out_ += "HTTP/1.1 100 Continue\r\n\r\n";
      return true;
    }
    return false;
  }

  void count_body(size_t num_bytes) {
    shared_->num_body_bytes.fetch_add(num_bytes - counted_body_bytes_);
    counted_body_bytes_ = num_bytes;
  }
  void release_body() { count_body(0); }

  void dispatch() {
    http_1_1_ = parser_->http_1_1();
    keep_alive_ = parser_->keep_alive() && !discard_input_;
    HttpRequest request = parser_->take();
    parser_.reset();
    request.client = client_;
    request.arrival = Clock::now();
    head_only_ = request.method == "HEAD";
    streaming_ = false;
    status_ = 0;
    num_response_bytes_ = 0;
    read_deadline_ = kNever;
    response_headers_.clear();
    if (shared_->options.prepare) response_headers_ = shared_->options.prepare(request);
    set_busy(true);
    exchange_ = std::make_shared<Exchange>(thread_, weak_from_this(), std::move(request));
    const auto exchange = exchange_;  // the handler may end the exchange
    try {
      shared_->options.handler(exchange);
    } catch (const std::exception& error) {
      log_error("handler of {} {}: {}", exchange->request().method, exchange->request().path, error.what());
      respond(exchange.get(), shared_->options.error_response(500, "Internal server error"));
    }
  }

  // Answers a request that cannot be dispatched, then closes.
  void fail(int status, std::string message) {
    parser_.reset();
    release_body();
    http_1_1_ = true;
    keep_alive_ = false;
    const HttpResponse response = shared_->options.error_response(status, message);
    HttpHead head = make_head(HttpFraming::kLength);
    head.content_length = response.body.size();
    out_ += format_head(response, head) + response.body;
    closing_ = true;
  }

  void report_access(const Exchange& exchange, int status) {
    if (!shared_->options.on_access) return;
    const std::chrono::duration<double> duration = Clock::now() - exchange.request().arrival;
    shared_->options.on_access({exchange.request(), status, num_response_bytes_, duration.count()});
  }

  void end_exchange() {
    const auto exchange = std::exchange(exchange_, nullptr);
    const auto dropped = std::exchange(on_disconnect_, nullptr);
    release_body();
    report_access(*exchange, status_);
    streaming_ = false;
    if (!keep_alive_ || discard_input_ || shared_->draining) closing_ = true;
    read_deadline_ = Clock::now() + limits().idle_timeout;
    // Not from here: the handler that answers may still be on the stack of process().
    if (!processing_) {
      asio::post(thread_.lock()->context, [self = shared_from_this()] {
        if (self->closed_) return;
        self->process();
        self->after_event();
      });
    }
    flush();
  }

  void after_event() {
    if (closed_) return;
    if (peer_done_ && !exchange_) closing_ = true;
    flush();
  }

  void flush() {
    if (closed_ || writing_) return;
    if (out_.empty()) {
      write_deadline_ = kNever;
      set_busy(exchange_ != nullptr);
      if (closing_ && !exchange_) linger();
      return;
    }
    set_busy(true);
    writing_ = true;
    sending_.swap(out_);
    out_.clear();
    num_sent_ = 0;
    write_some();
  }

  void write_some() {
    write_deadline_ = Clock::now() + limits().write_timeout;
    socket_.async_write_some(
        asio::buffer(sending_.data() + num_sent_, sending_.size() - num_sent_),
        [self = shared_from_this()](error_code error, size_t size) { self->on_written(error, size); });
  }

  void on_written(error_code error, size_t size) {
    if (closed_) return;
    if (error) return abort();
    num_sent_ += size;
    if (num_sent_ < sending_.size()) return write_some();
    writing_ = false;
    sending_.clear();
    num_sent_ = 0;
    flush();
  }

  // Closes our side and waits for the client's: closing at once with unread input would reset the connection and could
  // destroy the answer on its way.
  void linger() {
    if (lingering_) return;
    if (peer_done_) return abort();
    lingering_ = true;
    std::string().swap(in_);
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    read_deadline_ = Clock::now() + kLingerTime;
  }

  const std::shared_ptr<Shared> shared_;
  const std::weak_ptr<IoThread> thread_;
  tcp::socket socket_;
  std::string client_;
  std::array<char, 16384> read_buffer_;

  std::string in_;                           // read, not yet parsed
  std::optional<HttpRequestParser> parser_;  // of a request that is partly read
  size_t counted_body_bytes_ = 0;            // in Shared::num_body_bytes
  bool processing_ = false;
  bool discard_input_ = false;
  bool peer_done_ = false;

  std::shared_ptr<Exchange> exchange_;  // the request being answered
  HttpHeaders response_headers_;
  std::function<void()> on_disconnect_;
  bool http_1_1_ = true;
  bool keep_alive_ = true;
  bool head_only_ = false;
  bool streaming_ = false;
  bool chunked_ = false;
  int status_ = 0;
  uint64_t num_response_bytes_ = 0;

  std::string out_;      // to send after sending_
  std::string sending_;  // handed to the socket
  size_t num_sent_ = 0;
  bool writing_ = false;
  bool closing_ = false;    // close when all is sent
  bool lingering_ = false;  // our side is closed
  bool closed_ = false;
  bool busy_ = false;
  Clock::time_point read_deadline_ = kNever;
  Clock::time_point write_deadline_ = kNever;
};

template <typename Method>
void Exchange::on_connection(Method method) {
  const auto thread = thread_.lock();
  if (!thread) return;
  asio::dispatch(thread->context, [weak = connection_, method = std::move(method)]() mutable {
    if (const auto connection = weak.lock()) method(*connection);
  });
}

void Exchange::respond(HttpResponse response) {
  on_connection([self = shared_from_this(), response = std::move(response)](Connection& c) mutable {
    c.respond(self.get(), std::move(response));
  });
}
void Exchange::start_stream(HttpResponse head) {
  on_connection(
      [self = shared_from_this(), head = std::move(head)](Connection& c) { c.start_stream(self.get(), head); });
}
void Exchange::write(std::string bytes) {
  on_connection([self = shared_from_this(), bytes = std::move(bytes)](Connection& c) { c.write(self.get(), bytes); });
}
void Exchange::finish() {
  on_connection([self = shared_from_this()](Connection& c) { c.finish(self.get()); });
}
void Exchange::on_disconnect(std::function<void()> callback) {
  const auto thread = thread_.lock();
  if (!thread) return;
  asio::dispatch(thread->context, [weak = connection_, self = shared_from_this(), callback]() mutable {
    if (const auto connection = weak.lock()) return connection->on_disconnect(self.get(), std::move(callback));
    callback();
  });
}

void raise_open_file_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

}  // namespace

struct HttpServer::Impl {
  const std::shared_ptr<Shared> shared = std::make_shared<Shared>();  // an exchange may outlive the server
  std::vector<std::shared_ptr<IoThread>> threads;
  std::optional<tcp::acceptor> acceptor;  // on threads[0]
  std::optional<asio::steady_timer> accept_timer;
  size_t next_thread = 0;
  uint16_t port = 0;
  bool stopped = false;

  Status listen();
  void accept();
  void adopt(tcp::socket socket, std::shared_ptr<IoThread> thread);
  void refuse(tcp::socket socket);
  void tick(const std::shared_ptr<IoThread>& thread);
};

Status HttpServer::Impl::listen() {
  const HttpServerOptions& options = shared->options;
  auto& context = threads[0]->context;
  error_code error;
  tcp::resolver resolver(context);
  const auto found = resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, error);
  if (error || found.empty()) {
    return make_error(ErrorCode::kIo, "cannot listen on {}: {}", options.host, error.message());
  }
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor.emplace(context);
  acceptor->open(endpoint.protocol(), error);
  if (!error) acceptor->set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor->bind(endpoint, error);
  if (!error) acceptor->listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    return make_error(ErrorCode::kIo, "cannot listen on {}:{}: {}", options.host, options.port, error.message());
  }
  port = acceptor->local_endpoint(error).port();
  accept_timer.emplace(context);
  return {};
}

void HttpServer::Impl::accept() {
  // The handler must not own its thread: left over in that thread's own context, it would keep itself alive.
  acceptor->async_accept(threads[next_thread]->context,
                         [this, idx = next_thread](error_code error, tcp::socket socket) {
                           if (!acceptor->is_open()) return;
                           if (error) {  // no descriptors left, or the client is gone already
                             accept_timer->expires_after(kAcceptRetry);
                             accept_timer->async_wait([this](error_code cancelled) {
                               if (!cancelled && acceptor->is_open()) accept();
                             });
                             return;
                           }
                           if (shared->num_connections >= shared->options.limits.max_connections) {
                             refuse(std::move(socket));
                           } else {
                             next_thread = (next_thread + 1) % threads.size();
                             adopt(std::move(socket), threads[idx]);
                           }
                           accept();
                         });
}

void HttpServer::Impl::adopt(tcp::socket socket, std::shared_ptr<IoThread> thread) {
  const auto connection = std::make_shared<Connection>(shared, thread, std::move(socket));
  asio::dispatch(thread->context, [thread = thread.get(), connection] {
    thread->connections.insert(connection);
    connection->start();
  });
}

// One attempt, without waiting.
void HttpServer::Impl::refuse(tcp::socket socket) {
  HttpResponse response = shared->options.error_response(503, "Too many open connections");
  const std::string bytes =
      format_head(response, {.keep_alive = false, .content_length = response.body.size()}) + response.body;
  error_code ignored;
  socket.non_blocking(true, ignored);
  socket.write_some(asio::buffer(bytes), ignored);
}

void HttpServer::Impl::tick(const std::shared_ptr<IoThread>& thread) {
  thread->ticker.expires_after(kTick);
  thread->ticker.async_wait([this, raw = thread.get()](error_code cancelled) {
    if (cancelled) return;
    const auto now = Clock::now();
    const std::vector<std::shared_ptr<Connection>> connections(raw->connections.begin(), raw->connections.end());
    for (const auto& connection : connections) connection->check_deadlines(now);
    tick(*std::find_if(threads.begin(), threads.end(), [raw](const auto& one) { return one.get() == raw; }));
  });
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() { stop(); }

Expected<std::unique_ptr<HttpServer>> HttpServer::start(HttpServerOptions options) {
  raise_open_file_limit();
  auto impl = std::make_unique<Impl>();
  const int num_threads = std::max(1, options.num_io_threads);
  impl->shared->options = std::move(options);
  for (int i = 0; i < num_threads; ++i) impl->threads.push_back(std::make_shared<IoThread>());
  HADAL_RETURN_IF_ERROR(impl->listen());
  impl->accept();
  for (const auto& thread : impl->threads) {
    impl->tick(thread);
    thread->thread = std::thread([raw = thread.get()] { raw->context.run(); });
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

uint16_t HttpServer::port() const { return impl_->port; }
const std::string& HttpServer::host() const { return impl_->shared->options.host; }

void HttpServer::drain() {
  impl_->shared->draining = true;
  asio::post(impl_->threads[0]->context, [impl = impl_.get()] {
    error_code ignored;
    impl->accept_timer->cancel();
    impl->acceptor->close(ignored);
  });
}

bool HttpServer::wait_drained(std::chrono::milliseconds limit) {
  std::unique_lock lock(impl_->shared->mutex);
  return impl_->shared->none_busy.wait_for(lock, limit, [&] { return impl_->shared->num_busy == 0; });
}

void HttpServer::stop() {
  if (!impl_ || impl_->stopped) return;
  impl_->stopped = true;
  drain();
  for (const auto& thread : impl_->threads) {
    asio::post(thread->context, [raw = thread.get()] {
      const std::vector<std::shared_ptr<Connection>> connections(raw->connections.begin(), raw->connections.end());
      for (const auto& connection : connections) connection->abort();
      raw->ticker.cancel();
      raw->context.stop();
    });
  }
  for (const auto& thread : impl_->threads) {
    if (thread->thread.joinable()) thread->thread.join();
  }
}

}  // namespace hadal
