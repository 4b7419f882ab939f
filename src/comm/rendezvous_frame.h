// What ranks and the rendezvous server say to each other, byte by byte. Foreign bytes: every length is bounded before
// it is believed. Wire format (little-endian), version 1: u32 length of the rest, u8 kind, then strings as u32 length
// and bytes. Numbers never change their meaning; a reader refuses kinds it does not know.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hadal {

enum class FrameKind : uint8_t {
  kHello = 1,  // token, then "name=value" facts of the rank
  kSet = 2,    // key, value
  kGet = 3,    // key, milliseconds in decimal
  kOk = 16,
  kValue = 17,    // value
  kRefusal = 18,  // message
};

struct Frame {
  FrameKind kind = FrameKind::kOk;
  std::vector<std::string> strings;
};

inline constexpr size_t kMaxFrameBytes = 128 << 10;
inline constexpr size_t kMaxFrameStrings = 64;

// Requires that it fits the bounds.
std::string encode_frame(const Frame& frame);

// Takes one frame from the front of `bytes` and removes it; nothing when more bytes are needed. Errors: kCorrupt.
Expected<std::optional<Frame>> take_frame(std::string& bytes);

}  // namespace hadal
