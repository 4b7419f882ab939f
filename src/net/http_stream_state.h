// What an HttpStream's reader and the IO thread share.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>

#include "net/http_client.h"

namespace hadal {

struct HttpStream::State {
  // For HttpClient::start(): they fill `state`.
  static HttpCallbacks callbacks(std::shared_ptr<State> state);

  std::function<void()> cancel_call;  // thread-safe; set before the stream is handed out

  std::mutex mutex;  // of all below
  std::condition_variable changed;
  std::optional<HttpReply> head;
  std::deque<Piece> pieces;  // not read yet
  std::optional<Status> end;
};

}  // namespace hadal
