// A digest of a rank's logits from foreign bytes: whatever is taken can be asked for the best, a nucleus and sums.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/kernels.h"
#include "model/logit_digest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr auto kIsa = hadal::Isa::kPortable;  // on every machine
  constexpr int64_t kVocab = 1024, kValid = 1000;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const hadal::IndexRange here{0, 512}, theirs{512, kVocab};
  const hadal::LogitWant want{.num_valid = static_cast<int32_t>(kValid),
                              .num_best = size % 2 == 0 ? 3 : 100,
                              .exp_scale = 1,
                              .nucleus = size % 3 == 0 ? 0.9f : 0,
                              .temperature = 1};
  std::vector<float> row(static_cast<size_t>(kVocab), kNan);
  for (size_t i = 0; i < 512; ++i) row[i] = static_cast<float>(i % 97) / 8;
  std::vector<std::byte> own(static_cast<size_t>(hadal::digest_bytes(here)));
  hadal::DigestWriter(kIsa).write(std::span(row).first(512), here, want, own.data());
  std::vector<std::byte> foreign(static_cast<size_t>(hadal::digest_bytes(theirs)));
  if (size > 0) std::memcpy(foreign.data(), data, std::min(size, foreign.size()));

  hadal::RowDigest digest(kIsa);
  digest.begin(kVocab, want);
  if (!digest.add(here, own, true, row.data())) std::abort();
  if (!digest.add(theirs, foreign, false, row.data()) || !digest.finish(row)) return 0;
  const hadal::PartialLogits partial = digest.view();
  hadal::LogitBlocks blocks(hadal::row_math_for(kIsa));
  blocks.adopt(std::span(row).first(static_cast<size_t>(kValid)), 1, partial.maxima, partial.sums, partial.known);
  if (row[static_cast<size_t>(blocks.first_of_max())] != blocks.max()) std::abort();
  for (size_t block = 0; block < partial.known.size(); ++block) {
    if (!(partial.known[block] > -std::numeric_limits<float>::infinity())) continue;
    const size_t end = std::min<size_t>((block + 1) * 256, static_cast<size_t>(kValid));
    for (size_t i = block * 256; i < end; ++i) {
      if (std::isnan(row[i])) std::abort();
    }
  }
  return 0;
}
