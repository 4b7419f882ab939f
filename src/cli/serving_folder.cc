#include "cli/serving_folder.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "base/file.h"

namespace hadal {
namespace {

constexpr uint64_t kMaxTemplateBytes = uint64_t{1} << 20;

Expected<ChatTemplate> load_chat_template(const std::string& argument) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(argument, ignored)) {
    if (argument.find("{{") == std::string::npos && argument.find("{%") == std::string::npos) {
      return make_error(ErrorCode::kNotFound, "--chat-template {}: no such file, and not a Jinja template itself",
                        argument);
    }
    return ChatTemplate::parse(argument);
  }
  HADAL_ASSIGN_OR_RETURN(std::string source, read_file(argument, kMaxTemplateBytes));
  auto parsed = ChatTemplate::parse(std::move(source));
  if (!parsed) return forward_error(std::move(parsed), argument);
  return parsed;
}

std::vector<int32_t> all_eos_ids(const HfConfig& hf, const ServingFolder& folder) {
  std::set<int64_t> ids(hf.eos_token_id.begin(), hf.eos_token_id.end());
  ids.insert(folder.generation.eos_token_id.begin(), folder.generation.eos_token_id.end());
  if (folder.tokenizer && folder.tokenizer->eos_token_id()) ids.insert(*folder.tokenizer->eos_token_id());
  return {ids.begin(), ids.end()};
}

template <typename T>
std::optional<T> keep(Expected<T>&& value, std::vector<Error>& problems) {
  if (value) return std::move(*value);
  problems.push_back(std::move(value).error());
  return std::nullopt;
}

Status check_tokenizer_fits(const Tokenizer& tokenizer, const ModelConfig& config) {
  if (tokenizer.vocab_size() <= config.vocab_size) return {};
  return make_error(ErrorCode::kInvalidArgument,
                    "the tokenizer has {} tokens, config.json's vocab_size is {}: the folder mixes files of two models",
                    tokenizer.vocab_size(), config.vocab_size);
}

// "organisation/name", of letters that a hub allows: the answer is a command that people copy into a shell.
bool may_be_hub_id(const std::filesystem::path& path) {
  const std::string id = path.string(), name = path.filename().string();
  const bool has_json = path.extension() == ".json";
  if (std::count(id.begin(), id.end(), '/') != 1 || name.empty() || has_json) return false;
  for (const char first : {id.front(), name.front()}) {
    if (std::isalnum(static_cast<unsigned char>(first)) == 0) return false;
  }
  return std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return c < 0x80 && (std::isalnum(c) != 0 || c == '/' || c == '.' || c == '_' || c == '-');
  });
}

}  // namespace

std::string download_advice(const std::filesystem::path& path, const char* flag) {
  std::error_code ignored;
  if (!may_be_hub_id(path) || std::filesystem::exists(path, ignored)) return "";
  return fmt::format(
      ". If it is the ID of a model, download it first, from Hugging Face or from ModelScope, and give the folder "
      "that this makes:\n"
      "  hf download {0} --local-dir {1}    (in older versions: huggingface-cli download {0} --local-dir {1})\n"
      "  modelscope download --model {0} --local_dir {1}\n"
      "then {2} {1}",
      path.string(), path.filename().string(), flag);
}

Status check_is_model_folder(const std::filesystem::path& dir) {
  std::error_code ignored;
  if (std::filesystem::is_directory(dir, ignored)) return {};
  const bool exists = std::filesystem::exists(dir, ignored);
  return make_error(exists ? ErrorCode::kInvalidArgument : ErrorCode::kNotFound, "{}: {}{}", dir.string(),
                    exists ? "not a folder; give the folder that holds config.json" : "no such folder",
                    download_advice(dir));
}

ServingFolder open_serving_text_collecting(const std::filesystem::path& dir, const std::string& chat_template,
                                           const HfConfig& hf, const std::optional<ModelConfig>& config,
                                           std::vector<Error>& problems) {
  ServingFolder folder;
  if (auto generation = keep(load_generation_config(dir), problems)) folder.generation = std::move(*generation);
  if (auto tokenizer = keep(Tokenizer::load(dir), problems)) {
    folder.tokenizer = std::move(*tokenizer);
    if (config) {
      if (Status fits = check_tokenizer_fits(*folder.tokenizer, *config); !fits) problems.push_back(fits.error());
    }
  }
  if (!chat_template.empty()) {
    folder.chat_template = keep(load_chat_template(chat_template), problems);
  } else if (folder.tokenizer && !folder.tokenizer->chat_template().empty()) {
    folder.chat_template = keep(ChatTemplate::parse(folder.tokenizer->chat_template()), problems);
  }
  folder.eos_token_ids = all_eos_ids(hf, folder);
  return folder;
}

}  // namespace hadal
