#include "engine/rank_channel.h"

#include <algorithm>
#include <cstring>

namespace hadal {
namespace {

constexpr size_t kReportBytes = 512;  // of a rank's answer: a flag, then text up to a zero

}  // namespace

Status RankChannel::send(const StepHead& head, const StepInput* input) {
  encode_step(head, input, bytes_);
  const size_t num_bytes = bytes_.size();
  bytes_.resize(std::max(num_bytes, kFirstBytes));
  HADAL_RETURN_IF_ERROR(control_.broadcast(std::span(bytes_).first(kFirstBytes), 0));
  if (num_bytes <= kFirstBytes) return {};
  return control_.broadcast(std::span(bytes_).subspan(kFirstBytes), 0);
}

Status RankChannel::receive(StepMessage& message) {
  HADAL_RETURN_IF_ERROR(control_.broadcast(first_, 0));
  HADAL_ASSIGN_OR_RETURN(const size_t num_bytes, step_message_bytes(first_));
  bytes_.resize(std::max(num_bytes, kFirstBytes));
  std::memcpy(bytes_.data(), first_.data(), kFirstBytes);
  if (num_bytes > kFirstBytes) HADAL_RETURN_IF_ERROR(control_.broadcast(std::span(bytes_).subspan(kFirstBytes), 0));
  return decode_step(std::span(bytes_).first(num_bytes), message);
}

Expected<Status> RankChannel::agree(const Status& mine) {
  const size_t world = static_cast<size_t>(control_.world_size());
  std::vector<std::byte> report(kReportBytes), all(world * kReportBytes);
  if (!mine) {
    report[0] = std::byte{1};
    const std::string& text = mine.error().message;
    std::memcpy(report.data() + 1, text.data(), std::min(text.size(), kReportBytes - 2));
  }
  HADAL_RETURN_IF_ERROR(control_.all_gather(report, all.data()));
  for (size_t rank = 0; rank < world; ++rank) {
    const std::byte* theirs = all.data() + rank * kReportBytes;
    if (theirs[0] == std::byte{0}) continue;
    const char* text = reinterpret_cast<const char*>(theirs + 1);
    return Status(make_error(ErrorCode::kResourceExhausted, "rank {}: {}", rank,
                             std::string(text, strnlen(text, kReportBytes - 1))));
  }
  return Status();
}

}  // namespace hadal
