#include "thread_ranks.h"

#include <unistd.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "comm/local_communicator.h"

namespace hadal {
namespace {

class ThreadRanks final : public ForwardModel {
 public:
  ThreadRanks(const std::filesystem::path& dir, const LoadOptions& options)
      : world_size_(options.slice.world_size),
        models_(static_cast<size_t>(world_size_)),
        pool_({.num_threads = world_size_}) {
    const SegmentSizes sizes = {.world_size = world_size_, .slot_bytes = 1 << 18};
    const int fd = SharedSegment::create(sizes).value();
    communicators_.resize(models_.size());
    const Status joined = on_all([&](std::unique_ptr<ForwardModel>& model, int rank) -> Status {
      LoadOptions mine = options;
      mine.slice.rank = rank;
      HADAL_ASSIGN_OR_RETURN(model, load_deepseek_v3(dir, mine));
      auto& communicator = communicators_[static_cast<size_t>(rank)];
      HADAL_ASSIGN_OR_RETURN(communicator,
                             join_local_group(fd, {.rank = rank, .sizes = sizes, .timeout = std::chrono::minutes(2)}));
      model->set_communicator(communicator.get());
      return {};
    });
    close(fd);
    if (!joined) throw std::runtime_error(joined.error().message);
  }

  int64_t vocab_size() const override { return first().vocab_size(); }
  int64_t max_position_embeddings() const override { return first().max_position_embeddings(); }
  int64_t kv_bytes_per_token() const override { return first().kv_bytes_per_token(); }
  Status allocate_kv(int64_t num_blocks, int64_t block_size, int64_t max_tokens_per_step) override {
    return on_all([&](auto& model, int) { return model->allocate_kv(num_blocks, block_size, max_tokens_per_step); });
  }
  Status forward(const StepInput& input, float* logits) override {
    return on_all([&](auto& model, int rank) { return model->forward(input, rank == 0 ? logits : nullptr); });
  }
  Status prepare_pieces(int64_t max_tokens_between) override {
    return on_all([&](auto& model, int) { return model->prepare_pieces(max_tokens_between); });
  }
  Status open_step(const StepInput& input) override {
    return on_all([&](auto& model, int) { return model->open_step(input); });
  }
  int64_t num_pieces() const override { return first().num_pieces(); }
  PartialLogits partial_logits(int64_t idx) const override { return first().partial_logits(idx); }
  StepPiece piece(int64_t idx) const override { return first().piece(idx); }
  Status run_pieces(int64_t count, float* logits) override {
    return on_all([&](auto& model, int rank) { return model->run_pieces(count, rank == 0 ? logits : nullptr); });
  }
  void drop_step() override {
    for (auto& model : models_) model->drop_step();
  }
  const StepProfile& profile() const override { return first().profile(); }
  void fill_kv(uint64_t seed) override {
    for (auto& model : models_) model->fill_kv(seed);
  }

 private:
  const ForwardModel& first() const { return *models_.front(); }

  // The first error.
  Status on_all(const std::function<Status(std::unique_ptr<ForwardModel>& model, int rank)>& call) {
    std::vector<Status> results(models_.size());
    pool_.run([&](int rank) {
      const auto idx = static_cast<size_t>(rank);
      results[idx] = call(models_[idx], rank);
    });
    for (Status& result : results) HADAL_RETURN_IF_ERROR(std::move(result));
    return {};
  }

  const int world_size_;
  std::vector<std::unique_ptr<Communicator>> communicators_;
  std::vector<std::unique_ptr<ForwardModel>> models_;
  ThreadPool pool_;
};

}  // namespace

std::unique_ptr<ForwardModel> load_thread_ranks(const std::filesystem::path& dir, const LoadOptions& options) {
  return std::make_unique<ThreadRanks>(dir, options);
}

}  // namespace hadal
