#include <algorithm>
#include <vector>

#include "engine/rank_channel.h"
#include "engine/ranked_model.h"

namespace hadal {
namespace {

// Rank 0 sends at least a ping each heartbeat, but only once its own part of a step is done.
std::chrono::milliseconds patience(const RankedModelOptions& options) {
  return options.heartbeat + 3 * options.timeout;
}

class RankLoop {
 public:
  RankLoop(RankState& state, const AssembledRanks& ranks, const RankedModelOptions& options)
      : state_(state), ranks_(ranks), options_(options), channel_(*ranks.groups.control) {}

  Expected<bool> run() {
    state_.model->set_communicator(ranks_.groups.data.get());
    auto stopped = loop();
    if (!stopped) {
      ranks_.groups.data->give_up(stopped.error().message);
      ranks_.groups.control->give_up(stopped.error().message);
    }
    state_.model->drop_step();
    state_.model->set_communicator(nullptr);
    return stopped;
  }

 private:
  Expected<bool> loop();
  Status check_order() const;
  Status obey();
  Status answer(const Status& done);
  Status allocate();
  Status prepare();
  Expected<StepInput> step_input();

  RankState& state_;
  const AssembledRanks& ranks_;
  const RankedModelOptions options_;
  RankChannel channel_;
  StepMessage message_;
  uint64_t number_ = 0;
  std::vector<SequenceSpan> spans_;
  StepPlan open_plan_;  // what the open step's input points to
  std::vector<SequenceSpan> open_spans_;
  std::vector<float> logits_;
};

Expected<bool> RankLoop::loop() {
  for (;;) {
    ranks_.groups.control->set_timeout(patience(options_));
    HADAL_RETURN_IF_ERROR(channel_.receive(message_));
    HADAL_RETURN_IF_ERROR(check_order());
    if (message_.head.op == StepOp::kStop) return true;
    if (auto obeyed = obey(); !obeyed) return forward_error(std::move(obeyed), step_op_name(message_.head.op));
  }
}

Status RankLoop::check_order() const {
  const StepHead& head = message_.head;
  if (head.generation == ranks_.generation && head.number == number_ + 1) return {};
  return make_error(ErrorCode::kInternal, "message {} of generation {} came where {} of {} was due", head.number,
                    head.generation, number_ + 1, ranks_.generation);
}

Status RankLoop::obey() {
  ++number_;
  const int64_t* arguments = message_.head.arguments;
  ForwardModel& model = *state_.model;
  switch (message_.head.op) {
    case StepOp::kForward: {
      HADAL_ASSIGN_OR_RETURN(const StepInput input, step_input());
      return model.forward(input, logits_.data());
    }
    case StepOp::kOpenStep: {
      HADAL_RETURN_IF_ERROR(step_input().map([](const StepInput&) {}));
      std::swap(open_plan_, message_.plan);
      return model.open_step(make_step_input(open_plan_, open_spans_));
    }
    case StepOp::kRunPieces:
      if (arguments[0] <= 0 || arguments[0] > model.num_pieces()) {
        return make_error(ErrorCode::kCorrupt, "{} pieces of {}", arguments[0], model.num_pieces());
      }
      logits_.resize(std::max(logits_.size(), open_plan_.logit_rows.size() * static_cast<size_t>(model.vocab_size())));
      return model.run_pieces(arguments[0], logits_.data());
    case StepOp::kDropStep:
      model.drop_step();
      return {};
    case StepOp::kAllocateKv:
      return answer(allocate());
    case StepOp::kPreparePieces:
      return answer(prepare());
    case StepOp::kFillKv:
      model.fill_kv(static_cast<uint64_t>(arguments[0]));
      return answer({});
    case StepOp::kGatherRanges:
      return model.gather_ranges();
    case StepOp::kPing:
      return answer({});
    case StepOp::kStop:
      break;
  }
  return {};
}

// Rank 0 waits for the slowest, and so does everybody else.
Status RankLoop::answer(const Status& done) {
  ranks_.groups.control->set_timeout(options_.setup_timeout);
  // A verdict against it is rank 0's to act on; the group is whole.
  return channel_.agree(done).map([](const Status&) {});
}

Status RankLoop::allocate() {
  const int64_t* wanted = message_.head.arguments;
  if (std::equal(wanted, wanted + 3, state_.kv)) return {};  // in an earlier group
  constexpr int64_t kMost = int64_t{1} << 40;
  for (int i = 0; i < 3; ++i) {
    if (wanted[i] <= 0 || wanted[i] > kMost) {
      return make_error(ErrorCode::kCorrupt, "a KV cache of {} blocks of {} tokens", wanted[0], wanted[1]);
    }
  }
  if (state_.kv[0] != 0) return make_error(ErrorCode::kInternal, "the KV cache has another size already");
  HADAL_RETURN_IF_ERROR(state_.model->allocate_kv(wanted[0], wanted[1], wanted[2]));
  std::copy(wanted, wanted + 3, state_.kv);
  return {};
}

Status RankLoop::prepare() {
  const int64_t wanted = message_.head.arguments[0];
  if (wanted == state_.max_tokens_between) return {};
  HADAL_RETURN_IF_ERROR(state_.model->prepare_pieces(wanted));
  state_.max_tokens_between = wanted;
  return {};
}

Expected<StepInput> RankLoop::step_input() {
  const StepLimits limits{.vocab_size = state_.model->vocab_size(),
                          .num_blocks = state_.kv[0],
                          .block_size = state_.kv[1],
                          .max_tokens = state_.kv[2]};
  HADAL_RETURN_IF_ERROR(check_step(message_.plan, limits));
  const size_t num_logits = message_.plan.logit_rows.size() * static_cast<size_t>(limits.vocab_size);
  if (logits_.size() < num_logits) logits_.resize(num_logits);
  return make_step_input(message_.plan, spans_);
}

}  // namespace

Expected<bool> run_rank(RankState& state, const AssembledRanks& ranks, const RankedModelOptions& options) {
  return RankLoop(state, ranks, options).run();
}

}  // namespace hadal
