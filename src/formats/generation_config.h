// generation_config.json: the sampling defaults a model's authors recommend. A folder without one has none.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hadal {

struct GenerationConfig {
  std::optional<bool> do_sample;
  std::optional<double> temperature;         // >= 0
  std::optional<double> top_p;               // (0, 1]
  std::optional<int64_t> top_k;              // >= 0, 0 = off
  std::optional<double> repetition_penalty;  // > 0
  std::optional<int64_t> max_length;         // tokens, prompt included
  std::optional<int64_t> max_new_tokens;
  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_id;  // written as one id or a list; empty when not given
  std::optional<int64_t> pad_token_id;

  std::vector<std::string> ignored_keys;  // met, but without a field here
};

// Errors: kCorrupt for JSON that is none, kInvalidArgument naming the key for a wrong type or range.
Expected<GenerationConfig> parse_generation_config(std::string_view text);

// Reads DIR/generation_config.json; an absent file gives an empty config. Errors begin with the path.
Expected<GenerationConfig> load_generation_config(const std::filesystem::path& dir);

}  // namespace hadal
