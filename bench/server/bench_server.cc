// bench_server [--streams 64] [--tokens 256] [--json FILE]: what the server costs per generated token, the engine
// excluded: HTTP, scheduling, detokenising, parsing, JSON. Streams over loopback, one IO thread, clients in a process
// of their own.
#include <sys/resource.h>
#include <time.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <thread>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "bench/null_model.h"
#include "engine/engine.h"
#include "server/server.h"
#include "stream_clients.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::filesystem::path model_dir = "models/nano";
  int num_streams = 64;
  int num_tokens = 256;
  int repetitions = 3;
  double paced_tokens_per_s = 5000;
  std::string path = "/v1/completions";
  std::string json_path;
};

double process_cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// CPU time: other work on the machine does not count.
double thread_cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// One token of each request a step, at no cost but its sinks' (which are the server's).
class TokenSource : public Engine {
 public:
  TokenSource(int num_streams, double steps_per_s, int32_t vocab_size)
      : num_streams_(num_streams),
        step_time_(steps_per_s > 0 ? std::chrono::nanoseconds(static_cast<int64_t>(1e9 / steps_per_s))
                                   : std::chrono::nanoseconds(0)),
        vocab_size_(vocab_size),
        thread_([this] { loop(); }) {}
  ~TokenSource() override { stop(); }

  Status submit(Request request, OutputSink sink) override {
    const std::lock_guard lock(mutex_);
    waiting_.push_back({std::move(request), std::move(sink)});
    changed_.notify_all();
    return {};
  }
  void abort(const std::string&) override {}
  EngineStats stats() const override { return {}; }
  bool healthy() const override { return true; }
  void reset_prefix_cache() override {}
  void stop() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      changed_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
  }

 private:
  struct Running {
    Request request;
    OutputSink sink;
  };

  // Waits for all streams, so that every step has all of them.
  void loop() {
    while (true) {
      std::vector<Running> batch;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stopping_ || waiting_.size() >= static_cast<size_t>(num_streams_); });
        if (stopping_) return;
        batch.swap(waiting_);
      }
      run(batch);
    }
  }

  void run(const std::vector<Running>& batch) {
    auto next = Clock::now();
    const int64_t num_steps = batch.front().request.sampling.max_tokens;
    for (int64_t step = 0; step < num_steps; ++step) {
      for (size_t i = 0; i < batch.size(); ++i) {
        RequestOutput output;
        const auto id = static_cast<int32_t>((static_cast<uint64_t>(step) * 2654435761u + i * 40503u) % vocab_size_);
        output.tokens.push_back({.token_id = id});
        output.num_prompt_tokens = static_cast<int64_t>(batch[i].request.prompt_ids.size());
        if (step + 1 == num_steps) output.finish_reason = FinishReason::kLength;
        batch[i].sink(std::move(output));
      }
      next += step_time_;
      if (step_time_.count() > 0) std::this_thread::sleep_until(next);
    }
  }

  const int num_streams_;
  const std::chrono::nanoseconds step_time_;
  const uint64_t vocab_size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Running> waiting_;
  bool stopping_ = false;
  std::thread thread_;
};

struct Row {
  std::string name;
  double us_per_token = 0;  // CPU of all threads
  double tokens_per_s = 0;
  double bytes_per_token = 0;
};

class Bench {
 public:
  Bench(const Options& options, StreamClients* clients) : options_(options), clients_(clients) {}

  Expected<Row> measure(const std::string& name, double tokens_per_s, bool real_engine) {
    HADAL_ASSIGN_OR_RETURN(auto tokenizer, Tokenizer::load(options_.model_dir));
    const auto vocab_size = static_cast<int32_t>(tokenizer->vocab_size());
    ServerOptions server_options{
        .host = "127.0.0.1", .port = 0, .num_io_threads = 1, .served_model_names = {"m"}, .log_access = false};
    HADAL_ASSIGN_OR_RETURN(auto server, Server::start(server_options));
    // CPU time of forward passes and sampling.
    auto excluded = std::make_shared<std::atomic<double>>(0);
    ServingContext context;
    if (real_engine) {
      HADAL_ASSIGN_OR_RETURN(context.engine, null_engine(vocab_size, server->step_observer(), excluded));
    } else {
      context.engine =
          std::make_shared<TokenSource>(options_.num_streams, tokens_per_s / options_.num_streams, vocab_size);
    }
    context.tokenizer = std::move(tokenizer);
    context.chat_template = ChatTemplate::parse("{% for m in messages %}{{ m.content }}{% endfor %}<think>\n").value();
    context.facts.root = "bench";
    context.facts.max_model_len = options_.num_tokens + 64;
    server->attach(std::move(context));
    run(server->port(), 8);  // warm
    const double cpu_before = process_cpu_seconds() - excluded->load();
    const StreamResult result = run(server->port(), options_.num_tokens);
    const double cpu = process_cpu_seconds() - excluded->load() - cpu_before;
    if (result.num_ended != options_.num_streams) return make_error(ErrorCode::kInternal, "streams were cut short");
    const double num_tokens = static_cast<double>(options_.num_streams) * options_.num_tokens;
    return Row{name, 1e6 * cpu / num_tokens, num_tokens / result.seconds,
               static_cast<double>(result.num_bytes) / num_tokens};
  }

 private:
  StreamResult run(uint16_t port, int num_tokens) {
    const bool is_chat = options_.path.find("chat") != std::string::npos;
    const std::string body = fmt::format(
        R"({{{},"max_tokens":{},"stream":true,"ignore_eos":true,"temperature":1,"seed":1}})",
        is_chat ? R"("messages":[{"role":"user","content":"Hello there"}])" : R"("prompt":"Hello there")", num_tokens);
    return clients_->run(port, options_.num_streams, options_.path, body);
  }

  Expected<std::unique_ptr<Engine>> null_engine(int32_t vocab_size, StepObserver observer,
                                                const std::shared_ptr<std::atomic<double>>& excluded) {
    const int64_t len = options_.num_tokens + 64;
    EngineOptions engine{.max_model_len = len,
                         .max_num_seqs = options_.num_streams,
                         .max_num_batched_tokens = 2048,
                         .num_blocks = options_.num_streams * (len / 64 + 2)};
    return make_engine(std::make_unique<NullModel>(vocab_size), engine,
                       [observer = std::move(observer), excluded, before = 0.0](const StepRecord& record) mutable {
                         const double now = thread_cpu_seconds();
                         const double share = (record.forward.wall_s + record.sampling_s) / record.duration_s;
                         excluded->store(excluded->load() + std::min(1.0, share) * (now - before));
                         before = now;
                         observer(record);
                       });
  }

  const Options options_;
  StreamClients* const clients_;
};

Expected<Json> run_all(const Options& options) {
  StreamClients clients;  // forks: before any thread
  Bench bench(options, &clients);
  const struct {
    std::string name;
    double tokens_per_s;
    bool real_engine;
  } kRows[] = {
      {fmt::format("{:.0f} tokens/s, one write each", options.paced_tokens_per_s), options.paced_tokens_per_s, false},
      {"as fast as they come", 0, false},
      {"real engine, null model", 0, true}};
  Json rows = Json::array();
  std::printf("%-36s %14s %14s %14s\n", options.path.c_str(), "us CPU/token", "tokens/s", "bytes/token");
  for (const auto& kind : kRows) {
    Row best;
    for (int i = 0; i < options.repetitions; ++i) {
      HADAL_ASSIGN_OR_RETURN(const Row row, bench.measure(kind.name, kind.tokens_per_s, kind.real_engine));
      if (i == 0 || row.us_per_token < best.us_per_token) best = row;
    }
    std::printf("%-36s %14.1f %14.0f %14.0f\n", best.name.c_str(), best.us_per_token, best.tokens_per_s,
                best.bytes_per_token);
    rows.push_back({{"name", best.name},
                    {"us_per_token", best.us_per_token},
                    {"tokens_per_s", best.tokens_per_s},
                    {"bytes_per_token", best.bytes_per_token}});
  }
  std::printf("goals: at most 30 us of CPU a token, at least 5000 tokens/s from one IO thread\n");
  return Json{{"kind", "server"}, {"streams", options.num_streams}, {"tokens", options.num_tokens}, {"rows", rows}};
}

}  // namespace
}  // namespace hadal

int main(int argc, char** argv) {
  hadal::Options options;
  CLI::App app{"CPU time of the server per generated token"};
  app.add_option("--model", options.model_dir, "Folder with the tokenizer")->capture_default_str();
  app.add_option("--streams", options.num_streams)->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--tokens", options.num_tokens)->check(CLI::Range(1, 100000))->capture_default_str();
  app.add_option("--repetitions", options.repetitions)->check(CLI::Range(1, 100))->capture_default_str();
  app.add_option("--paced", options.paced_tokens_per_s, "Tokens/s of the paced row")->capture_default_str();
  app.add_option("--path", options.path, "/v1/completions or /v1/chat/completions")->capture_default_str();
  app.add_option("--json", options.json_path, "Writes the results there");
  CLI11_PARSE(app, argc, argv);
  hadal::set_log_level(hadal::LogLevel::kWarning);
  const auto result = hadal::run_all(options);
  if (!result) {
    std::fprintf(stderr, "bench_server: %s\n", result.error().message.c_str());
    return 1;
  }
  if (options.json_path.empty()) return 0;
  const auto written = hadal::write_file_atomically(options.json_path, hadal::dump_json(*result));
  if (written) return 0;
  std::fprintf(stderr, "bench_server: %s\n", written.error().message.c_str());
  return 1;
}
