#include "net/client_connection.h"

#include <boost/asio/connect.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/write.hpp>

#include <algorithm>

namespace hadal {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using std::chrono::milliseconds;
using tcp = asio::ip::tcp;

constexpr auto kNever = HttpTime::max();
constexpr auto kNamesLast = std::chrono::seconds(60);

HttpTime now() { return std::chrono::steady_clock::now(); }

HttpTime after(HttpTime begin, milliseconds limit) { return limit.count() > 0 ? begin + limit : kNever; }

// Of a unix socket.
error_code no_such_file() { return {ENOENT, boost::system::system_category()}; }

Error unavailable(std::string message) { return {ErrorCode::kUnavailable, std::move(message)}; }

}  // namespace

void NameCache::look_up(const HttpUrl& url, Callback callback) {
  if (url.scheme == HttpUrl::Scheme::kUnix) {
    return callback({asio::local::stream_protocol::endpoint(url.host)});
  }
  error_code not_numeric;
  const auto address = asio::ip::make_address(url.host, not_numeric);
  if (!not_numeric) {
    return callback({tcp::endpoint(address, static_cast<uint16_t>(std::stoul(url.port)))});
  }
  Entry& entry = entries_[url.authority()];
  if (!entry.endpoints.empty() && now() - entry.when < kNamesLast) return callback(entry.endpoints);
  entry.waiting.push_back(std::move(callback));
  if (entry.waiting.size() > 1) return;
  resolver_.async_resolve(url.host, url.port, [this, &entry](error_code error, tcp::resolver::results_type results) {
    entry.endpoints.clear();
    entry.when = now();
    if (!error) {
      for (const auto& result : results) entry.endpoints.emplace_back(result.endpoint());
    }
    for (const Callback& waiting : std::exchange(entry.waiting, {})) waiting(entry.endpoints);
  });
}

ClientConnection::ClientConnection(asio::io_context& context, Parts parts)
    : parts_(std::move(parts)),
      socket_(context),
      timer_(context),
      started_(now()),
      last_bytes_(started_),
      parser_(parts_.limits.max_bytes) {}

void ClientConnection::start(NameCache& names) {
  watch_time();
  names.look_up(parts_.url, [self = shared_from_this()](const NameCache::Endpoints& endpoints) {
    if (self->phase_ == Phase::kEnded) return;
    if (endpoints.empty()) return self->fail(unavailable(fmt::format("no host is called {}", self->parts_.url.host)));
    self->endpoints_ = endpoints;
    self->try_next_endpoint();
  });
}

void ClientConnection::try_next_endpoint() {
  error_code ignored;
  socket_.close(ignored);
  if (next_endpoint_ == endpoints_.size()) {
    const bool nobody = connect_error_ == asio::error::connection_refused || connect_error_ == no_such_file();
    return fail(unavailable(nobody ? "nobody listens there" : "cannot connect: " + connect_error_.message()));
  }
  socket_.async_connect(endpoints_[next_endpoint_++], [self = shared_from_this()](error_code error) {
    if (self->phase_ == Phase::kEnded) return;
    if (error) {
      self->connect_error_ = error;
      return self->try_next_endpoint();
    }
    if (self->parts_.url.scheme != HttpUrl::Scheme::kUnix) {
      error_code no_delay_failed;
      self->socket_.set_option(tcp::no_delay(true), no_delay_failed);
    }
    self->parts_.tls != nullptr ? self->handshake() : self->exchange();
  });
}

void ClientConnection::handshake() {
  tls_stream_.emplace(socket_, *parts_.tls);
  const std::string& host = parts_.url.host;
  error_code not_numeric;
  asio::ip::make_address(host, not_numeric);
  if (not_numeric) SSL_set_tlsext_host_name(tls_stream_->native_handle(), host.c_str());
  if (parts_.verify_tls) {
    error_code failed;
    tls_stream_->set_verify_mode(asio::ssl::verify_peer, failed);
    if (!failed) tls_stream_->set_verify_callback(asio::ssl::host_name_verification(host), failed);
    if (failed) return fail(unavailable("TLS: " + failed.message()));
  }
  tls_stream_->async_handshake(asio::ssl::stream_base::client, [self = shared_from_this()](error_code error) {
    if (self->phase_ == Phase::kEnded) return;
    if (error) return self->fail(unavailable("TLS: " + error.message()));
    self->exchange();
  });
}

template <typename Operation>
void ClientConnection::with_stream(Operation operation) {
  if (tls_stream_) {
    operation(*tls_stream_);
  } else {
    operation(socket_);
  }
}

// Reads while it writes: a server may refuse a large body before it has all of it. A failed write shows in the read.
void ClientConnection::exchange() {
  phase_ = Phase::kAnswer;
  last_bytes_ = now();
  watch_time();
  with_stream([&](auto& stream) {
    asio::async_write(stream, asio::buffer(parts_.request), [self = shared_from_this()](error_code, size_t) {});
  });
  read();
}

void ClientConnection::read() {
  with_stream([&](auto& stream) {
    stream.async_read_some(asio::buffer(buffer_),
                           [self = shared_from_this()](error_code error, size_t size) { self->on_read(error, size); });
  });
}

void ClientConnection::on_read(error_code error, size_t size) {
  if (phase_ == Phase::kEnded) return;
  const HttpTime when = now();
  last_bytes_ = when;
  Status status = parser_.push({buffer_.data(), size});
  if (!hand_over(when)) return;
  if (!status) return end(std::move(status), when);
  if (parser_.done()) return end({}, when);
  if (error == asio::error::eof) return end(parser_.end(), when);
  if (error) return end(tl::unexpected(unavailable("the connection broke: " + error.message())), when);
  read();
}

// Tells what is new. False when a callback has ended the call.
bool ClientConnection::hand_over(HttpTime when) {
  if (parser_.has_head() && !std::exchange(told_head_, true) && parts_.callbacks.on_head) {
    HttpReply head = parser_.reply();
    head.body.clear();
    parts_.callbacks.on_head(head, when);
  }
  if (const std::string body = parser_.take_body(); !body.empty() && parts_.callbacks.on_body) {
    parts_.callbacks.on_body(body, when);
  }
  return phase_ != Phase::kEnded;
}

void ClientConnection::fail(Error error) { end(tl::unexpected(std::move(error)), now()); }

void ClientConnection::end(Status status, HttpTime when) {
  if (phase_ == Phase::kEnded) return;
  phase_ = Phase::kEnded;
  error_code ignored;
  socket_.close(ignored);
  timer_.cancel();
  const HttpCallbacks callbacks = std::exchange(parts_.callbacks, {});
  if (callbacks.on_end) callbacks.on_end(std::move(status), when);
}

// One timer for all limits: it sleeps until the nearest one could be reached and looks again then.
void ClientConnection::watch_time() {
  const HttpCallLimits& limits = parts_.limits;
  const bool connecting = phase_ == Phase::kConnect;
  const HttpTime whole = after(started_, limits.timeout);
  const HttpTime idle = connecting ? after(started_, limits.connect_timeout) : after(last_bytes_, limits.idle_timeout);
  const HttpTime next = std::min(whole, idle);
  if (next == kNever || phase_ == Phase::kEnded) return;
  if (next <= now()) {
    if (whole <= idle) return fail(unavailable(fmt::format("no answer in {} ms", limits.timeout.count())));
    const std::string what = connecting ? "no connection" : "nothing came";
    const milliseconds limit = connecting ? limits.connect_timeout : limits.idle_timeout;
    return fail(unavailable(fmt::format("{} in {} ms", what, limit.count())));
  }
  timer_.expires_at(next);
  timer_.async_wait([self = shared_from_this()](error_code error) {
    if (!error) self->watch_time();
  });
}

}  // namespace hadal
