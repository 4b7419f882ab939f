#include "model/head_gather.h"

#include <algorithm>
#include <bit>

#include "comm/communicator.h"

namespace hadal {
namespace {

template <typename Fn>
void for_each_row(uint64_t rows, Fn&& fn) {
  for (; rows != 0; rows &= rows - 1) fn(std::countr_zero(rows));
}

}  // namespace

HeadGather::HeadGather(const ModelConfig& whole_config, const RankLayout& layout, Isa isa, int num_threads)
    : config_(whole_config), layout_(layout), isa_(isa) {
  if (layout.slice.world_size == 1) return;
  writers_.resize(static_cast<size_t>(num_threads), DigestWriter(isa));
  buffer_.resize(static_cast<size_t>(kHeadBatchRows * digest_bytes(share_of(0))));
}

void HeadGather::begin(int64_t num_rows) {
  if (layout_.slice.world_size == 1 || layout_.slice.rank > 0) return;
  digests_.resize(std::max(digests_.size(), static_cast<size_t>(num_rows)), RowDigest(isa_));
  for (RowDigest& digest : digests_) digest.forget();
}

PartialLogits HeadGather::partial(int64_t row) const {
  return row < static_cast<int64_t>(digests_.size()) ? digests_[static_cast<size_t>(row)].view() : PartialLogits();
}

HeadGather::RowBits HeadGather::rows_for_digests(const Batch& batch) const {
  RowBits rows = 0;
  if (batch.wants.empty()) return rows;
  for (int64_t i = 0; i < batch.rows.size(); ++i) {
    const int64_t num_valid = batch.wants[static_cast<size_t>(batch.rows.begin + i)].num_valid;
    if (num_valid > 0 && shares_are_blocks(config_, layout_.slice.world_size, num_valid)) rows |= RowBits{1} << i;
  }
  return rows;
}

Status HeadGather::gather(const StepContext& step, const IndexRange& rows, std::span<const LogitWant> wants,
                          float* logits) {
  const Batch batch = {.rows = rows, .wants = wants, .logits = logits};
  const RowBits all = ~RowBits{0} >> (64 - rows.size());
  const RowBits in_digests = rows_for_digests(batch);
  RowBits whole = all & ~in_digests;
  if (in_digests != 0) {
    HADAL_ASSIGN_OR_RETURN(const RowBits needed, exchange_digests(step, batch, in_digests));
    whole |= needed & in_digests;
  }
  return whole != 0 ? exchange_rows(step, batch, whole) : Status();
}

// Into buffer_, one after the other. shares: this rank's, of each row of the batch.
void HeadGather::write_digests(const StepContext& step, const Batch& batch, RowBits rows, const float* shares,
                               int64_t stride) {
  const IndexRange& share = layout_.vocab;
  const int64_t num_bytes = digest_bytes(share);
  step.runner.for_each(StepPhase::kHead, std::popcount(rows), [&](int64_t begin, int64_t end, int worker_idx) {
    int64_t place = 0;
    for_each_row(rows, [&](int64_t i) {
      if (place >= begin && place < end) {
        writers_[static_cast<size_t>(worker_idx)].write(
            std::span(shares + i * stride, static_cast<size_t>(share.size())), share,
            batch.wants[static_cast<size_t>(batch.rows.begin + i)], buffer_.data() + place * num_bytes);
      }
      ++place;
    });
  });
}

Status HeadGather::read_digests(const Batch& batch, RowBits rows, int rank) {
  const IndexRange share = share_of(rank);
  const auto num_bytes = static_cast<size_t>(digest_bytes(share));
  const std::byte* from = buffer_.data();
  bool is_right = true;
  for_each_row(rows, [&](int64_t i) {
    const int64_t row = batch.rows.begin + i;
    is_right = is_right && digests_[static_cast<size_t>(row)].add(share, {from, num_bytes}, rank == 0,
                                                                  batch.logits + row * config_.vocab_size);
    from += num_bytes;
  });
  if (is_right) return {};
  return make_error(ErrorCode::kCorrupt, "rank {} sent a digest of logits that contradicts itself", rank);
}

Expected<HeadGather::RowBits> HeadGather::exchange_digests(const StepContext& step, const Batch& batch, RowBits rows) {
  const auto bytes_of = [&](const IndexRange& share) {
    return std::span(buffer_).first(static_cast<size_t>(std::popcount(rows) * digest_bytes(share)));
  };
  RowBits needed = 0;
  if (layout_.slice.rank == 0) {
    for_each_row(rows, [&](int64_t i) {
      const auto row = static_cast<size_t>(batch.rows.begin + i);
      digests_[row].begin(config_.vocab_size, batch.wants[row]);
    });
    write_digests(step, batch, rows, batch.logits + batch.rows.begin * config_.vocab_size, config_.vocab_size);
    HADAL_RETURN_IF_ERROR(read_digests(batch, rows, 0));
    for (int rank = 1; rank < layout_.slice.world_size && share_of(rank).size() > 0; ++rank) {
      const auto theirs = bytes_of(share_of(rank));
      HADAL_RETURN_IF_ERROR(communicate(step, static_cast<int64_t>(theirs.size()),
                                        [&](Communicator& ranks) { return ranks.recv(theirs, rank); }));
      HADAL_RETURN_IF_ERROR(read_digests(batch, rows, rank));
    }
    for_each_row(rows, [&](int64_t i) {
      const int64_t row = batch.rows.begin + i;
      const std::span logits(batch.logits + row * config_.vocab_size, static_cast<size_t>(config_.vocab_size));
      if (!digests_[static_cast<size_t>(row)].finish(logits)) needed |= RowBits{1} << i;
    });
  } else if (layout_.vocab.size() > 0) {
    write_digests(step, batch, rows, step.ws.head_logits, layout_.vocab.size());
    const auto mine = bytes_of(layout_.vocab);
    HADAL_RETURN_IF_ERROR(
        communicate(step, static_cast<int64_t>(mine.size()), [&](Communicator& ranks) { return ranks.send(mine, 0); }));
  }
  HADAL_RETURN_IF_ERROR(communicate(step, sizeof needed, [&](Communicator& ranks) {
    return ranks.broadcast(std::as_writable_bytes(std::span(&needed, 1)), 0);
  }));
  return needed;
}

// All rows of a rank in one message, packed.
Status HeadGather::exchange_rows(const StepContext& step, const Batch& batch, RowBits rows) {
  const auto bytes_of = [&](const IndexRange& share) {
    return std::as_writable_bytes(
        std::span(step.ws.head_logits, static_cast<size_t>(std::popcount(rows) * share.size())));
  };
  if (layout_.slice.rank > 0) {
    const int64_t size = layout_.vocab.size();
    if (size == 0) return {};
    float* to = step.ws.head_logits;
    for_each_row(rows, [&](int64_t i) {
      const float* row = step.ws.head_logits + i * size;
      if (row != to) std::copy_n(row, size, to);
      to += size;
    });
    const auto mine = bytes_of(layout_.vocab);
    return communicate(step, static_cast<int64_t>(mine.size()),
                       [&](Communicator& ranks) { return ranks.send(mine, 0); });
  }
  for (int rank = 1; rank < layout_.slice.world_size; ++rank) {
    const IndexRange share = share_of(rank);
    if (share.size() == 0) break;
    const auto theirs = bytes_of(share);
    HADAL_RETURN_IF_ERROR(communicate(step, static_cast<int64_t>(theirs.size()),
                                      [&](Communicator& ranks) { return ranks.recv(theirs, rank); }));
    const float* from = step.ws.head_logits;
    for_each_row(rows, [&](int64_t i) {
      std::copy_n(from, share.size(), batch.logits + (batch.rows.begin + i) * config_.vocab_size + share.begin);
      from += share.size();
    });
  }
  return {};
}

}  // namespace hadal
