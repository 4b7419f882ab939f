#include "server/http_connection.h"

#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>

#include "base/log.h"
#include "server/http_listen.h"

namespace hadal {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr auto kLingerTime = std::chrono::seconds(2);
constexpr auto kLateTime = std::chrono::seconds(5);  // for a request on a connection made during a drain
// Input that a client may send ahead while its requests are being answered. Beyond that it is read and thrown away,
// since only reading shows that the client left, and the connection closes after the answer.
constexpr size_t kMaxPipelinedBytes = size_t{1} << 20;
// Buffers that grew beyond this are given back when they are empty.
constexpr size_t kKeptBufferBytes = size_t{16} << 10;

void clear_buffer(std::string* buffer) {
  if (buffer->capacity() > kKeptBufferBytes) {
    std::string().swap(*buffer);
  } else {
    buffer->clear();
  }
}

bool is_would_block(const error_code& error) {
  return error == asio::error::would_block || error == asio::error::try_again;
}

}  // namespace

void HttpShared::add_busy(int change) {
  const std::lock_guard lock(mutex);
  num_busy += static_cast<size_t>(change);
  if (num_busy == 0) none_busy.notify_all();
}

class HttpConnection::Exchange : public HttpExchange, public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(std::weak_ptr<IoThread> thread, std::weak_ptr<HttpConnection> connection, HttpRequest request)
      : thread_(std::move(thread)), connection_(std::move(connection)), request_(std::move(request)) {}

  const HttpRequest& request() const override { return request_; }
  bool disconnected() const override { return disconnected_.load(std::memory_order_acquire); }
  void respond(HttpResponse response) override {
    on_connection([self = shared_from_this(), response = std::move(response)](HttpConnection& c) mutable {
      c.respond(self.get(), std::move(response));
    });
  }
  void start_stream(HttpResponse head) override {
    on_connection([self = shared_from_this(), head = std::move(head)](HttpConnection& c) mutable {
      c.start_stream(self.get(), std::move(head));
    });
  }
  void write(std::string bytes) override {
    on_connection(
        [self = shared_from_this(), bytes = std::move(bytes)](HttpConnection& c) { c.write(self.get(), bytes); });
  }
  void finish() override {
    on_connection([self = shared_from_this()](HttpConnection& c) { c.finish(self.get()); });
  }
  void on_disconnect(std::function<void()> callback) override {
    const auto thread = thread_.lock();
    if (!thread) return;
    asio::dispatch(thread->context, [weak = connection_, self = shared_from_this(), callback]() mutable {
      if (const auto connection = weak.lock()) return connection->on_disconnect(self.get(), std::move(callback));
      callback();
    });
  }
  void set_deadline(Clock::time_point when, std::function<void()> callback) override {
    on_connection([self = shared_from_this(), when, callback = std::move(callback)](HttpConnection& c) mutable {
      c.set_deadline(self.get(), when, std::move(callback));
    });
  }
  void keep_alive(StreamKeepAlive keep_alive) override {
    on_connection([self = shared_from_this(), keep_alive = std::move(keep_alive)](HttpConnection& c) mutable {
      c.keep_alive(self.get(), std::move(keep_alive));
    });
  }
  void post(std::function<void()> task) override {
    if (const auto thread = thread_.lock()) asio::post(thread->context, std::move(task));
  }

  // On the IO thread.
  void mark_disconnected() { disconnected_.store(true, std::memory_order_release); }

 private:
  // Runs method(connection) on the IO thread: now when this is that thread.
  template <typename Method>
  void on_connection(Method method) {
    const auto thread = thread_.lock();
    if (!thread) return;
    asio::dispatch(thread->context, [weak = connection_, method = std::move(method)]() mutable {
      if (const auto connection = weak.lock()) method(*connection);
    });
  }

  const std::weak_ptr<IoThread> thread_;
  const std::weak_ptr<HttpConnection> connection_;
  const HttpRequest request_;
  std::atomic<bool> disconnected_{false};
};

HttpConnection::HttpConnection(std::shared_ptr<HttpShared> shared, const std::shared_ptr<IoThread>& thread,
                               Socket socket)
    : shared_(std::move(shared)), thread_(thread), socket_(std::move(socket)), is_late_(shared_->draining) {
  shared_->num_connections.fetch_add(1);
}

HttpConnection::~HttpConnection() { shared_->num_connections.fetch_sub(1); }

void HttpConnection::start() {
  error_code error;
  socket_.non_blocking(true, error);
  if (error) return abort();
  client_ = peer_name(socket_.native_handle());
  if (client_ != "unix") tune_connection(socket_.native_handle());
  if (shared_->tls) tls_ = std::make_unique<TlsSession>(shared_->tls);
  const auto patience = tls_ ? std::min(limits().idle_timeout, limits().header_timeout) : limits().idle_timeout;
  read_deadline_ = Clock::now() + (is_late_ ? std::min<Clock::duration>(patience, kLateTime) : patience);
  wait_readable();
}

void HttpConnection::post(void (HttpConnection::*method)()) {
  if (const auto thread = thread_.lock()) {
    asio::post(thread->context, [self = shared_from_this(), method] { (self.get()->*method)(); });
  }
}

bool HttpConnection::is_due(Clock::time_point now) const {
  return now >= write_deadline_ || now >= read_deadline_ || now >= answer_.deadline || answer_.keep_alive ||
         (shared_->draining && idle());
}

void HttpConnection::check(Clock::time_point now) {
  if (now >= write_deadline_) return abort();
  if (now >= read_deadline_) {
    if (writing_ && !parser_) {  // not idle: the client still takes its answer
      read_deadline_ = now + limits().idle_timeout;
      return;
    }
    if (lingering_ || !parser_) return abort();  // idle: nothing to say
    fail(408, "The request did not arrive in time");
    return after_event();
  }
  if (shared_->draining && !is_late_ && idle()) return abort();
  if (!exchange_) return;
  if (answer_.keep_alive) break_silence(now);
  if (now < answer_.deadline) return;
  answer_.deadline = kNever;
  if (const auto callback = std::exchange(answer_.on_deadline, nullptr)) callback();
}

void HttpConnection::abort() {
  if (closed_) return;
  closed_ = true;
  error_code ignored;
  socket_.close(ignored);
  count_body(0);
  if (const auto exchange = std::exchange(exchange_, nullptr)) {
    exchange->mark_disconnected();
    if (answer_.status == 0) answer_.status = 499;
    report_access(exchange->request(), true);
    const Answer dropped = std::exchange(answer_, {});
    if (dropped.on_disconnect) dropped.on_disconnect();
  }
  set_busy(false);
  if (const auto thread = thread_.lock()) thread->connections.erase(shared_from_this());
}

void HttpConnection::respond(Exchange* exchange, HttpResponse response) {
  if (!current(exchange)) return;
  if (answer_.streaming) {
    if (!answer_.keep_alive) return;
    write_piece(answer_.keep_alive->late_answer(response));
    return finish(exchange);
  }
  HttpHead head = make_head(HttpFraming::kLength);
  head.content_length = response.body.size();
  answer_.status = response.status;
  finish_headers(&response);
  out_ += format_head(response, head);
  if (!answer_.head_only) append_body(response.body);
  end_exchange();
}

void HttpConnection::start_stream(Exchange* exchange, HttpResponse response) {
  if (!current(exchange) || answer_.streaming) return;
  finish_headers(&response);
  answer_.chunked = http_1_1_;
  if (!answer_.chunked) keep_alive_ = false;
  answer_.status = response.status;
  out_ += format_head(response, make_head(answer_.chunked ? HttpFraming::kChunked : HttpFraming::kUntilClose));
  answer_.streaming = true;
  flush_soon();
}

void HttpConnection::write(Exchange* exchange, std::string_view bytes) {
  if (!current(exchange) || !answer_.streaming) return;
  write_piece(bytes);
  if (!backlogged()) return;
  flush();
  if (closed_ || !backlogged()) return;
  log_warning("{} reads too slowly: {} bytes unsent of request {}, connection closed", client_, num_unsent_bytes(),
              answer_.request_id);
  abort();
}

void HttpConnection::write_piece(std::string_view bytes) {
  if (bytes.empty() || answer_.head_only) return;
  answer_.silent = false;
  append_body(answer_.chunked ? format_chunk(bytes) : std::string(bytes));
  flush_soon();
}

void HttpConnection::finish(Exchange* exchange) {
  if (!current(exchange) || !answer_.streaming) return;
  if (answer_.chunked && !answer_.head_only) out_ += "0\r\n\r\n";
  end_exchange();
}

void HttpConnection::on_disconnect(Exchange* exchange, std::function<void()> callback) {
  if (!current(exchange)) {
    if (exchange->disconnected()) callback();
    return;
  }
  answer_.on_disconnect = std::move(callback);
  if (peer_done_) abort();
}

void HttpConnection::set_deadline(Exchange* exchange, Clock::time_point when, std::function<void()> callback) {
  if (!current(exchange)) return;
  answer_.deadline = when;
  answer_.on_deadline = std::move(callback);
}

void HttpConnection::keep_alive(Exchange* exchange, StreamKeepAlive keep_alive) {
  if (!current(exchange) || keep_alive.interval.count() <= 0) return;
  answer_.keep_alive = std::move(keep_alive);
  answer_.silent = false;
}

// Called at every tick: it notices silence by nothing having been written between two calls.
void HttpConnection::break_silence(Clock::time_point now) {
  if (!answer_.silent) {
    answer_.silent = true;
    answer_.silent_since = now;
    return;
  }
  if (now - answer_.silent_since < answer_.keep_alive->interval) return;
  if (!answer_.streaming) start_stream(exchange_.get(), answer_.keep_alive->head);
  write_piece(answer_.keep_alive->filler);
}

HttpHead HttpConnection::make_head(HttpFraming framing) {
  if (shared_->draining) keep_alive_ = false;
  return {.http_1_1 = http_1_1_, .keep_alive = keep_alive_, .framing = framing};
}

void HttpConnection::finish_headers(HttpResponse* response) {
  HttpHeaders& headers = response->headers;
  const auto find = [&](std::string_view name) {
    return std::find_if(headers.begin(), headers.end(),
                        [&](const auto& one) { return equals_ignoring_case(one.first, name); });
  };
  for (auto& header : answer_.prepared_headers) {
    if (find(header.first) == headers.end()) headers.push_back(std::move(header));
  }
  answer_.prepared_headers.clear();
  if (const auto id = find("X-Request-Id"); id != headers.end()) answer_.request_id = id->second;
}

void HttpConnection::append_body(std::string_view bytes) {
  answer_.num_bytes += bytes.size();
  out_ += bytes;
}

void HttpConnection::report_access(const HttpRequest& request, bool cut_short) {
  if (!shared_->options.on_access) return;
  const std::chrono::duration<double> duration = Clock::now() - request.arrival;
  shared_->options.on_access({.request = request,
                              .status = answer_.status,
                              .cut_short = cut_short,
                              .request_id = answer_.request_id,
                              .num_response_bytes = answer_.num_bytes,
                              .duration_s = duration.count()});
}

void HttpConnection::end_exchange() {
  const auto exchange = std::exchange(exchange_, nullptr);
  count_body(0);
  report_access(exchange->request(), false);
  const Answer dropped = std::exchange(answer_, {});
  if (!keep_alive_ || discard_input_ || shared_->draining) closing_ = true;
  read_deadline_ = Clock::now() + limits().idle_timeout;
  // Not from here: the handler that answers may still be on the stack of process().
  if (!processing_) post(&HttpConnection::process_and_flush);
  flush();
}

void HttpConnection::process_and_flush() {
  if (closed_) return;
  process();
  after_event();
}

void HttpConnection::wait_readable() {
  socket_.async_wait(Socket::wait_read,
                     [self = shared_from_this()](const error_code& error) { self->on_readable(error); });
}

void HttpConnection::on_readable(const error_code& wait_error) {
  if (closed_) return;
  const auto thread = thread_.lock();
  if (wait_error || !thread) return abort();
  error_code error;
  const size_t size = socket_.read_some(asio::buffer(thread->read_buffer), error);
  if (error == asio::error::eof) return on_peer_done();
  if (error && !is_would_block(error)) return abort();
  if (!error) take_bytes({thread->read_buffer.data(), size});
  if (!closed_ && !peer_done_) wait_readable();
}

void HttpConnection::take_bytes(std::string_view bytes) {
  if (!tls_ || lingering_) return take_input(bytes);
  std::string plain;
  const TlsSession::State state = tls_->feed(bytes, &plain);
  take_input(plain);
  if (closed_) return;
  if (state == TlsSession::State::kPeerDone && !peer_done_) return on_peer_done();
  if (state == TlsSession::State::kFailed && !closing_) on_tls_failed();
}

void HttpConnection::on_tls_failed() {
  if (exchange_) return abort();
  if (tls_->is_plain_http()) {
    tls_.reset();
    fail(400, "This port speaks HTTPS: use https:// in the URL");
  } else {
    log_debug("{} TLS: {}", client_, tls_->error());
    closing_ = true;
  }
  after_event();
}

void HttpConnection::take_input(std::string_view bytes) {
  if (!lingering_ && !discard_input_ && !bytes.empty()) {
    in_.append(bytes);
    process();
    if ((exchange_ || held_back_ || closing_) && in_.size() > kMaxPipelinedBytes) {
      discard_input_ = true;
      if (!exchange_) closing_ = true;
      std::string().swap(in_);
    }
  }
  after_event();
}

// The client sends no more: it closed, or at least its own side. A FIN is all that a close shows until we write, so an
// answer in the making counts as unwanted, once somebody listens for that; answers already made are delivered.
void HttpConnection::on_peer_done() {
  peer_done_ = true;
  if (lingering_ || answer_.on_disconnect) return abort();
  process();
  after_event();
}

// Takes requests from in_, one at a time.
void HttpConnection::process() {
  if (processing_) return;
  processing_ = true;
  while (!closed_ && !exchange_ && !closing_ && !in_.empty()) {
    if (!parser_) {
      held_back_ = backlogged();
      if (held_back_) break;
      parser_.emplace(limits());
      read_deadline_ = Clock::now() + limits().header_timeout;
    }
    const auto state_before = parser_->state();
    const size_t num_consumed = parser_->feed(in_);
    in_.erase(0, num_consumed);
    if (!react_to_parser(state_before) && num_consumed == 0) break;
  }
  if (in_.empty()) clear_buffer(&in_);
  processing_ = false;
}

// False when more input is needed, or none is wanted.
bool HttpConnection::react_to_parser(HttpRequestParser::State state_before) {
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

void HttpConnection::count_body(size_t num_bytes) {
  shared_->num_body_bytes.fetch_add(num_bytes - counted_body_bytes_);
  counted_body_bytes_ = num_bytes;
}

void HttpConnection::dispatch() {
  http_1_1_ = parser_->http_1_1();
  keep_alive_ = parser_->keep_alive() && !discard_input_;
  HttpRequest request = parser_->take();
  parser_.reset();
  request.client = client_;
  request.arrival = Clock::now();
  answer_ = {};
  answer_.head_only = request.method == "HEAD";
  read_deadline_ = kNever;
  if (shared_->options.prepare) answer_.prepared_headers = shared_->options.prepare(request);
  for (const auto& [name, value] : answer_.prepared_headers) {
    if (equals_ignoring_case(name, "X-Request-Id")) answer_.request_id = value;
  }
  set_busy(true);
  exchange_ = std::make_shared<Exchange>(thread_, weak_from_this(), std::move(request));
  const auto exchange = exchange_;  // the handler may end the exchange
  try {
    shared_->options.handler(exchange);
  } catch (const std::exception& error) {
    log_error("handler of {} {}, request {}: {}", exchange->request().method, exchange->request().path,
              answer_.request_id, error.what());
    respond(exchange.get(), shared_->options.error_response(500, "Internal server error"));
  }
}

// Answers a request that cannot be dispatched, then closes.
void HttpConnection::fail(int status, std::string message) {
  parser_.reset();
  count_body(0);
  http_1_1_ = true;
  keep_alive_ = false;
  const HttpResponse response = shared_->options.error_response(status, message);
  HttpHead head = make_head(HttpFraming::kLength);
  head.content_length = response.body.size();
  out_ += format_head(response, head) + response.body;
  closing_ = true;
}

void HttpConnection::after_event() {
  if (closed_) return;
  if (peer_done_ && !exchange_ && !held_back_) closing_ = true;
  flush();
}

// Pieces written by one event, or for several streams of one step, leave together.
void HttpConnection::flush_soon() {
  if (flush_posted_ || writing_) return;
  flush_posted_ = true;
  post(&HttpConnection::flush);
}

void HttpConnection::flush() {
  flush_posted_ = false;
  if (closed_ || writing_) return;
  if (!send_all()) return set_busy(true);
  write_deadline_ = kNever;
  set_busy(exchange_ != nullptr);
  if (std::exchange(held_back_, false)) post(&HttpConnection::process_and_flush);
  if (closing_ && !exchange_) linger();
}

// False when the socket takes no more now, or is broken.
bool HttpConnection::send_all() {
  while (true) {
    if (num_sent_ == sending_.size()) {
      clear_buffer(&sending_);
      num_sent_ = 0;
      take_sendable();
      if (sending_.empty()) return true;
    }
    error_code error;
    const asio::const_buffer rest(sending_.data() + num_sent_, sending_.size() - num_sent_);
    const size_t size = socket_.write_some(rest, error);
    if (!error) {
      num_sent_ += size;
      continue;
    }
    writing_ = true;
    if (!is_would_block(error)) {
      post(&HttpConnection::abort);  // not from inside somebody's write()
      return false;
    }
    write_deadline_ = Clock::now() + limits().write_timeout;
    socket_.async_wait(Socket::wait_write, [self = shared_from_this()](const error_code& wait_error) {
      if (self->closed_) return;
      if (wait_error) return self->abort();
      self->writing_ = false;
      self->flush();
    });
    return false;
  }
}

void HttpConnection::take_sendable() {
  if (!tls_) {
    sending_.swap(out_);
    return;
  }
  tls_->write(out_);
  clear_buffer(&out_);
  if (closing_ && !exchange_) tls_->close();
  sending_ = tls_->take_output();
}

void HttpConnection::set_busy(bool busy) {
  if (is_late_) return;
  if (busy != busy_) shared_->add_busy(busy ? 1 : -1);
  busy_ = busy;
}

// Closes our side and waits for the client's: closing at once with unread input would reset the connection and could
// destroy the answer on its way.
void HttpConnection::linger() {
  if (lingering_) return;
  if (peer_done_) return abort();
  lingering_ = true;
  std::string().swap(in_);
  error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
  read_deadline_ = Clock::now() + kLingerTime;
}

}  // namespace hadal
