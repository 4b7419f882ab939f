// What serving needs of a model folder besides its weights.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/generation_config.h"
#include "formats/hf_config.h"
#include "model/config.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace hadal {

struct ServingFolder {
  GenerationConfig generation;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;
  std::vector<int32_t> eos_token_ids;  // of config.json, generation_config.json and the tokenizer together
};

// Where nothing is at `path` and it could be a model's ID on the hubs: how to get the folder from either, to be put
// after "no such folder". Else empty. `flag`: what the folder is then given by.
std::string download_advice(const std::filesystem::path& path, const char* flag = "--model");

// A folder where a model folder is expected; a hub's name is answered with the commands that download it.
Status check_is_model_folder(const std::filesystem::path& dir);

// Reads tokenizer, chat template and generation config; appends every problem, leaves out the parts that have one.
// `chat_template`: a file or the template itself; empty: the folder's own. `config` may be absent when it is unusable.
ServingFolder open_serving_text_collecting(const std::filesystem::path& dir, const std::string& chat_template,
                                           const HfConfig& hf, const std::optional<ModelConfig>& config,
                                           std::vector<Error>& problems);

}  // namespace hadal
