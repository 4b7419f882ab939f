#include "server/http.h"

#include <pthread.h>
#include <sys/socket.h>

#include <utility>  // Asio 1.74 uses std::exchange without it

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>

#include "server/http_connection.h"
#include "server/http_listen.h"

namespace hadal {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using Protocol = asio::generic::stream_protocol;
using Socket = HttpConnection::Socket;

constexpr auto kTick = std::chrono::milliseconds(100);  // how late a timeout may be noticed
constexpr auto kAcceptRetry = std::chrono::milliseconds(100);

int64_t steady_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch()).count();
}

}  // namespace

struct HttpServer::Impl {
  const std::shared_ptr<HttpShared> shared = std::make_shared<HttpShared>();  // an exchange may outlive the server
  std::vector<std::shared_ptr<IoThread>> threads;
  ListenSocket socket;
  std::optional<asio::basic_socket_acceptor<Protocol>> acceptor;  // on threads[0]
  std::optional<asio::steady_timer> accept_timer;
  size_t next_thread = 0;
  bool stopped = false;

  Status listen();
  void accept();
  void adopt(Socket accepted, std::shared_ptr<IoThread> thread);
  void refuse(Socket accepted);
  void tick(IoThread* thread);
  void run(IoThread* thread, size_t index);
};

Status HttpServer::Impl::listen() {
  const HttpServerOptions& options = shared->options;
  if (!options.tls.certificate_file.empty()) {
    HADAL_ASSIGN_OR_RETURN(shared->tls, TlsContext::load(options.tls));
  }
  HADAL_ASSIGN_OR_RETURN(
      socket, options.unix_socket.empty() ? listen_tcp(options.host, options.port) : listen_unix(options.unix_socket));
  auto& context = threads[0]->context;
  acceptor.emplace(context);
  error_code error;
  acceptor->assign(Protocol(socket.family, 0), socket.fd, error);
  if (error) return make_error(ErrorCode::kIo, "cannot accept connections: {}", error.message());
  accept_timer.emplace(context);
  return {};
}

void HttpServer::Impl::accept() {
  // The handler must not own its thread: left over in that thread's own context, it would keep itself alive.
  acceptor->async_accept(threads[next_thread]->context,
                         [this, idx = next_thread](const error_code& error, Socket accepted) {
                           if (!acceptor->is_open()) return;
                           if (error) {  // no descriptors left, or the client is gone already
                             accept_timer->expires_after(kAcceptRetry);
                             accept_timer->async_wait([this](const error_code& cancelled) {
                               if (!cancelled && acceptor->is_open()) accept();
                             });
                             return;
                           }
                           if (shared->num_connections >= shared->options.limits.max_connections) {
                             refuse(std::move(accepted));
                           } else {
                             next_thread = (next_thread + 1) % threads.size();
                             adopt(std::move(accepted), threads[idx]);
                           }
                           accept();
                         });
}

void HttpServer::Impl::adopt(Socket accepted, std::shared_ptr<IoThread> thread) {
  const auto connection = std::make_shared<HttpConnection>(shared, thread, std::move(accepted));
  asio::dispatch(thread->context, [thread = thread.get(), connection] {
    thread->connections.insert(connection);
    connection->start();
  });
}

// One attempt, without waiting. A TLS client would have to shake hands first: it sees the connection close.
void HttpServer::Impl::refuse(Socket accepted) {
  if (shared->tls) return;
  const HttpResponse response = shared->options.error_response(503, "Too many open connections");
  const std::string bytes =
      format_head(response, {.keep_alive = false, .content_length = response.body.size()}) + response.body;
  error_code ignored;
  accepted.non_blocking(true, ignored);
  accepted.write_some(asio::buffer(bytes), ignored);
}

void HttpServer::Impl::tick(IoThread* thread) {
  thread->last_tick_ms = steady_ms();
  thread->ticker.expires_after(kTick);
  thread->ticker.async_wait([this, thread](const error_code& cancelled) {
    if (cancelled) return;
    const auto now = Clock::now();
    std::vector<std::shared_ptr<HttpConnection>> due;  // check() may remove them from the set
    for (const auto& connection : thread->connections) {
      if (connection->is_due(now)) due.push_back(connection);
    }
    for (const auto& connection : due) connection->check(now);
    if (thread == threads[0].get() && shared->options.on_tick) shared->options.on_tick();
    tick(thread);
  });
}

void HttpServer::Impl::run(IoThread* thread, size_t index) {
  pthread_setname_np(pthread_self(), fmt::format("http-io-{}", index).c_str());
  thread->context.run();
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
  for (size_t i = 0; i < impl->threads.size(); ++i) {
    IoThread* thread = impl->threads[i].get();
    impl->tick(thread);
    thread->thread = std::thread([raw = impl.get(), thread, i] { raw->run(thread, i); });
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

uint16_t HttpServer::port() const { return impl_->socket.port; }

bool HttpServer::responsive(std::chrono::milliseconds limit) const {
  const int64_t now = steady_ms();
  return std::all_of(impl_->threads.begin(), impl_->threads.end(),
                     [&](const auto& thread) { return now - thread->last_tick_ms <= limit.count(); });
}

void HttpServer::drain() { impl_->shared->draining = true; }

bool HttpServer::wait_drained(std::chrono::milliseconds limit) {
  std::unique_lock lock(impl_->shared->mutex);
  return impl_->shared->none_busy.wait_for(lock, limit, [&] { return impl_->shared->num_busy == 0; });
}

void HttpServer::stop() {
  if (!impl_ || impl_->stopped) return;
  impl_->stopped = true;
  drain();
  remove_unix_socket(impl_->socket);
  for (const auto& thread : impl_->threads) {
    asio::post(thread->context, [impl = impl_.get(), raw = thread.get()] {
      if (raw == impl->threads[0].get()) {
        error_code ignored;
        impl->accept_timer->cancel();
        impl->acceptor->close(ignored);
      }
      const std::vector<std::shared_ptr<HttpConnection>> connections(raw->connections.begin(), raw->connections.end());
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
