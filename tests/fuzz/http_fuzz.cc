// HttpRequestParser: no bytes crash it, limits hold, and the outcome does not depend on how the bytes are cut. A parsed
// request's head has only CR LF line breaks and, written out again by us, can not carry one out of a value.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/http_head.h"
#include "server/http_parser.h"

namespace {

using hadal::HttpRequestParser;
using State = HttpRequestParser::State;

const hadal::HttpLimits kLimits{.max_header_bytes = 4096, .max_headers = 16, .max_body_bytes = 8192};

struct Outcome {
  std::vector<std::string> requests;
  int error_status = 0;
};

// Takes as many requests as there are, from pieces of `step` bytes.
Outcome parse_all(std::string_view bytes, size_t step) {
  Outcome outcome;
  std::string pending;
  auto parser = std::make_unique<HttpRequestParser>(kLimits);
  for (size_t at = 0; at < bytes.size(); at += step) {
    pending += bytes.substr(at, step);
    while (!pending.empty()) {
      const size_t consumed = parser->feed(pending);
      if (consumed > pending.size() || parser->num_body_bytes() > kLimits.max_body_bytes) std::abort();
      pending.erase(0, consumed);
      if (parser->state() == State::kError) {
        outcome.error_status = parser->error_status();
        return outcome;
      }
      if (parser->state() == State::kDone) {
        hadal::HttpRequest request = parser->take();
        hadal::HttpResponse response;
        response.headers = request.headers;
        const std::string head = hadal::format_head(response, {});
        if (head.find("\r\n\r\n") != head.size() - 4) std::abort();
        outcome.requests.push_back(request.method + " " + request.path + "?" + request.query + " " + request.body);
        parser = std::make_unique<HttpRequestParser>(kLimits);
      } else if (consumed == 0) {
        break;
      }
    }
  }
  return outcome;
}

// A head that was accepted holds no line break but CR LF: nobody else can see other lines in it.
void check_line_breaks(std::string_view bytes) {
  const std::string_view head = bytes.substr(0, bytes.find("\r\n\r\n"));
  for (size_t i = 0; i < head.size(); ++i) {
    const bool after_return = i > 0 && head[i - 1] == '\r';
    if ((head[i] == '\n') != after_return) std::abort();
    if (i > 0 && head[i - 1] == '\n' && (head[i] == ' ' || head[i] == '\t')) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 32768) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Outcome whole = parse_all(bytes, bytes.size() + 1);
  const Outcome pieces = parse_all(bytes, 1);
  if (whole.requests != pieces.requests) std::abort();
  if (!whole.requests.empty()) check_line_breaks(bytes);
  return 0;
}
