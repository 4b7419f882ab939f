#include "bench/serve_dataset.h"

#include <algorithm>
#include <cmath>

#include "base/json.h"

namespace hadal {
namespace {

// A file of conversations is some hundred megabytes.
constexpr JsonLimits kDatasetLimits = {.max_bytes = size_t{4} << 30, .max_depth = 32};

Expected<int64_t> count_tokens(const Tokenizer& tokenizer, std::string_view text) {
  HADAL_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer.encode(text, {.add_special_tokens = true}));
  return static_cast<int64_t>(ids.size());
}

struct LengthRange {
  int64_t low = 0, high = 0;  // both included
};

LengthRange length_range(int64_t length, const RandomPromptOptions& options) {
  const auto exact = static_cast<double>(length);
  if (options.rule == RandomRule::kOld) {
    return {std::max<int64_t>(1, static_cast<int64_t>(exact * options.range_ratio)), length};
  }
  return {static_cast<int64_t>(exact * (1 - options.range_ratio)),
          static_cast<int64_t>(exact * (1 + options.range_ratio))};
}

Status check(const RandomPromptOptions& options, int64_t input_len) {
  const bool is_old = options.rule == RandomRule::kOld;
  const double most = is_old ? 1 : std::nextafter(1.0, 0.0);
  if (!(options.range_ratio >= 0 && options.range_ratio <= most)) {
    return make_error(ErrorCode::kInvalidArgument, "random range ratio {}: must be in [0, 1{} under this rule",
                      options.range_ratio, is_old ? "]" : ")");
  }
  if (length_range(input_len, options).low < 1 || length_range(options.output_len, options).low < 1) {
    return make_error(ErrorCode::kInvalidArgument, "random lengths of {} in and {} out: too short for a ratio of {}",
                      input_len, options.output_len, options.range_ratio);
  }
  if (options.vocab_size < 1) return make_error(ErrorCode::kInvalidArgument, "the tokenizer has no tokens");
  return {};
}

std::vector<int64_t> draw(NumpyRandom& random, int64_t low, int64_t high, size_t count) {
  std::vector<int64_t> values(count);
  for (int64_t& value : values) value = random.randint(low, high + 1);
  return values;
}

}  // namespace

int64_t random_vocab_size(const Tokenizer& tokenizer, const std::filesystem::path& model_dir) {
  int32_t size = tokenizer.vocab_size();
  std::error_code ignored;
  if (!std::filesystem::exists(model_dir / "tokenizer.json", ignored)) return size;
  while (size > 0 && (tokenizer.is_added(size - 1) || tokenizer.token_string(size - 1).empty())) --size;
  return size;
}

Expected<std::vector<ServePrompt>> random_prompts(const RandomPromptOptions& options, size_t num_prompts,
                                                  const Tokenizer& tokenizer, NumpyRandom& random) {
  const int64_t nominal = options.input_len - (options.rule == RandomRule::kMid ? options.special_tokens : 0);
  HADAL_RETURN_IF_ERROR(check(options, nominal));
  const LengthRange in = length_range(nominal, options), out = length_range(options.output_len, options);
  const int64_t last_id = options.vocab_size - 1;
  const auto prefix = draw(random, 0, last_id, static_cast<size_t>(options.prefix_len));
  const auto input_lens = draw(random, in.low, in.high, num_prompts);
  const auto output_lens = draw(random, out.low, out.high, num_prompts);
  const auto offsets = draw(random, 0, last_id, num_prompts);
  std::vector<ServePrompt> prompts;
  for (size_t i = 0; i < num_prompts; ++i) {
    std::vector<int32_t> ids(prefix.begin(), prefix.end());
    for (int64_t j = 0; j < input_lens[i]; ++j) {
      ids.push_back(static_cast<int32_t>((offsets[i] + static_cast<int64_t>(i) + j) % options.vocab_size));
    }
    std::string text = tokenizer.decode(ids, false);
    if (options.rule == RandomRule::kMid) {
      HADAL_ASSIGN_OR_RETURN(std::vector<int32_t> again, tokenizer.encode(text, {}));
      again.resize(std::min(again.size(), ids.size()));
      text = tokenizer.decode(again, false);
    }
    prompts.push_back({std::move(text), options.prefix_len + input_lens[i], output_lens[i]});
  }
  return prompts;
}

Expected<std::vector<ServePrompt>> sharegpt_prompts(std::string_view text, size_t num_prompts,
                                                    std::optional<int64_t> output_len, const Tokenizer& tokenizer,
                                                    PythonRandom& random) {
  HADAL_ASSIGN_OR_RETURN(const Json file, parse_json(text, kDatasetLimits));
  if (!file.is_array()) return make_error(ErrorCode::kCorrupt, "must be a list of conversations");
  struct Turns {
    const std::string* question;
    const std::string* answer;
  };
  std::vector<Turns> conversations;
  for (size_t i = 0; i < file.size(); ++i) {
    const auto list = file[i].is_object() ? file[i].find("conversations") : file[i].end();
    if (!file[i].is_object() || list == file[i].end() || !list->is_array()) {
      return make_error(ErrorCode::kCorrupt, "entry {} has no list of conversations", i);
    }
    if (list->size() < 2) continue;
    const std::string* words[2];
    for (size_t turn = 0; turn < 2; ++turn) {
      const Json& one = (*list)[turn];
      const auto value = one.is_object() ? one.find("value") : one.end();
      if (!one.is_object() || value == one.end() || !value->is_string()) {
        return make_error(ErrorCode::kCorrupt, "entry {}: turn {} has no value", i, turn);
      }
      words[turn] = value->get_ptr<const std::string*>();
    }
    conversations.push_back({words[0], words[1]});
  }
  random.shuffle(conversations);
  std::vector<ServePrompt> prompts;
  for (const Turns& turns : conversations) {
    if (prompts.size() == num_prompts) break;
    HADAL_ASSIGN_OR_RETURN(const int64_t num_in, count_tokens(tokenizer, *turns.question));
    HADAL_ASSIGN_OR_RETURN(const int64_t in_file, count_tokens(tokenizer, *turns.answer));
    const int64_t num_out = output_len.value_or(in_file);
    constexpr int64_t kLeast = 4, kMostIn = 1024, kMost = 2048;
    if (num_in < kLeast || (!output_len && num_out < kLeast) || num_in > kMostIn || num_in + num_out > kMost) continue;
    prompts.push_back({*turns.question, num_in, num_out});
  }
  if (prompts.empty()) return make_error(ErrorCode::kInvalidArgument, "no conversation of fitting length");
  return prompts;
}

namespace {

constexpr const char* kSonnetInstruction = "Choose as many of these lines of a poem as you like:\n";

Expected<std::string> as_chat(const std::string& text, const Tokenizer& tokenizer, const ChatTemplate& chat_template) {
  TemplateInput input{.messages = Json::array({{{"role", "user"}, {"content", text}}}),
                      .bos_token = tokenizer.bos_token(),
                      .eos_token = tokenizer.eos_token()};
  HADAL_ASSIGN_OR_RETURN(const Json context, template_context(input, chat_template));
  return chat_template.render(context);
}

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size() - 1);
    lines.emplace_back(text.substr(0, end + 1));
    text.remove_prefix(end + 1);
  }
  return lines;
}

}  // namespace

Expected<std::vector<ServePrompt>> sonnet_prompts(std::string_view text, size_t num_prompts,
                                                  const SonnetPromptOptions& options, const Tokenizer& tokenizer,
                                                  const ChatTemplate& chat_template, PythonRandom& random) {
  const std::vector<std::string> lines = lines_of(text);
  if (lines.empty()) return make_error(ErrorCode::kInvalidArgument, "the poem has no lines");
  int64_t poem_tokens = 0;
  for (const std::string& line : lines) {
    HADAL_ASSIGN_OR_RETURN(const int64_t count, count_tokens(tokenizer, line));
    poem_tokens += count;
  }
  const double line_tokens = static_cast<double>(poem_tokens) / static_cast<double>(lines.size());
  HADAL_ASSIGN_OR_RETURN(const std::string bare, as_chat(kSonnetInstruction, tokenizer, chat_template));
  HADAL_ASSIGN_OR_RETURN(const int64_t bare_tokens, count_tokens(tokenizer, bare));
  if (options.input_len <= options.prefix_len || options.prefix_len <= bare_tokens) {
    return make_error(ErrorCode::kInvalidArgument,
                      "sonnet lengths: input {} must be over prefix {}, and that over the {} tokens of the instruction",
                      options.input_len, options.prefix_len, bare_tokens);
  }
  // nearbyint rounds halves to even, as Python's round does.
  const auto lines_in = [&](int64_t tokens) {
    return static_cast<size_t>(std::nearbyint(static_cast<double>(tokens - bare_tokens) / line_tokens));
  };
  const size_t num_prefix = std::min(lines_in(options.prefix_len), lines.size());
  const size_t num_drawn = lines_in(options.input_len) - lines_in(options.prefix_len);
  std::string prefix = kSonnetInstruction;
  for (size_t i = 0; i < num_prefix; ++i) prefix += lines[i];
  std::vector<ServePrompt> prompts;
  for (size_t i = 0; i < num_prompts; ++i) {
    std::string prompt = prefix;
    for (size_t j = 0; j < num_drawn; ++j) {
      prompt += lines[static_cast<size_t>(random.uniform() * static_cast<double>(lines.size()))];
    }
    HADAL_ASSIGN_OR_RETURN(std::string templated, as_chat(prompt, tokenizer, chat_template));
    HADAL_ASSIGN_OR_RETURN(const int64_t count, count_tokens(tokenizer, templated));
    prompts.push_back({options.templated ? std::move(templated) : std::move(prompt), count, options.output_len});
  }
  return prompts;
}

}  // namespace hadal
