#include "quant/range_detect.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

constexpr uint8_t kSeedTop = 0x77, kExactTop = 0x76;  // where 0x7E goes
constexpr uint64_t kMinBlocksForOctave = 256;
constexpr int kOctaveCodes = 8;  // from what rounds to 224 to 448

// Whether the block maxima look like 0x7E, or like the octave (224, 448], moved to end at `top`.
bool ends_at(const RangeEvidence& evidence, uint8_t top) {
  const uint64_t all = evidence.num_blocks(), at_top = evidence.blocks[top];
  if (at_top * 2 >= all) return true;
  const uint64_t in_octave =
      std::accumulate(evidence.blocks.begin() + top - kOctaveCodes, evidence.blocks.begin() + top + 1, uint64_t{0});
  return all >= kMinBlocksForOctave && at_top > 0 && in_octave * 100 >= all * 99;
}

}  // namespace

void RangeEvidence::add(std::span<const uint8_t> codes, int64_t rows, int64_t cols, const BlockScaleLayout& layout) {
  HADAL_CHECK(rows >= 0 && cols > 0 && codes.size() == static_cast<size_t>(rows * cols), "{} codes, {} x {}",
              codes.size(), rows, cols);
  std::vector<uint8_t> column_max(static_cast<size_t>(cols));
  for (int64_t first = 0; first < rows; first += layout.block_rows) {
    std::fill(column_max.begin(), column_max.end(), uint8_t{0});
    const int64_t last = std::min(rows, first + layout.block_rows);
    for (int64_t row = first; row < last; ++row) {
      const uint8_t* line = codes.data() + row * cols;
      for (size_t col = 0; col < column_max.size(); ++col) {
        const auto magnitude = static_cast<uint8_t>(line[col] & 0x7F);
        const auto counted = static_cast<uint8_t>(magnitude == kE4m3NaN ? 0 : magnitude);
        column_max[col] = std::max(column_max[col], counted);
      }
      num_nan += static_cast<uint64_t>(
          std::count_if(line, line + cols, [](uint8_t code) { return (code & 0x7F) == kE4m3NaN; }));
    }
    for (int64_t col = 0; col < cols; col += layout.block_cols) {
      const auto begin = column_max.begin() + col, end = column_max.begin() + std::min(cols, col + layout.block_cols);
      ++blocks[*std::max_element(begin, end)];
    }
  }
}

void RangeEvidence::add(const RangeEvidence& other) {
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] += other.blocks[i];
  num_nan += other.num_nan;
}

uint64_t RangeEvidence::num_blocks() const { return std::accumulate(blocks.begin() + 1, blocks.end(), uint64_t{0}); }

uint8_t RangeEvidence::max_magnitude() const {
  for (size_t i = blocks.size(); i-- > 0;) {
    if (blocks[i] > 0) return static_cast<uint8_t>(i);
  }
  return 0;
}

std::string RangeEvidence::describe() const {
  const uint64_t all = num_blocks();
  if (all == 0) return "no block with a value in it";
  const uint8_t top = max_magnitude();
  return fmt::format("{} blocks, largest code 0x{:02X}, in {:.1f} % of them", all, top,
                     100.0 * static_cast<double>(blocks[top]) / static_cast<double>(all));
}

std::optional<RangeMap> detect_range_map(const RangeEvidence& evidence) {
  if (evidence.num_blocks() == 0) return std::nullopt;
  const uint8_t top = evidence.max_magnitude();
  if (top > kSeedTop) return RangeMap::kNone;
  if (top == kSeedTop && ends_at(evidence, kSeedTop)) return RangeMap::kSeed;
  if (top == kExactTop && ends_at(evidence, kExactTop)) return RangeMap::kExact;
  return std::nullopt;
}

}  // namespace hadal
