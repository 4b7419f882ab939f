// A ForwardModel for tests whose logits are a hash of everything a token may depend on, read back through the cache:
// all earlier tokens, their positions and their attention form. A wrong block table, a block shared or overwritten
// wrongly, a wrong position or form changes the answer. It also refuses a step that breaks the contract. An open step
// reads its input and writes its rows with its last piece; until then it marks them as unreadable.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/request.h"
#include "model/forward_model.h"

namespace hadal::testing {

inline constexpr int64_t kFakeVocabSize = 97;
inline constexpr int64_t kFakePieces = 9;  // of every step: two layers of four kinds, the head
// A prompt that begins with this id gets NaN logits once it is longer than kNanLength tokens.
inline constexpr int32_t kNanToken = 96;
inline constexpr int64_t kNanLength = 12;

// Seen by the test while the engine owns the model.
struct FakeModelState {
  std::atomic<int64_t> num_steps{0};
  std::atomic<int64_t> num_rows{0};
  std::atomic<int64_t> num_failures_to_come{0};  // forward() fails that often
  std::atomic<bool> fail_next_pieces{false};     // run_pieces() fails once
  // As if a rank were lost: steps fail with kUnavailable until restore(), which forgets the cache's rows.
  std::atomic<bool> lost{false};
  std::atomic<bool> restore_fails{false};
  std::atomic<int64_t> num_restored{0};
  std::atomic<int64_t> num_opened{0};
  std::atomic<int64_t> num_dropped{0};
  std::atomic<int64_t> num_gathered{0};
  // A clock that only the model's work moves.
  std::atomic<double> now_s{0};
  double step_s = 0;         // of a whole step,
  double token_s = 0;        // and of each of its tokens
  double piece_token_s = 0;  // of a piece, per token of its step
  std::string violation;     // the first broken rule; read it when the engine is still
};

class FakeModel final : public ForwardModel {
 public:
  explicit FakeModel(std::shared_ptr<FakeModelState> state, int64_t vocab_size = kFakeVocabSize)
      : state_(std::move(state)), vocab_size_(vocab_size) {}

  int64_t vocab_size() const override { return vocab_size_; }
  int64_t max_position_embeddings() const override { return 1 << 20; }
  int64_t kv_bytes_per_token() const override { return sizeof(Slot); }
  Status allocate_kv(int64_t num_blocks, int64_t block_size, int64_t max_tokens_per_step) override;
  PartialLogits partial_logits(int64_t) const override { return {}; }
  Status forward(const StepInput& input, float* logits) override;
  Status prepare_pieces(int64_t max_tokens_between) override;
  Status open_step(const StepInput& input) override;
  int64_t num_pieces() const override { return open_ ? kFakePieces : 0; }
  StepPiece piece(int64_t idx) const override;
  Status run_pieces(int64_t count, float* logits) override;
  void drop_step() override;
  Status restore() override;
  std::string trouble() const override { return state_->lost ? "rank 1 (node 0) was lost" : ""; }
  const StepProfile& profile() const override { return profile_; }
  Status gather_ranges() override {
    ++state_->num_gathered;
    return {};
  }
  void fill_kv(uint64_t) override {}

 private:
  struct Slot {
    uint64_t content = 0;
    int64_t position = -1;
    int32_t token_id = -1;
  };
  struct OpenStep {
    StepInput input;
    std::vector<int32_t> token_ids, block_ids;  // as they were
    int64_t next_piece = 0;
  };
  Status fail(const StepInput& input);
  Status refuse(const std::string& violation);
  Status run(const StepInput& input, float* logits);
  std::string find_open_violation();
  void mark_open_rows();
  Slot& slot(const SequenceSpan& span, int64_t position);
  std::string find_violation(const StepInput& input) const;
  std::string run_sequence(const StepInput& input, const SequenceSpan& span, std::vector<uint64_t>& row_hashes);

  std::shared_ptr<FakeModelState> state_;
  int64_t vocab_size_;
  int64_t block_size_ = 0;
  int64_t max_tokens_per_step_ = 0;
  int64_t max_tokens_between_ = 0;
  std::vector<Slot> slots_;
  std::optional<OpenStep> open_;
  const StepProfile profile_;
};

// What the engine must answer, computed without an engine: one token after another, no cache, no batch.
struct OracleAnswer {
  std::vector<TokenOutput> tokens;
  std::vector<TokenOutput> prompt_tokens;
};
OracleAnswer oracle_answer(const Request& request, const EngineOptions& options);

}  // namespace hadal::testing
