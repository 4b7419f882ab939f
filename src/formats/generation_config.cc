#include "formats/generation_config.h"

#include "base/file.h"
#include "base/json.h"
#include "formats/json_fields.h"

namespace hadal {
namespace {

constexpr uint64_t kMaxFileBytes = 1 << 20;
constexpr const char* kFileName = "generation_config.json";
constexpr IntRange kTokenCountRange = {1, INT32_MAX};

const std::vector<JsonField<GenerationConfig>>& fields() {
  using G = GenerationConfig;
  static const std::vector<JsonField<G>> table = {
      bool_field("do_sample", &G::do_sample),
      number_field("temperature", &G::temperature, {0.0, 100.0}),
      number_field("top_p", &G::top_p, {0.0, 1.0, true}),
      int_field("top_k", &G::top_k, {0, INT32_MAX}),
      number_field("repetition_penalty", &G::repetition_penalty, {0.0, 100.0, true}),
      int_field("max_length", &G::max_length, kTokenCountRange),
      int_field("max_new_tokens", &G::max_new_tokens, kTokenCountRange),
      int_field("bos_token_id", &G::bos_token_id, kTokenIdRange),
      ints_field("eos_token_id", &G::eos_token_id, kTokenIdRange, true),
      int_field("pad_token_id", &G::pad_token_id, kTokenIdRange),
  };
  return table;
}

}  // namespace

Expected<GenerationConfig> parse_generation_config(std::string_view text) {
  HADAL_ASSIGN_OR_RETURN(
      const Json json, parse_json(text, {.max_bytes = kMaxFileBytes, .max_depth = 16, .refuse_duplicate_keys = true}));
  if (!json.is_object()) return make_error(ErrorCode::kCorrupt, "{} at the top, expected an object", json.type_name());
  GenerationConfig config;
  std::vector<Error> problems;
  for (const auto& [key, value] : json.items()) {
    if (const auto* field = find_field(fields(), key)) {
      field->read(key, value, config, problems);
    } else {
      config.ignored_keys.push_back(key);
    }
  }
  if (!problems.empty()) return tl::unexpected<Error>(std::move(problems.front()));
  return config;
}

Expected<GenerationConfig> load_generation_config(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / kFileName;
  std::error_code ignored;
  if (!std::filesystem::exists(std::filesystem::symlink_status(path, ignored))) return GenerationConfig{};
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxFileBytes));
  auto config = parse_generation_config(text);
  if (!config) return forward_error(std::move(config), path.string());
  return config;
}

}  // namespace hadal
