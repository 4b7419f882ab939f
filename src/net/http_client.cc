#include "net/http_client.h"

#include <utility>  // Asio 1.74 uses std::exchange without it

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>

#include <thread>
#include <unordered_map>

#include "net/client_connection.h"
#include "net/http_request.h"
#include "net/http_stream_state.h"

namespace hadal {

namespace asio = boost::asio;

struct HttpClient::Impl {
  explicit Impl(HttpClientOptions client_options) : options(std::move(client_options)) {
    thread = std::thread([this] { context.run(); });
  }
  ~Impl() { stop(); }

  // Ends every call, then the thread. A look-up of a name that is under way is waited for.
  void stop() {
    if (!thread.joinable()) return;
    asio::post(context, [this] {
      stopping = true;
      while (!connections.empty()) end_as_cancelled(connections.begin()->first);
      context.stop();
    });
    thread.join();
  }

  void cancel(uint64_t id) {
    asio::post(context, [this, id] { end_as_cancelled(id); });
  }

  // The rest runs on the IO thread.

  void end_as_cancelled(uint64_t id) {
    const auto found = connections.find(id);
    if (found == connections.end()) return;
    const auto connection = found->second;
    connection->fail({ErrorCode::kCancelled, "cancelled"});
  }

  Expected<asio::ssl::context*> tls_context() {
    if (tls) return &*tls;
    asio::ssl::context made(asio::ssl::context::tls_client);
    boost::system::error_code failed;
    if (options.ca_file.empty()) {
      made.set_default_verify_paths(failed);
    } else {
      made.load_verify_file(options.ca_file, failed);
    }
    if (failed) {
      return make_error(ErrorCode::kInvalidArgument, "certificates to trust: {}{}{}", options.ca_file,
                        options.ca_file.empty() ? "" : ": ", failed.message());
    }
    tls.emplace(std::move(made));
    return &*tls;
  }

  void start(uint64_t id, ClientConnection::Parts parts, const std::string& url) {
    // The connection forgets itself before its owner hears of the end.
    parts.callbacks.on_end = [this, id, url, on_end = std::move(parts.callbacks.on_end)](Status end, HttpTime when) {
      const auto ended = connections.extract(id);
      if (!on_end) return;
      on_end(end ? std::move(end) : Status(tl::unexpected(std::move(end).error().in(url))), when);
    };
    Status status;
    if (stopping) status = make_error(ErrorCode::kCancelled, "cancelled");
    if (status && parts.url.scheme == HttpUrl::Scheme::kHttps) {
      status = tls_context().map([&](asio::ssl::context* made) { parts.tls = made; });
      parts.verify_tls = options.verify_tls;
    }
    const auto connection = std::make_shared<ClientConnection>(context, std::move(parts));
    connections.emplace(id, connection);
    status ? connection->start(names) : connection->fail(std::move(status).error());
  }

  const HttpClientOptions options;
  std::atomic<uint64_t> next_id{1};
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> keep_running{context.get_executor()};
  std::optional<asio::ssl::context> tls;
  NameCache names{context};
  std::unordered_map<uint64_t, std::shared_ptr<ClientConnection>> connections;
  bool stopping = false;
  std::thread thread;
};

HttpClient::HttpClient(HttpClientOptions options) : impl_(std::make_shared<Impl>(std::move(options))) {}
HttpClient::~HttpClient() { impl_->stop(); }

Expected<uint64_t> HttpClient::start(const HttpCall& call, const HttpCallLimits& limits, HttpCallbacks callbacks) {
  HADAL_ASSIGN_OR_RETURN(HttpUrl url, parse_url(call.url));
  auto request = format_request(call, url);
  if (!request) return forward_error(std::move(request), call.url);
  const uint64_t id = impl_->next_id.fetch_add(1);
  ClientConnection::Parts parts = {
      .url = std::move(url), .request = std::move(*request), .limits = limits, .callbacks = std::move(callbacks)};
  asio::post(impl_->context, [impl = impl_.get(), id, parts = std::move(parts), name = call.url]() mutable {
    impl->start(id, std::move(parts), name);
  });
  return id;
}

void HttpClient::cancel(uint64_t id) { impl_->cancel(id); }

void HttpClient::post(std::function<void()> task, std::chrono::nanoseconds delay) {
  if (delay.count() <= 0) return asio::post(impl_->context, std::move(task));
  auto timer = std::make_shared<asio::steady_timer>(impl_->context, delay);
  timer->async_wait([timer, task = std::move(task)](boost::system::error_code error) {
    if (!error) task();
  });
}

Expected<HttpReply> HttpClient::call(const HttpCall& call, const HttpCallLimits& limits) {
  HADAL_ASSIGN_OR_RETURN(const std::unique_ptr<HttpStream> stream, open(call, limits));
  HADAL_ASSIGN_OR_RETURN(HttpReply reply, stream->head());
  HADAL_ASSIGN_OR_RETURN(reply.body, stream->rest());
  return reply;
}

Expected<std::unique_ptr<HttpStream>> HttpClient::open(const HttpCall& call, const HttpCallLimits& limits) {
  const auto state = std::make_shared<HttpStream::State>();
  HADAL_ASSIGN_OR_RETURN(const uint64_t id, start(call, limits, HttpStream::State::callbacks(state)));
  state->cancel_call = [weak = std::weak_ptr<Impl>(impl_), id] {
    if (const auto impl = weak.lock()) impl->cancel(id);
  };
  return std::unique_ptr<HttpStream>(new HttpStream(state));
}

Expected<HttpReply> http_call(const HttpCall& call, const HttpCallLimits& limits) {
  return HttpClient().call(call, limits);
}

Expected<std::string> http_get(const std::string& url, const HttpCallLimits& limits) {
  HADAL_ASSIGN_OR_RETURN(HttpReply reply, http_call({.url = url}, limits));
  if (reply.status != 200) return make_error(ErrorCode::kNotFound, "{}: {} {}", url, reply.status, reply.reason);
  return std::move(reply.body);
}

}  // namespace hadal
