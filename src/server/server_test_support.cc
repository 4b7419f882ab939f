#include "server/server_test_support.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "base/file.h"
#include "base/utf8.h"
#include "support/test_files.h"

namespace hadal {
namespace {

constexpr char kTemplate[] =
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if tools %}[tools]{% endif %}{% if add_generation_prompt %}[assistant]{% if thinking %}<think>{% endif %}"
    "{% endif %}";

// GPT-2's spelling of a byte.
std::string spelled(int byte) {
  const auto is_shown = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
  std::string out;
  if (is_shown(byte)) {
    append_utf8(out, static_cast<char32_t>(byte));
    return out;
  }
  int rank = 0;
  for (int b = 0; b < byte; ++b) rank += is_shown(b) ? 0 : 1;
  append_utf8(out, static_cast<char32_t>(256 + rank));
  return out;
}

Json tokenizer_json() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[spelled(byte)] = byte;
  Json added = Json::array();
  const auto add = [&](int32_t id, const char* content, bool special) {
    added.push_back({{"id", id},
                     {"content", content},
                     {"special", special},
                     {"normalized", false},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false}});
  };
  add(kTestBos, "<BOS>", true);
  add(kTestEos, "<EOS>", true);
  add(kTestThink, "<think>", false);
  add(kTestEndThink, "</think>", false);
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", Json::array({byte_level})}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}};
}

[[noreturn]] void give_up(const std::string& what) { throw std::runtime_error(what); }

}  // namespace

std::shared_ptr<const Tokenizer> test_tokenizer() {
  static const std::shared_ptr<const Tokenizer> kTokenizer = [] {
    const TempDir dir;
    const Json config = {{"add_bos_token", true}, {"bos_token", "<BOS>"}, {"eos_token", "<EOS>"}};
    if (!write_file_atomically(dir.path() / "tokenizer.json", dump_json(tokenizer_json())) ||
        !write_file_atomically(dir.path() / "tokenizer_config.json", dump_json(config))) {
      give_up("cannot write the test tokenizer");
    }
    auto loaded = Tokenizer::load(dir.path());
    if (!loaded) give_up(loaded.error().message);
    return std::shared_ptr<const Tokenizer>(std::move(*loaded));
  }();
  return kTokenizer;
}

std::vector<int32_t> test_ids(std::string_view text) {
  return test_tokenizer()->encode(text, {.add_special_tokens = false}).value();
}

FakeEngine::FakeEngine(Script script, StepObserver observer)
    : script_(std::move(script)), observer_(std::move(observer)), thread_([this] { loop(); }) {}

FakeEngine::~FakeEngine() { stop(); }

Status FakeEngine::submit(Request request, OutputSink sink) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return make_error(ErrorCode::kUnavailable, "stopping");
  if (running_.size() >= max_running_) return make_error(ErrorCode::kResourceExhausted, "queue full");
  for (const auto& other : running_) {
    if (other->request.request_id == request.request_id) return make_error(ErrorCode::kInvalidArgument, "repeated id");
  }
  seen_.push_back(request);
  auto answer = script_(request);
  running_.push_back(std::make_shared<Running>(Running{std::move(request), std::move(sink), std::move(answer)}));
  changed_.notify_all();
  return {};
}

void FakeEngine::abort(const std::string& request_id) {
  const std::lock_guard lock(mutex_);
  for (const auto& one : running_) {
    if (one->request.request_id != request_id || one->aborted) continue;
    one->aborted = true;
    ++num_aborted_;
  }
  changed_.notify_all();
}

EngineStats FakeEngine::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = totals_;
  stats.num_requests_running = static_cast<int64_t>(running_.size());
  stats.num_preemptions = 7;
  return stats;
}

void FakeEngine::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto& one : running_) one->aborted = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void FakeEngine::hold() {
  const std::lock_guard lock(mutex_);
  held_ = true;
}

void FakeEngine::release() {
  const std::lock_guard lock(mutex_);
  held_ = false;
  changed_.notify_all();
}

void FakeEngine::step(int num_steps) {
  std::unique_lock lock(mutex_);
  steps_allowed_ += num_steps;
  changed_.notify_all();
  changed_.wait_for(lock, std::chrono::seconds(30), [this] { return steps_allowed_ == 0; });
}

void FakeEngine::fail_next_step(std::string error) {
  const std::lock_guard lock(mutex_);
  error_ = std::move(error);
}

bool FakeEngine::wait_running(size_t num) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return running_.size() == num; });
}

size_t FakeEngine::num_aborted() const {
  const std::lock_guard lock(mutex_);
  return num_aborted_;
}

std::vector<Request> FakeEngine::seen() const {
  const std::lock_guard lock(mutex_);
  return seen_;
}

// As a real engine, it frees an aborted request before the next step, which needs no permission here.
void FakeEngine::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    const auto has_aborted = [this] {
      return std::any_of(running_.begin(), running_.end(), [](const auto& one) { return one->aborted; });
    };
    changed_.wait(lock, [&] {
      return (stopping_ && running_.empty()) || has_aborted() || (!running_.empty() && (!held_ || steps_allowed_ > 0));
    });
    if (stopping_ && running_.empty()) return;
    run_step(lock);
  }
}

void FakeEngine::run_step(std::unique_lock<std::mutex>& lock) {
  const bool may_step = !held_ || steps_allowed_ > 0;
  const std::string error = may_step ? std::exchange(error_, "") : "";
  const auto batch = running_;
  StepRecord record;
  for (const auto& one : batch) {
    RequestOutput output;
    if (one->aborted) {
      output.finish_reason = FinishReason::kAbort;
    } else if (!error.empty()) {
      output.finish_reason = FinishReason::kError;
      output.error = error;
    } else if (may_step) {
      output = advance(one.get(), &record);
    } else {
      continue;
    }
    const bool ended = output.finish_reason != FinishReason::kNone;
    lock.unlock();
    one->sink(std::move(output));
    lock.lock();
    if (ended) running_.erase(std::find(running_.begin(), running_.end(), one));
  }
  if (may_step && steps_allowed_ > 0) --steps_allowed_;
  totals_.prompt_tokens += static_cast<uint64_t>(record.num_prefill_tokens);
  totals_.generation_tokens += static_cast<uint64_t>(record.num_generated_tokens);
  record.duration_s = 0.5;
  record.sampling_s = 0.125;
  record.forward.num_threads = 3;
  record.forward.of(StepPhase::kExperts) = {
      .wall_s = 0.25, .busy_s = 0.5, .weight_bytes = 7, .flops = 9, .num_barriers = 2};
  record.forward.of(StepPhase::kHead) = {.kv_bytes = 5, .num_barriers = 1};
  if (observer_ && record.num_generated_tokens > 0) observer_(record);
  changed_.notify_all();
}

namespace {

// The script's token if the constraint allows it, else the lowest id that it allows, blanks last.
int32_t constrained(TokenConstraint& constraint, int32_t wish) {
  std::vector<float> logits(kTestVocabSize, 0.0F);
  std::fill_n(logits.begin(), ' ' + 1, -1.0F);
  logits[static_cast<size_t>(wish)] = 1;
  constraint.apply(logits.data(), kTestVocabSize);
  const auto best = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  constraint.accept(best);
  return best;
}

}  // namespace

RequestOutput FakeEngine::advance(Running* running, StepRecord* record) const {
  const SamplingParams& sampling = running->request.sampling;
  RequestOutput output;
  output.num_prompt_tokens = static_cast<int64_t>(running->request.prompt_ids.size());
  output.num_cached_tokens = 1;
  output.queue_time_s = 0.001;
  const auto make = [](int32_t id, float logprob, int32_t num_top) {
    TokenOutput token{.token_id = id};
    if (num_top < 0) return token;
    token.logprob = TokenLogprob{id, logprob, 1};
    for (int32_t i = 0; i < num_top; ++i) {
      token.top_logprobs.push_back({(id + i) % kTestVocabSize, logprob - static_cast<float>(i), i + 1});
    }
    return token;
  };
  if (running->num_made == 0) {
    record->num_prefill_tokens += output.num_prompt_tokens;
    if (sampling.num_prompt_logprobs >= 0) {
      for (const int32_t id : running->request.prompt_ids) {
        output.prompt_tokens.push_back(
            make(id, -0.5F, output.prompt_tokens.empty() ? -1 : sampling.num_prompt_logprobs));
      }
    }
  } else {
    ++record->num_decode_tokens;
  }
  for (int i = 0; i < tokens_per_step_ && output.finish_reason == FinishReason::kNone; ++i) {
    const size_t k = running->num_made++;
    int32_t id = k < running->answer.size() ? running->answer[k] : kTestEos;
    if (running->request.constraint) id = constrained(*running->request.constraint, id);
    output.tokens.push_back(make(id, -static_cast<float>(k + 1) / 8, sampling.num_logprobs));
    ++record->num_generated_tokens;
    const auto& stops = sampling.stop_token_ids;
    const auto made = static_cast<int64_t>(running->num_made);
    if (made > sampling.min_tokens && std::find(stops.begin(), stops.end(), id) != stops.end()) {
      output.finish_reason = FinishReason::kStop;
      output.stop_token_id = id;
    } else if (made >= sampling.max_tokens) {
      output.finish_reason = FinishReason::kLength;
    }
  }
  return output;
}

std::string HttpReply::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

Json HttpReply::json() const {
  auto parsed = parse_json(body);
  if (!parsed) give_up("not JSON: " + body);
  return *parsed;
}

std::vector<std::string> HttpReply::events() const {
  std::vector<std::string> out;
  size_t at = 0;
  while (at < body.size()) {
    const size_t end = std::min(body.find('\n', at), body.size());
    const std::string line = body.substr(at, end - at);
    if (line.starts_with("data: ")) {
      out.push_back(line.substr(6));
    } else if (!line.empty()) {
      out.push_back("BAD " + line);
    }
    at = end + 1;
  }
  return out;
}

TestClient::TestClient(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  open(reinterpret_cast<sockaddr*>(&address), sizeof address);
}

TestClient::TestClient(const std::string& unix_socket) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  unix_socket.copy(address.sun_path, sizeof address.sun_path - 1);
  open(reinterpret_cast<sockaddr*>(&address), sizeof address);
}

void TestClient::open(const sockaddr* address, size_t size) {
  fd_ = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval timeout{.tv_sec = 120, .tv_usec = 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  if (connect(fd_, address, static_cast<socklen_t>(size)) != 0) give_up("cannot connect");
}

TestClient::~TestClient() { close(); }

void TestClient::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void TestClient::half_close() { ::shutdown(fd_, SHUT_WR); }

void TestClient::set_receive_buffer(int num_bytes) {
  setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &num_bytes, sizeof num_bytes);
}

bool TestClient::try_send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

void TestClient::send(std::string_view bytes) {
  if (!try_send(bytes)) give_up("send failed");
}

bool TestClient::fill() {
  char chunk[16384];
  const ssize_t size = recv(fd_, chunk, sizeof chunk, 0);
  if (size <= 0) return false;
  buffer_.append(chunk, static_cast<size_t>(size));
  return true;
}

std::string TestClient::read_some() {
  if (buffer_.empty()) fill();
  return std::exchange(buffer_, "");
}

std::string TestClient::read_all() {
  while (fill()) {
  }
  return std::exchange(buffer_, "");
}

bool TestClient::closed_by_peer() {
  if (!buffer_.empty()) return false;
  char byte;
  const ssize_t size = recv(fd_, &byte, 1, 0);
  return size == 0 || (size < 0 && errno != EAGAIN);
}

HttpReply TestClient::read_reply(bool head) {
  HttpReply reply;
  size_t end;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
    if (!fill()) return reply;
  }
  const std::string text = buffer_.substr(0, end + 2);
  buffer_.erase(0, end + 4);
  reply.status = std::stoi(text.substr(text.find(' ') + 1));
  for (size_t at = text.find("\r\n") + 2; at < text.size();) {
    const size_t line_end = text.find("\r\n", at);
    const size_t colon = text.find(": ", at);
    std::string name = text.substr(at, colon - at);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    reply.headers.emplace(name, text.substr(colon + 2, line_end - colon - 2));
    at = line_end + 2;
  }
  if (head || reply.status == 100) return reply;
  if (reply.header("transfer-encoding") != "chunked") {
    const std::string length = reply.header("content-length");
    const size_t size = length.empty() ? std::string::npos : std::stoul(length);
    while (buffer_.size() < size && fill()) {
    }
    reply.body = buffer_.substr(0, std::min(size, buffer_.size()));
    buffer_.erase(0, reply.body.size());
    return reply;
  }
  while (true) {
    size_t line_end;
    while ((line_end = buffer_.find("\r\n")) == std::string::npos) {
      if (!fill()) return reply;
    }
    const size_t size = std::stoul(buffer_.substr(0, line_end), nullptr, 16);
    while (buffer_.size() < line_end + 2 + size + 2) {
      if (!fill()) return reply;
    }
    reply.body += buffer_.substr(line_end + 2, size);
    buffer_.erase(0, line_end + 2 + size + 2);
    if (size == 0) return reply;
  }
}

std::string http_request(std::string_view method, std::string_view path, std::string_view body,
                         std::string_view extra_headers) {
  std::string text = fmt::format("{} {} HTTP/1.1\r\nHost: test\r\n{}", method, path, extra_headers);
  if (!body.empty() || method == "POST") text += fmt::format("Content-Length: {}\r\n", body.size());
  return text + "\r\n" + std::string(body);
}

HttpReply http_call(uint16_t port, std::string_view method, std::string_view path, std::string_view body,
                    std::string_view extra_headers) {
  TestClient client(port);
  client.send(http_request(method, path, body, extra_headers));
  return client.read_reply(method == "HEAD");
}

TestServer::TestServer(FakeEngine::Script script, ServerOptions options, bool attach_now) {
  options.host = "127.0.0.1";
  options.port = 0;
  if (options.served_model_names.empty()) options.served_model_names = {"m", "second/name"};
  options.version = "1.2.3";
  options.log_access = false;
  auto started = Server::start(std::move(options));
  if (!started) give_up(started.error().message);
  server = std::move(*started);
  engine = std::make_shared<FakeEngine>(std::move(script), server->step_observer());
  if (attach_now) attach();
}

TestServer::TestServer(const std::string& answer, ServerOptions options)
    : TestServer([ids = test_ids(answer)](const Request&) { return ids; }, std::move(options)) {}

TestServer::~TestServer() {
  server.reset();
  engine->stop();
}

void TestServer::attach() {
  ServingContext context{engine, test_tokenizer(), ChatTemplate::parse(kTemplate).value(), {}};
  context.facts = {
      .root = "/models/test", .max_model_len = max_model_len, .eos_token_ids = {kTestEos}, .defaults = defaults};
  server->attach(std::move(context));
}

double TestServer::metric(const std::string& name_and_labels) const {
  const std::string text = get("/metrics").body;
  const size_t at = text.find("\n" + name_and_labels + " ");
  if (at == std::string::npos) return std::nan("");
  return std::stod(text.substr(at + name_and_labels.size() + 2));
}

std::string joined(const std::vector<std::string>& events, const std::string& pointer) {
  std::string out;
  for (const std::string& event : events) {
    if (event == "[DONE]") continue;
    const Json chunk = parse_json(event).value();
    const auto at = Json::json_pointer(pointer);
    if (chunk.contains(at) && chunk[at].is_string()) out += chunk[at].get<std::string>();
  }
  return out;
}

void expect_error(const HttpReply& reply, int status, const std::string& fragment) {
  EXPECT_EQ(reply.status, status) << reply.body;
  const Json error = reply.json()["error"];
  EXPECT_EQ(error["code"], status);
  EXPECT_NE(error["message"].get<std::string>().find(fragment), std::string::npos) << reply.body;
  EXPECT_TRUE(error.contains("type") && error.contains("param"));
  EXPECT_EQ(reply.header("content-type"), "application/json");
}

bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 3000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return condition();
}

}  // namespace hadal
