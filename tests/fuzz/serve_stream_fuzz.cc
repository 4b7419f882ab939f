// A streamed answer as the benchmark reads it: what it records must not depend on how the bytes are cut.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "bench/serve_stream.h"

namespace {

hadal::ServeRecord read(std::string_view bytes, size_t step, hadal::ServeRoute route) {
  hadal::ServeStreamReader reader(route, {});
  reader.head({.status = 200});
  for (size_t at = 0; at < bytes.size(); at += step) reader.body(bytes.substr(at, step), {});
  hadal::ServeRecord record;
  reader.finish({}, record);
  return record;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  for (const auto route : {hadal::ServeRoute::kCompletions, hadal::ServeRoute::kChat}) {
    const hadal::ServeRecord whole = read(bytes, size + 1, route), pieces = read(bytes, 3, route);
    if (whole.success != pieces.success || whole.error != pieces.error || whole.text != pieces.text ||
        whole.reasoning != pieces.reasoning || whole.itl_s.size() != pieces.itl_s.size() ||
        whole.num_output_tokens != pieces.num_output_tokens) {
      std::abort();
    }
  }
  return 0;
}
