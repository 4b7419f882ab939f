#include "cli/chat_client.h"

namespace hadal {
namespace {

constexpr size_t kMaxAnswerBytes = size_t{1} << 30;
constexpr size_t kMaxErrorBytes = size_t{1} << 20;

std::string without_version(std::string url) {
  while (url.ends_with('/')) url.pop_back();
  if (url.ends_with("/v1")) url.resize(url.size() - 3);
  return url;
}

tl::unexpected<Error> refused(const HttpReply& head, std::string_view body) {
  const ErrorCode code = head.status == 400 ? ErrorCode::kInvalidArgument : ErrorCode::kUnavailable;
  return make_error(code, "the server answered {}: {}", head.status, error_message_of(body));
}

}  // namespace

ChatClient::ChatClient(std::string base_url, std::string api_key)
    : base_url_(without_version(std::move(base_url))), api_key_(std::move(api_key)) {}

HttpCall ChatClient::call_to(std::string_view path) const {
  HttpCall call;
  call.url = url_below(base_url_, path);
  call.api_key = api_key_;
  return call;
}

Expected<ServedModel> ChatClient::first_model() {
  const HttpCall call = call_to("/v1/models");
  HADAL_ASSIGN_OR_RETURN(const HttpReply reply, client_.call(call));
  if (reply.status != 200) return refused(reply, reply.body);
  HADAL_ASSIGN_OR_RETURN(const Json body, parse_json(reply.body));
  const bool has_name = body.is_object() && body.contains("data") && body["data"].is_array() && !body["data"].empty() &&
                        body["data"][0].is_object() && body["data"][0].contains("id") &&
                        body["data"][0]["id"].is_string();
  if (!has_name) {
    return make_error(ErrorCode::kCorrupt, "{}: no list of models with an `id`; give --model NAME", call.url);
  }
  ServedModel model{.name = body["data"][0]["id"].get<std::string>()};
  const auto length = body["data"][0].find("max_model_len");
  if (length != body["data"][0].end() && length->is_number_integer()) model.max_model_len = length->get<int64_t>();
  return model;
}

Expected<ChatReply> ChatClient::ask(const Json& body, const ChatStream::Show& show) {
  {
    const std::lock_guard lock(mutex_);
    asking_ = true;
    cancelled_ = false;
  }
  ChatStream answer(std::chrono::steady_clock::now(), show);
  auto reply = send_and_follow(body, answer);
  const std::lock_guard lock(mutex_);
  asking_ = false;
  if (!cancelled_ || reply) return reply;
  ChatReply stopped = answer.reply();
  stopped.finish_reason = "stopped";
  return stopped;
}

Expected<ChatReply> ChatClient::send_and_follow(const Json& body, ChatStream& answer) {
  HttpCall call = call_to("/v1/chat/completions");
  call.method = "POST";
  call.body = dump_json(body);
  // An answer may take hours; the user ends it when it takes too long.
  HADAL_ASSIGN_OR_RETURN(const std::unique_ptr<HttpStream> stream,
                         client_.open(call, {.timeout = {}, .max_bytes = kMaxAnswerBytes}));
  {
    const std::lock_guard lock(mutex_);
    running_ = stream.get();
    if (cancelled_) running_->cancel();
  }
  auto reply = follow(*stream, answer);
  const std::lock_guard lock(mutex_);
  running_ = nullptr;  // before the stream goes
  return reply;
}

Expected<ChatReply> ChatClient::follow(HttpStream& stream, ChatStream& answer) {
  HADAL_ASSIGN_OR_RETURN(const HttpReply head, stream.head());
  if (head.status != 200) {
    const auto body = stream.rest();
    return refused(head, body ? std::string_view(*body).substr(0, kMaxErrorBytes) : std::string_view());
  }
  while (!answer.done()) {
    HADAL_ASSIGN_OR_RETURN(const auto piece, stream.next());
    if (!piece) return make_error(ErrorCode::kUnavailable, "the answer broke off: the server closed the connection");
    HADAL_RETURN_IF_ERROR(answer.push(piece->bytes, piece->when));
  }
  return answer.reply();
}

bool ChatClient::cancel() {
  const std::lock_guard lock(mutex_);
  if (!asking_) return false;
  cancelled_ = true;
  if (running_ != nullptr) running_->cancel();
  return true;
}

}  // namespace hadal
