// Streams that are cut anywhere: the detokenizer, the stop matcher and the reasoning parser must give what they give
// for the whole. Input: one byte of seed for the cuts, then token ids (below 256: bytes; every tenth value is BOS).
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "fuzz/text_fuzz_support.h"
#include "text/detokenizer.h"
#include "text/reasoning_parser.h"
#include "text/stop_matcher.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hadal;
  if (size == 0) return 0;
  uint32_t seed = data[0];
  std::vector<int32_t> ids;
  for (size_t i = 1; i < size; ++i) ids.push_back(data[i] == 0xFE ? 260 : data[i]);

  StreamingDetokenizer detokenizer(fuzz_tokenizer(), true);
  std::vector<std::string> pieces;
  std::string text;
  for (const int32_t id : ids) {
    seed = seed * 1664525 + 1013904223;
    const std::string piece = detokenizer.push(id);
    if (find_invalid_utf8(piece) != std::string::npos) std::abort();
    text += piece;
    if (pieces.empty() || (seed >> 16) % 3 == 0) pieces.emplace_back();
    pieces.back() += piece;
  }
  pieces.push_back(detokenizer.flush());
  text += pieces.back();
  if (text != fuzz_tokenizer().decode(ids, true)) std::abort();

  const std::vector<std::string> stops = {"ab", "</think>a", "aab"};
  StopMatcher whole(stops), streamed(stops);
  std::string expected = whole.push(text).emit, got;
  expected += whole.flush();
  for (const std::string& piece : pieces) got += streamed.push(piece).emit;
  got += streamed.flush();
  if (got != expected) std::abort();

  const ReasoningOptions options = {.mode = ReasoningMode::kAuto, .ending_markers = {"<s"}};
  const ReasoningDelta at_once = parse_reasoning(text, "<think>", options);
  ReasoningParser parser("<think>", options);
  ReasoningDelta sum;
  const auto add = [&](const ReasoningDelta& delta) {
    sum.reasoning += delta.reasoning;
    sum.content += delta.content;
  };
  for (const std::string& piece : pieces) add(parser.push(piece));
  add(parser.flush());
  if (sum.reasoning != at_once.reasoning || sum.content != at_once.content) std::abort();
  return 0;
}
