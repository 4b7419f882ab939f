#include "bench/serve_load.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

// vLLM's client waits as long for an answer.
constexpr HttpCallLimits kLimits = {
    .timeout = std::chrono::hours(6), .connect_timeout = std::chrono::minutes(1), .max_bytes = size_t{1} << 30};

// Starts one call whose end fills `record` and then runs `done`, on the IO thread.
void start_call(HttpClient& client, const HttpCall& call, ServeRoute route, ServeRecord& record,
                std::function<void()> done) {
  const auto reader = std::make_shared<ServeStreamReader>(route, Clock::now());
  const HttpCallbacks callbacks = {
      .on_head = [reader](const HttpReply& head, HttpTime) { reader->head(head); },
      .on_body = [reader](std::string_view bytes, HttpTime when) { reader->body(bytes, when); },
      .on_end =
          [reader, &record, done](Status end, HttpTime) {
            reader->finish(end, record);
            done();
          }};
  if (const auto started = client.start(call, kLimits, callbacks); !started) {
    reader->finish(tl::unexpected(started.error()), record);
    done();
  }
}

// Everything but wait() runs on the IO thread.
class LoadGenerator {
 public:
  LoadGenerator(HttpClient& client, const ServeTarget& target, const std::vector<ServePrompt>& prompts,
                const ServeLoad& load, NumpyRandom& random)
      : client_(client), route_(target.route), load_(load), random_(random), records_(prompts.size()) {
    for (size_t i = 0; i < prompts.size(); ++i) {
      calls_.push_back(serve_call(target, prompts[i]));
      records_[i].num_prompt_tokens = prompts[i].num_prompt_tokens;
      records_[i].num_asked_tokens = prompts[i].num_output_tokens;
    }
  }

  ServeRun wait(const std::function<void(size_t)>& progress) {
    client_.post([this] {
      begin_ = due_ = Clock::now();
      hand_out();
    });
    std::unique_lock lock(mutex_);
    for (size_t told = 0; told < records_.size();) {
      changed_.wait(lock, [&] { return num_ended_ > told; });
      told = num_ended_;
      lock.unlock();
      if (progress) progress(told);
      lock.lock();
    }
    return {std::chrono::duration<double>(end_ - begin_).count(), std::move(records_)};
  }

 private:
  // Hands out what is due and comes back when the next one is.
  void hand_out() {
    const double theta = 1 / (load_.request_rate * load_.burstiness);
    while (num_handed_out_ < calls_.size() && Clock::now() >= due_) {
      ++num_handed_out_;
      if (std::isinf(load_.request_rate)) continue;
      constexpr double kMostSeconds = 1e6;
      const double gap_s = std::min(random_.gamma(load_.burstiness, theta), kMostSeconds);
      due_ += std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(gap_s));
    }
    send();
    if (num_handed_out_ < calls_.size()) client_.post([this] { hand_out(); }, due_ - Clock::now());
  }

  // Sends what was handed out while there are places.
  void send() {
    while (num_sent_ < num_handed_out_ && (!load_.max_concurrency || num_running_ < *load_.max_concurrency)) {
      const size_t i = num_sent_++;
      ++num_running_;
      records_[i].start_s = std::chrono::duration<double>(Clock::now() - begin_).count();
      start_call(client_, calls_[i], route_, records_[i], [this] { client_.post([this] { on_end(); }); });
    }
  }

  void on_end() {
    --num_running_;
    send();
    const std::lock_guard lock(mutex_);
    end_ = Clock::now();
    ++num_ended_;
    changed_.notify_all();
  }

  HttpClient& client_;
  const ServeRoute route_;
  const ServeLoad load_;
  NumpyRandom& random_;
  std::vector<HttpCall> calls_;
  std::vector<ServeRecord> records_;
  Clock::time_point begin_, due_;  // due_: of the next request
  size_t num_handed_out_ = 0, num_sent_ = 0;
  int64_t num_running_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  size_t num_ended_ = 0;
  Clock::time_point end_;
};

}  // namespace

HttpCall serve_call(const ServeTarget& target, const ServePrompt& prompt) {
  const bool is_chat = target.route == ServeRoute::kChat;
  Json body = {{"model", target.model}};
  if (is_chat) {
    Json part = {{"type", "text"}, {"text", prompt.text}};
    Json message = {{"role", "user"}, {"content", Json::array({std::move(part)})}};
    body["messages"] = Json::array({std::move(message)});
  } else {
    body["prompt"] = prompt.text;
  }
  body["temperature"] = target.temperature;
  body[is_chat ? "max_completion_tokens" : "max_tokens"] = prompt.num_output_tokens;
  if (!is_chat) {
    body["best_of"] = target.best_of;
    body["logprobs"] = target.logprobs ? Json(*target.logprobs) : Json();
  } else if (target.logprobs) {
    body["logprobs"] = true;
    body["top_logprobs"] = *target.logprobs;
  }
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  if (target.ignore_eos) body["ignore_eos"] = true;
  for (const auto& [name, value] : target.extra.items()) body[name] = value;
  return {.method = "POST",
          .url = target.url,
          .body = dump_json(body),
          .api_key = target.api_key,
          .headers = target.headers};
}

ServeRecord serve_once(HttpClient& client, const ServeTarget& target, const ServePrompt& prompt) {
  NumpyRandom unused(0);
  return std::move(run_serve_load(client, target, {prompt}, {}, unused, {}).records.front());
}

ServeRun run_serve_load(HttpClient& client, const ServeTarget& target, const std::vector<ServePrompt>& prompts,
                        const ServeLoad& load, NumpyRandom& random, const std::function<void(size_t)>& progress) {
  return LoadGenerator(client, target, prompts, load, random).wait(progress);
}

void count_missing_tokens(ServeRun& run, const Tokenizer& tokenizer) {
  for (ServeRecord& record : run.records) {
    if (!record.success || record.num_output_tokens > 0) continue;
    const auto ids = tokenizer.encode(record.reasoning + record.text, {});
    if (ids) record.num_output_tokens = static_cast<int64_t>(ids->size());
  }
}

}  // namespace hadal
