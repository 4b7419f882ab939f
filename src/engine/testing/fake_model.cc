#include "engine/testing/fake_model.h"

#include <algorithm>
#include <limits>
#include <set>

#include <fmt/format.h>

#include "engine/sampler.h"

namespace hadal::testing {
namespace {

uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = (a ^ (b * 0x9E3779B97F4A7C15)) + 0x632BE59BD9B4E019;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

// history: of all earlier rows.
uint64_t row_content(uint64_t history, int32_t token_id, int64_t position, bool expanded) {
  return mix(mix(mix(history, token_id), position), expanded ? 17 : 71);
}
uint64_t extend_history(uint64_t history, uint64_t content, int64_t position) {
  return history + mix(content, position);
}

void write_logits(uint64_t hash, int64_t vocab_size, float* logits) {
  for (int64_t id = 0; id < vocab_size; ++id) {
    logits[id] = static_cast<float>(mix(hash, id) >> 40) * 0x1p-21f - 4;  // in [-4, 4)
  }
}

}  // namespace

Status FakeModel::allocate_kv(int64_t num_blocks, int64_t block_size, int64_t max_tokens_per_step) {
  block_size_ = block_size;
  max_tokens_per_step_ = max_tokens_per_step;
  slots_.resize(num_blocks * block_size);
  return {};
}

FakeModel::Slot& FakeModel::slot(const SequenceSpan& span, int64_t position) {
  return slots_[span.block_table[position / block_size_] * block_size_ + position % block_size_];
}

Status FakeModel::forward(const StepInput& input, float* logits) {
  ++state_->num_steps;
  state_->num_rows += static_cast<int64_t>(input.token_ids.size());
  state_->now_s = state_->now_s + state_->step_s + state_->token_s * static_cast<double>(input.token_ids.size());
  if (state_->num_failures_to_come > 0) {
    --state_->num_failures_to_come;
    return fail(input);
  }
  if (state_->lost) return make_error(ErrorCode::kUnavailable, "{}", trouble());
  if (open_) {
    if (static_cast<int64_t>(input.token_ids.size()) > max_tokens_between_)
      return refuse("too many tokens between pieces");
    for (const SequenceSpan& span : input.sequences) {
      if (span.first_position < span.expanded_end) return refuse("the expanded form between pieces");
    }
  }
  return run(input, logits);
}

Status FakeModel::fail(const StepInput& input) {
  // The contract leaves the rows of a failed step undefined.
  for (const SequenceSpan& span : input.sequences) {
    for (int64_t i = 0; i < span.num_tokens; ++i) slot(span, span.first_position + i) = {};
  }
  return make_error(ErrorCode::kInternal, "injected failure");
}

Status FakeModel::restore() {
  if (open_) return refuse("restored with an open step");
  if (state_->restore_fails) return make_error(ErrorCode::kUnavailable, "rank 1 does not come back");
  for (Slot& slot : slots_) slot = {};
  state_->lost = false;
  ++state_->num_restored;
  return {};
}

Status FakeModel::refuse(const std::string& violation) {
  if (state_->violation.empty()) state_->violation = violation;
  return make_error(ErrorCode::kInternal, "{}", violation);
}

Status FakeModel::run(const StepInput& input, float* logits) {
  std::string violation = find_violation(input);
  std::vector<uint64_t> row_hashes;
  for (size_t i = 0; violation.empty() && i < input.sequences.size(); ++i) {
    violation = run_sequence(input, input.sequences[i], row_hashes);
  }
  if (!violation.empty()) return refuse(violation);
  for (size_t i = 0; i < input.logit_rows.size(); ++i) {
    const uint64_t hash = row_hashes[input.logit_rows[i]];
    float* row = logits + static_cast<int64_t>(i) * vocab_size_;
    write_logits(hash, vocab_size_, row);
    if (hash == 0) row[3] = std::numeric_limits<float>::quiet_NaN();
  }
  return {};
}

Status FakeModel::prepare_pieces(int64_t max_tokens_between) {
  max_tokens_between_ = max_tokens_between;
  return {};
}

Status FakeModel::open_step(const StepInput& input) {
  ++state_->num_opened;
  if (open_ || max_tokens_between_ == 0) return refuse("a step is open, or pieces are not prepared");
  if (const std::string violation = find_violation(input); !violation.empty()) return refuse(violation);
  open_.emplace();
  open_->input = input;
  open_->token_ids.assign(input.token_ids.begin(), input.token_ids.end());
  for (const SequenceSpan& span : input.sequences) {
    open_->block_ids.insert(open_->block_ids.end(), span.block_table.begin(), span.block_table.end());
  }
  mark_open_rows();
  return {};
}

StepPiece FakeModel::piece(int64_t idx) const {
  const auto num_tokens = static_cast<double>(open_->token_ids.size());
  return {idx + 1 == kFakePieces ? PieceKind::kHead : static_cast<PieceKind>(idx % 4), num_tokens};
}

Status FakeModel::run_pieces(int64_t count, float* logits) {
  if (!open_ || count < 1 || open_->next_piece + count > kFakePieces) return refuse("pieces that are not there");
  const auto num_tokens = static_cast<double>(open_->token_ids.size());
  state_->now_s = state_->now_s + state_->piece_token_s * num_tokens * static_cast<double>(count);
  const std::string violation = find_open_violation();
  const bool fails = state_->fail_next_pieces.exchange(false) || !violation.empty();
  open_->next_piece += count;
  if (!fails && open_->next_piece < kFakePieces) return {};
  const StepInput input = open_->input;
  open_.reset();
  if (fails) return violation.empty() ? fail(input) : refuse(violation);
  ++state_->num_steps;
  state_->num_rows += static_cast<int64_t>(input.token_ids.size());
  return run(input, logits);
}

void FakeModel::drop_step() {
  if (!open_) return;
  ++state_->num_dropped;
  open_.reset();
}

void FakeModel::mark_open_rows() {
  for (const SequenceSpan& span : open_->input.sequences) {
    for (int64_t i = 0; i < span.num_tokens; ++i) {
      slot(span, span.first_position + i) = {.content = 1, .position = -2, .token_id = kNanToken};
    }
  }
}

std::string FakeModel::find_open_violation() {
  const StepInput& input = open_->input;
  if (!std::equal(input.token_ids.begin(), input.token_ids.end(), open_->token_ids.begin(), open_->token_ids.end())) {
    return "the tokens of the open step changed";
  }
  auto block = open_->block_ids.begin();
  for (const SequenceSpan& span : input.sequences) {
    if (!std::equal(span.block_table.begin(), span.block_table.end(), block)) return "an open block table changed";
    block += static_cast<ptrdiff_t>(span.block_table.size());
    for (int64_t i = 0; i < span.num_tokens; ++i) {
      if (slot(span, span.first_position + i).position != -2) return "a row of the open step was written by another";
    }
  }
  return {};
}

std::string FakeModel::find_violation(const StepInput& input) const {
  int64_t next_row = 0;
  std::set<int32_t> written;
  for (const SequenceSpan& span : input.sequences) {
    if (span.token_begin != next_row || span.num_tokens < 1) return "spans do not cover the tokens in order";
    next_row += span.num_tokens;
    const int64_t end = span.first_position + span.num_tokens;
    if (static_cast<int64_t>(span.block_table.size()) != (end + block_size_ - 1) / block_size_) {
      return "block table of the wrong length";
    }
    for (const int32_t block : span.block_table) {
      if (block < 0 || block * block_size_ >= static_cast<int64_t>(slots_.size())) return "block id out of range";
    }
    for (int64_t i = span.first_position / block_size_; i < static_cast<int64_t>(span.block_table.size()); ++i) {
      if (!written.insert(span.block_table[i]).second) return "two sequences write one block";
    }
  }
  if (next_row != static_cast<int64_t>(input.token_ids.size())) return "tokens outside every span";
  if (next_row > max_tokens_per_step_) return "more tokens than allocate_kv announced";
  int64_t last_row = -1;
  for (const int32_t row : input.logit_rows) {
    if (row <= last_row || row >= next_row) return "logit rows out of order or range";
    last_row = row;
  }
  for (const SequenceSpan& span : input.sequences) {
    for (int64_t i = 0; i < span.first_position / block_size_; ++i) {
      if (written.contains(span.block_table[i])) return "a block is written while another sequence reads it";
    }
  }
  return {};
}

std::string FakeModel::run_sequence(const StepInput& input, const SequenceSpan& span,
                                    std::vector<uint64_t>& row_hashes) {
  for (int64_t i = 0; i < span.num_tokens; ++i) {
    const int64_t position = span.first_position + i;
    const int32_t token_id = input.token_ids[span.token_begin + i];
    uint64_t history = 0;
    for (int64_t earlier = 0; earlier < position; ++earlier) {
      const Slot& read = slot(span, earlier);
      if (read.position != earlier) return fmt::format("position {} holds a row of {}", earlier, read.position);
      history = extend_history(history, read.content, earlier);
    }
    const uint64_t content = row_content(history, token_id, position, position < span.expanded_end);
    slot(span, position) = {content, position, token_id};
    const bool poisoned = slot(span, 0).token_id == kNanToken && position >= kNanLength;
    row_hashes.push_back(poisoned ? 0 : extend_history(history, content, position));
  }
  return {};
}

OracleAnswer oracle_answer(const Request& request, const EngineOptions& options) {
  const SamplingParams& params = request.sampling;
  const int64_t num_prompt = static_cast<int64_t>(request.prompt_ids.size());
  const int64_t expanded_end = num_prompt - num_prompt % options.prompt_tile_tokens;
  std::vector<int32_t> tokens = request.prompt_ids;
  TokenCounts counts(params, request.prompt_ids);
  Sampler sampler(kFakeVocabSize, options.num_valid_tokens);
  std::vector<float> logits(kFakeVocabSize);
  OracleAnswer answer;
  if (params.num_prompt_logprobs >= 0) answer.prompt_tokens.push_back({.token_id = tokens[0]});
  uint64_t history = 0;
  for (int64_t position = 0;; ++position) {
    history =
        extend_history(history, row_content(history, tokens[position], position, position < expanded_end), position);
    write_logits(history, kFakeVocabSize, logits.data());
    const bool in_prompt = position + 1 < num_prompt;
    if (in_prompt && params.num_prompt_logprobs < 0) continue;
    TokenOutput out;
    if (in_prompt) {
      (void)sampler.describe(logits.data(), tokens[position + 1], params.num_prompt_logprobs, out);
      answer.prompt_tokens.push_back(out);
      continue;
    }
    if (static_cast<int64_t>(answer.tokens.size()) >= params.max_tokens) return answer;
    const SampleContext context{.rules = {.params = &params,
                                          .counts = &counts,
                                          .generated = std::span(tokens).subspan(num_prompt),
                                          .eos_token_ids = options.eos_token_ids},
                                .seed = params.seed.value_or(0),
                                .sample_idx = request.sample_idx,
                                .position = static_cast<uint64_t>(position + 1)};
    (void)sampler.sample(logits.data(), context, out);
    counts.add_generated(out.token_id);
    tokens.push_back(out.token_id);
    answer.tokens.push_back(out);
  }
}

}  // namespace hadal::testing
