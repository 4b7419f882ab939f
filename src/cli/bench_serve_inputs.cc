#include "cli/bench_serve_inputs.h"

#include <filesystem>

#include "base/file.h"

namespace hadal {
namespace {

constexpr uint64_t kMaxDatasetBytes = uint64_t{4} << 30;

struct ServedModel {
  std::string id, root;  // root: the folder, as the server knows it
};

Expected<std::vector<ServedModel>> list_models(HttpClient& client, const ServeTarget& target, const std::string& base) {
  const std::string url = url_below(base, "/v1/models");
  HADAL_ASSIGN_OR_RETURN(const HttpReply reply,
                         client.call({.url = url, .api_key = target.api_key, .headers = target.headers}));
  if (reply.status != 200) return make_error(ErrorCode::kUnavailable, "{}: {} {}", url, reply.status, reply.reason);
  const auto body = parse_json(reply.body, {.max_depth = 16});
  std::vector<ServedModel> models;
  if (body && body->is_object() && body->contains("data") && (*body)["data"].is_array()) {
    for (const Json& card : (*body)["data"]) {
      const auto text = [&](const char* name) {
        const bool is_text = card.is_object() && card.contains(name) && card[name].is_string();
        return is_text ? card[name].get<std::string>() : std::string();
      };
      models.push_back({text("id"), text("root")});
    }
  }
  if (models.empty()) return make_error(ErrorCode::kCorrupt, "{}: no list of models", url);
  return models;
}

bool is_folder(const std::string& path) {
  std::error_code ignored;
  return !path.empty() && std::filesystem::is_directory(path, ignored);
}

// Fills model_id, target.model and tokenizer_dir.
Status choose_model(const BenchServeOptions& options, HttpClient& client, const std::string& base,
                    BenchServeInputs& inputs) {
  inputs.model_id = options.model;
  inputs.target.model = options.served_model_name.empty() ? options.model : options.served_model_name;
  inputs.tokenizer_dir = options.tokenizer.empty() && is_folder(options.model) ? options.model : options.tokenizer;
  if (!inputs.target.model.empty() && !inputs.tokenizer_dir.empty()) return {};
  HADAL_ASSIGN_OR_RETURN(const std::vector<ServedModel> models, list_models(client, inputs.target, base));
  const ServedModel* chosen = &models.front();
  for (const ServedModel& model : models) {
    if (model.id == inputs.target.model) chosen = &model;
  }
  if (inputs.target.model.empty()) inputs.target.model = chosen->id;
  if (inputs.model_id.empty()) inputs.model_id = inputs.target.model;
  if (chosen->id == inputs.target.model && inputs.tokenizer_dir.empty()) inputs.tokenizer_dir = chosen->root;
  if (is_folder(inputs.tokenizer_dir)) return {};
  return make_error(ErrorCode::kInvalidArgument,
                    "--tokenizer {}: no such folder here; give the model's folder (tokenizer.json is enough)",
                    inputs.tokenizer_dir);
}

Expected<Json> extra_fields(const BenchServeOptions& options) {
  Json extra = Json::object();
  if (options.top_p) extra["top_p"] = *options.top_p;
  if (options.top_k) extra["top_k"] = *options.top_k;
  if (options.min_p) extra["min_p"] = *options.min_p;
  if (options.extra_body.empty()) return extra;
  const auto given = parse_json(options.extra_body);
  if (!given || !given->is_object()) {
    return make_error(ErrorCode::kInvalidArgument, "--extra-body {}: must be a JSON object", options.extra_body);
  }
  extra.update(*given);
  return extra;
}

std::string base_of(const BenchServeOptions& options) {
  if (!options.base_url.empty()) return options.base_url;
  const bool is_ipv6 = options.host.find(':') != std::string::npos;
  return fmt::format("http://{}{}{}:{}", is_ipv6 ? "[" : "", options.host, is_ipv6 ? "]" : "", options.port);
}

Expected<ServeTarget> target_of(const BenchServeOptions& options, const std::string& base) {
  const bool is_chat = options.is_chat();
  const std::string own = is_chat ? "/v1/chat/completions" : "/v1/completions";
  ServeTarget target{.route = is_chat ? ServeRoute::kChat : ServeRoute::kCompletions,
                     .url = url_below(base, options.endpoint.empty() ? own : options.endpoint),
                     .api_key = options.api_key,
                     .ignore_eos = options.ignore_eos,
                     .best_of = options.best_of,
                     .logprobs = options.logprobs,
                     .temperature = options.temperature};
  HADAL_RETURN_IF_ERROR(parse_url(target.url).map([](const HttpUrl&) {}));
  HADAL_ASSIGN_OR_RETURN(target.headers, parse_pairs(options.headers, "--header"));
  HADAL_ASSIGN_OR_RETURN(target.extra, extra_fields(options));
  return target;
}

Expected<std::vector<ServePrompt>> make_prompts(const BenchServeOptions& options, BenchServeInputs& inputs) {
  const auto count = static_cast<size_t>(options.num_prompts);
  const Tokenizer& tokenizer = *inputs.tokenizer;
  if (options.dataset_name == "random" || (options.dataset_name.empty() && options.dataset_path.empty())) {
    RandomPromptOptions random = options.random;
    random.rule = options.random_rule == "old" ? RandomRule::kOld : RandomRule::kMid;
    random.range_ratio = options.random_range_ratio.value_or(random.rule == RandomRule::kOld ? 1.0 : 0.0);
    random.vocab_size = random_vocab_size(tokenizer, inputs.tokenizer_dir);
    random.special_tokens = tokenizer.add_bos() ? 1 : 0;
    return random_prompts(random, count, tokenizer, inputs.random);
  }
  PythonRandom random(options.seed);
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(options.dataset_path, kMaxDatasetBytes));
  if (options.dataset_name != "sonnet") {
    return sharegpt_prompts(text, count, options.sharegpt_output_len, tokenizer, random);
  }
  auto chat_template = ChatTemplate::parse(tokenizer.chat_template());
  if (tokenizer.chat_template().empty() || !chat_template) {
    return make_error(ErrorCode::kInvalidArgument, "{}: sonnet prompts need a chat template", inputs.tokenizer_dir);
  }
  SonnetPromptOptions sonnet = options.sonnet;
  sonnet.templated = !options.is_chat();
  return sonnet_prompts(text, count, sonnet, tokenizer, *chat_template, random);
}

}  // namespace

Expected<BenchServeInputs> prepare_bench_serve(const BenchServeOptions& options, HttpClient& client) {
  BenchServeInputs inputs;
  const std::string base = base_of(options);
  HADAL_ASSIGN_OR_RETURN(inputs.target, target_of(options, base));
  HADAL_RETURN_IF_ERROR(choose_model(options, client, base, inputs));
  HADAL_ASSIGN_OR_RETURN(inputs.tokenizer, Tokenizer::load(inputs.tokenizer_dir));
  inputs.random = NumpyRandom(options.seed);
  auto prompts = make_prompts(options, inputs);
  if (!prompts) {
    return options.dataset_path.empty() ? forward_error(std::move(prompts))
                                        : forward_error(std::move(prompts), options.dataset_path);
  }
  inputs.prompts = std::move(*prompts);
  return inputs;
}

}  // namespace hadal
