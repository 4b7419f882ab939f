// What one streamed answer of an OpenAI completions or chat route says about time: vLLM's benchmark client's reading.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "net/http_client.h"
#include "net/sse.h"

namespace hadal {

enum class ServeRoute { kCompletions, kChat };

// One request of a benchmark and what became of it. Times in seconds.
struct ServeRecord {
  int64_t num_prompt_tokens = 0;                    // nominal
  int64_t num_asked_tokens = 0;                     // output length asked for
  double start_s = 0;                               // of sending, since the run began
  bool success = false;                             // status 200, at least one choice, no error
  std::string error;                                // why not
  double ttft_s = 0;                                // from sending to the first chunk with a choice
  double latency_s = 0;                             // to the last one (chat: to the last chunk of any kind)
  std::vector<double> itl_s;                        // between chunks with choices
  std::string text, reasoning;                      // generated
  int64_t num_output_tokens = 0;                    // completion_tokens of the usage chunk
  std::optional<int64_t> num_server_prompt_tokens;  // its prompt_tokens
};

// Single-owner. Chunks with `choices` count for time; a chunk without them brings the usage. An error event fails the
// request, as does an event that is no JSON object.
class ServeStreamReader {
 public:
  ServeStreamReader(ServeRoute route, HttpTime sent) : route_(route), sent_(sent) {}

  void head(const HttpReply& head);
  void body(std::string_view bytes, HttpTime when);
  // The end of the answer. Fills the fields of `record` that the stream knows.
  void finish(const Status& end, ServeRecord& record);

 private:
  void take_event(std::string_view data, HttpTime when);
  void take_choice(const Json& choice, HttpTime when);
  void fail(std::string error);

  const ServeRoute route_;
  const HttpTime sent_;
  int status_ = 0;
  std::string reason_, error_body_;
  SseParser events_;
  HttpTime last_choice_{};  // the last chunk with one
  HttpTime last_chunk_{};
  bool has_choice_ = false;
  ServeRecord seen_;
};

}  // namespace hadal
