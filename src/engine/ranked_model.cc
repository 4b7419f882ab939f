#include "engine/ranked_model.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "base/log.h"
#include "engine/rank_channel.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

class RankedModel final : public ForwardModel {
 public:
  RankedModel(std::unique_ptr<ForwardModel> own, std::shared_ptr<RankAssembly> assembly,
              const RankedModelOptions& options)
      : own_(std::move(own)), assembly_(std::move(assembly)), options_(options) {}
  ~RankedModel() override;

  // The first assembly, then the heartbeat.
  Status start();

  int64_t vocab_size() const override { return own_->vocab_size(); }
  int64_t max_position_embeddings() const override { return own_->max_position_embeddings(); }
  int64_t kv_bytes_per_token() const override { return own_->kv_bytes_per_token(); }
  const StepProfile& profile() const override { return own_->profile(); }
  int64_t num_pieces() const override { return own_->num_pieces(); }
  StepPiece piece(int64_t idx) const override { return own_->piece(idx); }
  PartialLogits partial_logits(int64_t idx) const override { return own_->partial_logits(idx); }

  Status allocate_kv(int64_t num_blocks, int64_t block_size, int64_t max_tokens_per_step) override;
  Status prepare_pieces(int64_t max_tokens_between) override;
  Status forward(const StepInput& input, float* logits) override;
  Status open_step(const StepInput& input) override;
  Status run_pieces(int64_t count, float* logits) override;
  void drop_step() override;
  Status gather_ranges() override;
  void fill_kv(uint64_t seed) override;
  Status restore() override;

  std::string trouble() const override;
  void on_trouble(std::function<void()> wake) override;
  void stop_restoring() override { assembly_->cancel(); }

 private:
  // An operation on all ranks: tells them, then runs it here. With `agree` all wait until all are done.
  template <typename Run>
  Status everywhere(const StepHead& head, const StepInput* input, bool agree, Run&& run);
  Status set_up(const StepHead& head, const std::function<Status()>& run);
  Status adopt(AssembledRanks&& ranks);
  Status broken(Error error);
  void lose(const std::string& what);
  void heartbeat();

  const std::unique_ptr<ForwardModel> own_;
  const std::shared_ptr<RankAssembly> assembly_;
  const RankedModelOptions options_;

  std::mutex step_mutex_;  // one operation at a time; guards what follows
  AssembledRanks ranks_;
  std::optional<RankChannel> channel_;
  uint64_t number_ = 0;
  bool is_open_ = false;
  int64_t num_pieces_left_ = 0;
  std::optional<StepHead> kv_, pieces_;  // what new ranks are told first
  Clock::time_point last_step_ = Clock::now();

  mutable std::mutex state_mutex_;  // after step_mutex_
  std::optional<std::string> lost_;
  std::string reason_;  // of the restoring
  bool restoring_ = false;
  bool stopping_ = false;
  std::mutex wake_mutex_;              // held while the engine is woken
  std::function<void()> wake_engine_;  // under wake_mutex_
  std::condition_variable wake_heart_;
  std::thread heart_;
};

Status RankedModel::start() {
  assembly_->on_loss([this](const std::string& what) { lose(what); });
  HADAL_ASSIGN_OR_RETURN(AssembledRanks ranks, assembly_->assemble());
  HADAL_RETURN_IF_ERROR(adopt(std::move(ranks)));
  heart_ = std::thread([this] { heartbeat(); });
  return {};
}

RankedModel::~RankedModel() {
  {
    const std::lock_guard lock(state_mutex_);
    stopping_ = true;
    wake_heart_.notify_all();
  }
  if (heart_.joinable()) heart_.join();
  assembly_->on_loss({});
  const std::lock_guard lock(step_mutex_);
  if (channel_ && trouble().empty()) {
    StepHead head{.op = StepOp::kStop, .generation = ranks_.generation, .number = ++number_};
    if (const Status told = channel_->send(head, nullptr); !told) log_debug("stop: {}", told.error().message);
  }
  own_->set_communicator(nullptr);
}

// Requires step_mutex_, or that nobody else runs.
Status RankedModel::adopt(AssembledRanks&& ranks) {
  ranks_ = std::move(ranks);
  ranks_.groups.control->set_timeout(options_.timeout);
  channel_.emplace(*ranks_.groups.control);
  own_->set_communicator(ranks_.groups.data.get());
  number_ = 0;
  last_step_ = Clock::now();
  if (kv_) HADAL_RETURN_IF_ERROR(set_up(*kv_, [] { return Status(); }));
  if (pieces_) HADAL_RETURN_IF_ERROR(set_up(*pieces_, [] { return Status(); }));
  return {};
}

std::string RankedModel::trouble() const {
  const std::lock_guard lock(state_mutex_);
  if (restoring_) {
    std::string state = assembly_->state();
    return state.empty() ? reason_ : state;
  }
  return lost_.value_or("");
}

void RankedModel::on_trouble(std::function<void()> wake) {
  const std::lock_guard lock(wake_mutex_);
  wake_engine_ = std::move(wake);
}

// From any thread; the first reason stays.
void RankedModel::lose(const std::string& what) {
  {
    const std::lock_guard lock(state_mutex_);
    if (lost_) return;
    lost_ = what;
  }
  const std::lock_guard lock(wake_mutex_);
  if (wake_engine_) wake_engine_();
}

// Ranks may differ now in what they ran: whatever went wrong, they must meet again.
Status RankedModel::broken(Error error) {
  is_open_ = false;
  ranks_.groups.data->give_up(error.message);
  ranks_.groups.control->give_up(error.message);
  lose(error.message);
  return tl::unexpected<Error>(Error{ErrorCode::kUnavailable, std::move(error.message)});
}

template <typename Run>
Status RankedModel::everywhere(const StepHead& head, const StepInput* input, bool agree, Run&& run) {
  {
    const std::lock_guard lock(state_mutex_);
    if (lost_) return make_error(ErrorCode::kUnavailable, "{}", *lost_);
  }
  if (!channel_) return make_error(ErrorCode::kUnavailable, "the ranks are not together");
  StepHead numbered = head;
  numbered.generation = ranks_.generation;
  numbered.number = ++number_;
  if (Status told = channel_->send(numbered, input); !told) {
    return broken(std::move(told.error()).in(step_op_name(head.op)));
  }
  Status ran = run();
  if (agree) {
    auto agreed = channel_->agree(ran);
    if (agreed) return *agreed;  // all know whether it failed, and none has lost its place
    ran = forward_error(std::move(agreed));
  }
  last_step_ = Clock::now();
  if (!ran) return broken(std::move(ran.error()).in(step_op_name(head.op)));
  return {};
}

Status RankedModel::set_up(const StepHead& head, const std::function<Status()>& run) {
  if (!channel_) return make_error(ErrorCode::kUnavailable, "the ranks are not together");
  ranks_.groups.control->set_timeout(options_.setup_timeout);
  Status done = everywhere(head, nullptr, true, run);
  ranks_.groups.control->set_timeout(options_.timeout);
  return done;
}

Status RankedModel::allocate_kv(int64_t num_blocks, int64_t block_size, int64_t max_tokens_per_step) {
  const std::lock_guard lock(step_mutex_);
  const StepHead head{.op = StepOp::kAllocateKv, .arguments = {num_blocks, block_size, max_tokens_per_step}};
  HADAL_RETURN_IF_ERROR(set_up(head, [&] { return own_->allocate_kv(num_blocks, block_size, max_tokens_per_step); }));
  kv_ = head;
  return {};
}

Status RankedModel::prepare_pieces(int64_t max_tokens_between) {
  const std::lock_guard lock(step_mutex_);
  const StepHead head{.op = StepOp::kPreparePieces, .arguments = {max_tokens_between}};
  HADAL_RETURN_IF_ERROR(set_up(head, [&] { return own_->prepare_pieces(max_tokens_between); }));
  pieces_ = head;
  return {};
}

Status RankedModel::forward(const StepInput& input, float* logits) {
  const std::lock_guard lock(step_mutex_);
  return everywhere({.op = StepOp::kForward}, &input, false, [&] { return own_->forward(input, logits); });
}

Status RankedModel::open_step(const StepInput& input) {
  const std::lock_guard lock(step_mutex_);
  HADAL_RETURN_IF_ERROR(everywhere({.op = StepOp::kOpenStep}, &input, false, [&] { return own_->open_step(input); }));
  is_open_ = true;
  num_pieces_left_ = own_->num_pieces();
  return {};
}

Status RankedModel::run_pieces(int64_t count, float* logits) {
  const std::lock_guard lock(step_mutex_);
  HADAL_RETURN_IF_ERROR(everywhere({.op = StepOp::kRunPieces, .arguments = {count}}, nullptr, false,
                                   [&] { return own_->run_pieces(count, logits); }));
  num_pieces_left_ -= count;
  is_open_ = num_pieces_left_ > 0;
  return {};
}

void RankedModel::drop_step() {
  const std::lock_guard lock(step_mutex_);
  if (!is_open_) return own_->drop_step();
  is_open_ = false;
  // A failure shows with the next step.
  static_cast<void>(everywhere({.op = StepOp::kDropStep}, nullptr, false, [&] {
    own_->drop_step();
    return Status();
  }));
}

Status RankedModel::gather_ranges() {
  const std::lock_guard lock(step_mutex_);
  return everywhere({.op = StepOp::kGatherRanges}, nullptr, false, [&] { return own_->gather_ranges(); });
}

void RankedModel::fill_kv(uint64_t seed) {
  const std::lock_guard lock(step_mutex_);
  const StepHead head{.op = StepOp::kFillKv, .arguments = {static_cast<int64_t>(seed)}};
  static_cast<void>(set_up(head, [&] {
    own_->fill_kv(seed);
    return Status();
  }));
}

Status RankedModel::restore() {
  for (;;) {
    assembly_->disband();  // so that what broke the group is not told a second time, of the next one
    {
      const std::lock_guard state_lock(state_mutex_);
      restoring_ = true;
      reason_ = lost_.value_or("the ranks are brought together");
      lost_.reset();
    }
    {
      // Destroyed before anything else: who still waits in them is told so.
      const std::lock_guard lock(step_mutex_);
      own_->drop_step();
      own_->set_communicator(nullptr);
      is_open_ = false;
      channel_.reset();
      ranks_ = {};
    }
    auto ranks = assembly_->assemble();
    if (!ranks) return forward_error(std::move(ranks));
    const std::lock_guard lock(step_mutex_);
    const Status adopted = adopt(std::move(*ranks));
    if (!adopted && adopted.error().code != ErrorCode::kUnavailable) return adopted;
    if (!adopted) {
      log_warning("ranks were lost while they were set up: {}", adopted.error().message);
      continue;
    }
    const std::lock_guard state_lock(state_mutex_);
    restoring_ = false;
    return {};
  }
}

void RankedModel::heartbeat() {
  std::unique_lock state_lock(state_mutex_);
  while (!wake_heart_.wait_for(state_lock, options_.heartbeat, [this] { return stopping_; })) {
    if (lost_ || restoring_) continue;
    state_lock.unlock();
    if (std::unique_lock lock(step_mutex_, std::try_to_lock); lock.owns_lock() && channel_) {
      const bool is_idle = Clock::now() - last_step_ >= options_.heartbeat / 2;
      // A failure has told the engine.
      if (is_idle) static_cast<void>(everywhere({.op = StepOp::kPing}, nullptr, true, [] { return Status(); }));
    }
    state_lock.lock();
  }
}

}  // namespace

Expected<std::unique_ptr<ForwardModel>> make_ranked_model(std::unique_ptr<ForwardModel> own,
                                                          std::shared_ptr<RankAssembly> assembly,
                                                          const RankedModelOptions& options) {
  auto model = std::make_unique<RankedModel>(std::move(own), std::move(assembly), options);
  HADAL_RETURN_IF_ERROR(model->start());
  return model;
}

}  // namespace hadal
