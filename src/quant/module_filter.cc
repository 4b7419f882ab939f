#define PCRE2_CODE_UNIT_WIDTH 8
#include "quant/module_filter.h"

#include <pcre2.h>

#include <algorithm>
#include <array>
#include <string>

#include "base/names.h"
#include "formats/message_text.h"

namespace hadal {
namespace {

// Steps of one search; a name has some 80 characters and real patterns need a few hundred.
constexpr uint32_t kMatchLimit = 100000;
constexpr uint32_t kHeapLimitKib = 1024;

// Classes that INC patches, spec/gaudi-pipeline.md 3.2.
const std::vector<std::string> kTypes = {"Linear",
                                         "RowParallelLinear",
                                         "ColumnParallelLinear",
                                         "MergedColumnParallelLinear",
                                         "QKVParallelLinear",
                                         "ReplicatedLinear",
                                         "ParallelLMHead",
                                         "MoeMatmul",
                                         "MoeFP8Matmul",
                                         "Matmul",
                                         "VLLMKVCache",
                                         "Softmax",
                                         "ModuleFusedSDPA",
                                         "VllmMixtureOfExpertsOpFP8",
                                         "FusedMoE"};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 128> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

struct FreeMatchContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct FreeMatchData {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

}  // namespace

struct ModuleFilter::Pattern {
  std::string text;
  pcre2_code* code = nullptr;
  ~Pattern() { pcre2_code_free(code); }

  Expected<bool> found_in(std::string_view name) const {
    const std::unique_ptr<pcre2_match_data, FreeMatchData> data(pcre2_match_data_create(1, nullptr));
    const std::unique_ptr<pcre2_match_context, FreeMatchContext> context(pcre2_match_context_create(nullptr));
    if (!data || !context) return make_error(ErrorCode::kResourceExhausted, "out of memory matching {}", text);
    pcre2_set_match_limit(context.get(), kMatchLimit);
    pcre2_set_heap_limit(context.get(), kHeapLimitKib);
    const int rc =
        pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, 0, data.get(), context.get());
    if (rc == PCRE2_ERROR_NOMATCH) return false;
    if (rc < 0) {
      return make_error(ErrorCode::kResourceExhausted, "regular expression {} on {}: {}", quote_name(text), name,
                        pcre2_message(rc));
    }
    return true;
  }
};

Expected<ModuleFilter::Rules> ModuleFilter::compile_rules(const char* list, const IncModuleList& from) {
  Rules rules;
  for (const std::string& name : from.names) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    auto pattern = std::make_shared<Pattern>();
    pattern->text = name;
    pattern->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, &error, &offset, nullptr);
    if (!pattern->code) {
      return make_error(ErrorCode::kInvalidArgument, "{}.names: {} is not a regular expression, at byte {}: {}", list,
                        quote_name(name), offset, pcre2_message(error));
    }
    rules.names.push_back(std::move(pattern));
  }
  for (const std::string& type : from.types) {
    if (std::find(kTypes.begin(), kTypes.end(), type) == kTypes.end()) {
      const std::string near = closest_name(type, kTypes);
      return make_error(ErrorCode::kInvalidArgument, "{}.types: {} is no class that INC quantises{}", list,
                        quote_name(type), near.empty() ? "" : fmt::format(", did you mean \"{}\"?", near));
    }
    rules.types.push_back(type);
  }
  return rules;
}

Expected<ModuleFilter> ModuleFilter::compile(const IncModuleList& allowlist, const IncModuleList& blocklist) {
  ModuleFilter filter;
  HADAL_ASSIGN_OR_RETURN(filter.allow_, compile_rules("allowlist", allowlist));
  HADAL_ASSIGN_OR_RETURN(filter.block_, compile_rules("blocklist", blocklist));
  return filter;
}

Expected<bool> ModuleFilter::matches(const Rules& rules, std::string_view name, std::string_view type) {
  if (std::find(rules.types.begin(), rules.types.end(), type) != rules.types.end()) return true;
  for (const auto& pattern : rules.names) {
    HADAL_ASSIGN_OR_RETURN(const bool is_found, pattern->found_in(name));
    if (is_found) return true;
  }
  return false;
}

Expected<bool> ModuleFilter::selects(std::string_view module_name, std::string_view python_class) const {
  HADAL_ASSIGN_OR_RETURN(const bool is_blocked, matches(block_, module_name, python_class));
  if (is_blocked) return false;
  if (allow_.names.empty() && allow_.types.empty()) return true;
  return matches(allow_, module_name, python_class);
}

}  // namespace hadal
