// One call on one connection, with Asio. Only the files of this folder include it. Everything runs on the thread of its
// io_context.
#pragma once

#include <utility>  // Asio 1.74 uses std::exchange without it

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/http_client.h"

namespace hadal {

using StreamProtocol = boost::asio::generic::stream_protocol;

// Names looked up once for all calls that want them at about the same time.
class NameCache {
 public:
  using Endpoints = std::vector<StreamProtocol::endpoint>;
  // Empty endpoints: the name is unknown.
  using Callback = std::function<void(const Endpoints&)>;

  explicit NameCache(boost::asio::io_context& context) : resolver_(context) {}

  // Runs `callback` now or later. Addresses and unix sockets need no look-up.
  void look_up(const HttpUrl& url, Callback callback);

 private:
  struct Entry {
    Endpoints endpoints;
    HttpTime when;
    std::vector<Callback> waiting;
  };

  boost::asio::ip::tcp::resolver resolver_;
  std::map<std::string, Entry> entries_;  // by authority
};

class ClientConnection : public std::enable_shared_from_this<ClientConnection> {
 public:
  struct Parts {
    HttpUrl url;
    std::string request;  // its bytes
    HttpCallLimits limits;
    HttpCallbacks callbacks;
    boost::asio::ssl::context* tls = nullptr;  // of an https call; must outlive the connection
    bool verify_tls = true;
  };

  ClientConnection(boost::asio::io_context& context, Parts parts);

  void start(NameCache& names);
  // Ends the call with `error`, unless it has ended.
  void fail(Error error);

 private:
  enum class Phase { kConnect, kAnswer, kEnded };

  void try_next_endpoint();
  void handshake();
  void exchange();
  void read();
  void on_read(boost::system::error_code error, size_t size);
  bool hand_over(HttpTime now);
  void end(Status status, HttpTime now);
  void watch_time();
  template <typename Operation>
  void with_stream(Operation operation);  // operation(the TLS stream or the socket)

  Parts parts_;
  Phase phase_ = Phase::kConnect;
  NameCache::Endpoints endpoints_;
  size_t next_endpoint_ = 0;
  boost::system::error_code connect_error_;  // of the last endpoint
  StreamProtocol::socket socket_;
  std::optional<boost::asio::ssl::stream<StreamProtocol::socket&>> tls_stream_;
  boost::asio::steady_timer timer_;
  const HttpTime started_;
  HttpTime last_bytes_;
  HttpReplyParser parser_;
  bool told_head_ = false;
  std::array<char, 8192> buffer_;
};

}  // namespace hadal
