// An HTTP server on a port of its own, and what its handler does with each path.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/api_error.h"
#include "server/http.h"
#include "server/server_test_support.h"

namespace hadal {

// /big answers with 16 MB, far beyond what the kernel buffers, /hold keeps the exchange, /stream begins a stream and
// keeps the exchange, others answer with the body.
class HttpTest : public ::testing::Test {
 protected:
  static constexpr size_t kBigBytes = size_t{16} << 20;

  void start(HttpLimits limits = {}) { start_with({.host = "127.0.0.1", .port = 0, .limits = limits}); }
  void start_with(HttpServerOptions options) {
    options.handler = [this](std::shared_ptr<HttpExchange> exchange) { handle(std::move(exchange)); };
    options.error_response = [](int status, const std::string& message) {
      return api_error_response({status, message});
    };
    options.on_access = [this](const HttpAccess& access) {
      const std::lock_guard lock(mutex_);
      statuses_.push_back(access.status);
    };
    auto started = HttpServer::start(std::move(options));
    ASSERT_TRUE(started.has_value()) << started.error().message;
    server_ = std::move(*started);
  }
  void TearDown() override {
    if (server_) server_->stop();
  }

  void handle(std::shared_ptr<HttpExchange> exchange) {
    const std::string& path = exchange->request().path;
    if (path == "/throw") throw std::runtime_error("boom");
    if (path == "/big") return exchange->respond({.body = std::string(kBigBytes, 'b'), .content_type = "text/plain"});
    if (path == "/hold" || path == "/stream") {
      exchange->on_disconnect([this] { ++num_disconnects_; });
      if (path == "/stream") exchange->start_stream({.content_type = "text/plain"});
      const std::lock_guard lock(mutex_);
      held_.push_back(std::move(exchange));
      return;
    }
    if (path == "/deadline") {
      exchange->set_deadline(exchange->request().arrival + std::chrono::milliseconds(50),
                             [weak = std::weak_ptr(exchange)] {
                               if (const auto alive = weak.lock()) alive->respond({.status = 504, .body = "too late"});
                             });
      return;
    }
    if (path == "/silent") {
      exchange->keep_alive({.interval = std::chrono::milliseconds(120),
                            .head = {.content_type = "text/event-stream"},
                            .filler = ": waiting\n\n",
                            .late_answer = [](const HttpResponse& answer) { return "data: " + answer.body + "\n\n"; }});
      if (exchange->request().method == "POST") return exchange->respond({.status = 503, .body = "gone"});
      const std::lock_guard lock(mutex_);
      held_.push_back(std::move(exchange));
      return;
    }
    if (path == "/late") {  // answered from another thread, without listening for disconnects
      std::thread([exchange] {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        exchange->respond({.body = "late", .content_type = "text/plain"});
      }).detach();
      return;
    }
    exchange->respond(
        {.body = exchange->request().method + path + "|" + exchange->request().body, .content_type = "text/plain"});
  }
  size_t num_held() {
    const std::lock_guard lock(mutex_);
    return held_.size();
  }
  std::vector<int> statuses() {
    const std::lock_guard lock(mutex_);
    return statuses_;
  }
  uint16_t port() const { return server_->port(); }

  std::mutex mutex_;
  std::vector<std::shared_ptr<HttpExchange>> held_;
  std::vector<int> statuses_;
  std::atomic<int> num_disconnects_{0};
  std::unique_ptr<HttpServer> server_;
};

}  // namespace hadal
