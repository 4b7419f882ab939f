// Opens a Hugging Face folder and returns a model ready for allocate_kv(). What callers outside model/ include.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "base/status.h"
#include "kernels/kernels.h"
#include "model/forward_model.h"
#include "model/forward_observer.h"
#include "model/loader.h"
#include "model/range_observer.h"
#include "model/rank_slice.h"
#include "quant/numerics_plan.h"

namespace hadal {

struct LoadOptions {
  const KernelTable* kernels = nullptr;  // null: the fastest that this processor runs
  std::optional<DType> kv_dtype;         // of the latent cache, as PagedKvView::dtype; empty: the kernels' act dtype
  int num_threads = 0;                   // 0: default_num_threads()
  bool pin_threads = false;              // bind workers to one core each
  LoadProgress progress;                 // may be empty
  ForwardObserver observer;              // may be empty
  NumericsPlan numerics;                 // default: weights as stored, nothing quantised
  RangeObserver* ranges = nullptr;       // calibration: outlives the model; on all ranks or none
  RankSlice slice;                       // what of it this rank loads; with others: set_communicator() before a step
};

// Checks the folder, then loads the rank's part of it. Errors: the first problem that inspect_model() would list,
// check_rank_slice()'s, or kResourceExhausted before any weight is read.
Expected<std::unique_ptr<ForwardModel>> load_deepseek_v3(const std::filesystem::path& dir, const LoadOptions& options);

}  // namespace hadal
