#include "cli/eval_model.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <utility>

#include "base/progress.h"
#include "bench/loaded_model.h"
#include "engine/engine.h"
#include "eval/content_hash.h"
#include "eval/numerics_hash.h"

namespace hadal {

void add_eval_model_options(CLI::App& command, ServeOptions& options) {
  command.add_option("--model", options.model, "Hugging Face folder of the model");
  add_numerics_options(command, options);
}

void exclude_numerics_options(CLI::App& command, CLI::Option* base_url) {
  const auto is_numerics = [](const CLI::Option* option) { return option->get_group() == kNumericsGroup; };
  for (CLI::Option* option : command.get_options(is_numerics)) option->excludes(base_url);
}

Json model_identity_json(const ServeOptions& options, const OpenedModel& opened, const std::string& hash) {
  return {{"path", options.model},
          {"hash", hash},
          {"numerics", opened.numerics.key},
          {"numerics_hash", numerics_hash(opened.numerics.plan)},
          {"kernels", opened.numerics.kernels->name}};
}

Expected<std::unique_ptr<ForwardModel>> load_with_progress(const ServeOptions& options, const OpenedModel& opened,
                                                           ForwardObserver observer) {
  ProgressBar bar("loading", "B");
  return load_opened_model(
      options, opened, [&](uint64_t done_bytes, uint64_t total_bytes) { bar.update(done_bytes, total_bytes); },
      std::move(observer));
}

Expected<OpenedModel> open_for_windows(const ServeOptions& given, int64_t context) {
  ServeOptions options = given;
  options.max_num_seqs = 1;
  HADAL_RETURN_IF_ERROR(check_serve_options(options));
  HADAL_RETURN_IF_ERROR(check_is_model_folder(options.model));
  HADAL_ASSIGN_OR_RETURN(const ModelConfig config, read_config(options.model));
  options.max_model_len = std::clamp<int64_t>(context, 1, config.max_position_embeddings);
  return open_model(options);
}

Expected<EvalModel> open_eval_model(const ServeOptions& given, int64_t num_concurrent) {
  ServeOptions options = given;
  options.max_num_seqs = std::max<int64_t>(1, num_concurrent);
  HADAL_RETURN_IF_ERROR(check_serve_options(options));
  HADAL_ASSIGN_OR_RETURN(const std::string hash, model_hash(options.model));
  HADAL_ASSIGN_OR_RETURN(OpenedModel opened, open_model(options));
  HADAL_ASSIGN_OR_RETURN(std::unique_ptr<ForwardModel> loaded, load_with_progress(options, opened));
  EvalModel model;
  HADAL_ASSIGN_OR_RETURN(model.engine, make_engine(std::move(loaded), engine_options(options, opened)));
  model.tokenizer = std::move(opened.folder.tokenizer);
  model.chat_template = std::move(opened.folder.chat_template);
  model.eos_token_ids = std::move(opened.folder.eos_token_ids);
  model.max_model_len = opened.max_model_len;
  model.reasoning_parser = options.reasoning_parser;
  model.identity = model_identity_json(options, opened, hash);
  return model;
}

}  // namespace hadal
