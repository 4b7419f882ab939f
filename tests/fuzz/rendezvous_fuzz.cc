// What ranks say to each other before they know each other: no bytes crash the reader, the outcome does not depend on
// how they are cut, a frame that was read is written as the same bytes; the same for the cards that ranks show.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "comm/rank_card.h"
#include "comm/rendezvous_frame.h"

namespace {

struct Outcome {
  std::vector<std::string> frames;
  bool failed = false;
};

Outcome read_all(const std::string& bytes, size_t step) {
  Outcome outcome;
  std::string pending;
  for (size_t at = 0; at < bytes.size(); at += step) {
    pending += bytes.substr(at, step);
    for (;;) {
      const auto frame = hadal::take_frame(pending);
      outcome.failed = !frame;
      if (!frame) return outcome;
      if (!*frame) break;
      outcome.frames.push_back(hadal::encode_frame(**frame));
    }
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const Outcome whole = read_all(bytes, size + 1);
  const Outcome pieces = read_all(bytes, 3);
  if (whole.frames != pieces.frames || whole.failed != pieces.failed) std::abort();
  std::string again;
  for (const std::string& frame : whole.frames) again += frame;
  if (!bytes.starts_with(again)) std::abort();

  const auto card = hadal::RankCard::from_text(bytes);
  if (card && !hadal::RankCard::from_text(card->to_text())) std::abort();
  return 0;
}
