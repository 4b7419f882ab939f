#include "net/http_stream_state.h"

namespace hadal {

HttpCallbacks HttpStream::State::callbacks(std::shared_ptr<State> state) {
  return {.on_head =
              [state](const HttpReply& head, HttpTime) {
                const std::lock_guard lock(state->mutex);
                state->head = head;
                state->changed.notify_all();
              },
          .on_body =
              [state](std::string_view bytes, HttpTime when) {
                const std::lock_guard lock(state->mutex);
                state->pieces.push_back({std::string(bytes), when});
                state->changed.notify_all();
              },
          .on_end =
              [state](Status end, HttpTime) {
                const std::lock_guard lock(state->mutex);
                state->end = std::move(end);
                state->changed.notify_all();
              }};
}

HttpStream::~HttpStream() { cancel(); }

void HttpStream::cancel() { state_->cancel_call(); }

Expected<HttpReply> HttpStream::head() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return state_->head || state_->end; });
  if (!state_->head) return tl::unexpected(state_->end->error());
  return *state_->head;
}

Expected<std::optional<HttpStream::Piece>> HttpStream::next() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return !state_->pieces.empty() || state_->end; });
  if (!state_->pieces.empty()) {
    std::optional<Piece> piece = std::move(state_->pieces.front());
    state_->pieces.pop_front();
    return piece;
  }
  if (!*state_->end) return tl::unexpected(state_->end->error());
  return std::nullopt;
}

Expected<std::string> HttpStream::rest() {
  std::string body;
  for (;;) {
    HADAL_ASSIGN_OR_RETURN(const std::optional<Piece> piece, next());
    if (!piece) return body;
    body += piece->bytes;
  }
}

}  // namespace hadal
