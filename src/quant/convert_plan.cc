#include "quant/convert_plan.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <set>
#include <utility>

#include "formats/message_text.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

constexpr std::string_view kScaleSuffix = "_scale_inv";
constexpr int64_t kMaxRowCodes = int64_t{1} << 20;  // one row must fit a buffer

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// "weight_scale" of "model.layers.0.mlp.up_proj.weight_scale".
std::string_view last_component(std::string_view name) { return name.substr(name.rfind('.') + 1); }

// Names of quantisation parameters of the formats that are about: scales, zero points, packed codes.
bool looks_like_scale(std::string_view name) {
  std::string last(last_component(name));
  std::transform(last.begin(), last.end(), last.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const char* part : {"scale", "zero_point", "qzeros", "qweight", "absmax", "packed"}) {
    if (contains(last, part)) return true;
  }
  return false;
}

// N of "model.layers.N.".
std::optional<int64_t> layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t layer = 0;
  const char* end = name.data() + name.size();
  const auto [at, error] = std::from_chars(name.data() + kPrefix.size(), end, layer);
  if (error != std::errc() || at == end || *at != '.') return std::nullopt;
  return layer;
}

std::optional<int64_t> config_int(const Json& config, const char* key) {
  if (!config.contains(key) || !config[key].is_number_integer()) return std::nullopt;
  return config[key].get<int64_t>();
}

class Planner {
 public:
  Planner(const Checkpoint& checkpoint, const Json& config, const ConvertRequest& request)
      : checkpoint_(checkpoint), config_(config), request_(request) {
    plan_.method = request.method;
    plan_.target = request.target;
    plan_.bug_compatible = request.bug_compatible;
    plan_.reverse = request.reverse;
    if (request.method == ConvertMethod::kExact) plan_.map = RangeMap::kExact;
    if (request.method == ConvertMethod::kSeed) plan_.map = RangeMap::kSeed;
  }

  Expected<ConvertPlan> run() {
    check_config();
    for (size_t idx = 0; idx < checkpoint_.shards().size(); ++idx) plan_shard(idx);
    note_input_scales();
    if (problems_.empty()) return std::move(plan_);
    if (problems_.size() > 1) problems_[0].message += fmt::format(" (and {} more problems)", problems_.size() - 1);
    return tl::unexpected<Error>(std::move(problems_[0]));
  }

 private:
  template <typename... Args>
  void refuse(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
    problems_.push_back({code, fmt::format(format, std::forward<Args>(args)...)});
  }

  void check_config() {
    const auto quant = config_.find("quantization_config");
    if (quant == config_.end() || quant->is_null()) return;
    const auto expect = [&](const char* key, const Json& expected) {
      if (!quant->is_object() || !quant->contains(key) || (*quant)[key] == expected) return;
      refuse(ErrorCode::kUnsupported,
             "config.json: quantization_config.{} is {}, expected {}: only block FP8 is converted", key,
             show_json((*quant)[key]), show_json(expected));
    };
    expect("quant_method", "fp8");
    expect("fmt", "e4m3");
    expect("weight_block_size", Json::array({plan_.layout.block_rows, plan_.layout.block_cols}));
  }

  bool is_dropped(const std::string& name) const {
    if (request_.method != ConvertMethod::kChannel) return false;
    const auto layer = layer_of(name), num_layers = config_int(config_, "num_hidden_layers");
    return layer && num_layers && *layer >= *num_layers;
  }

  void plan_shard(size_t shard_idx) {
    const SafetensorsFile& file = checkpoint_.shards()[shard_idx];
    shard_ = {};
    shard_.file_name = file.path().filename().string();
    shard_.shard_idx = shard_idx;
    for (const TensorInfo& info : file.tensors()) {
      if (is_dropped(info.name)) {
        plan_.dropped.push_back(info.name);
      } else {
        plan_tensor(*checkpoint_.find(info.name));
      }
    }
    if (shard_.outputs.empty()) return;
    plan_.output_bytes += shard_.output_bytes;
    plan_.shards.push_back(std::move(shard_));
  }

  void plan_tensor(const Checkpoint::Entry& entry) {
    const std::string& name = entry.info.name;
    if (entry.info.dtype == DType::kF8E4M3) return plan_weight(entry);
    if (entry.info.dtype == DType::kF8E5M2) {
      return refuse(ErrorCode::kUnsupported, "tensor {} is F8_E5M2; only F8_E4M3 weights are converted",
                    quote_name(name));
    }
    if (name.ends_with(kScaleSuffix)) {
      const auto* weight = checkpoint_.find(name.substr(0, name.size() - kScaleSuffix.size()));
      if (weight != nullptr && weight->info.dtype == DType::kF8E4M3) return plan_scale(entry, *weight);
    }
    if (request_.bug_compatible && contains(name, "proj") && plan_bug(entry)) return;
    if (looks_like_scale(name)) return refuse_scale(entry);
    ++plan_.num_copied;
    put({.name = name, .dtype = entry.info.dtype, .shape = entry.info.shape, .source = &entry});
  }

  void plan_weight(const Checkpoint::Entry& entry) {
    const std::string& name = entry.info.name;
    const auto* scale = checkpoint_.find(name + std::string(kScaleSuffix));
    if (scale == nullptr) {
      const auto* other = checkpoint_.find(name + "_scale");
      return refuse(
          ErrorCode::kUnsupported,
          "tensor {} is F8_E4M3 and has no scale {}{}: what its codes stand for is unknown; fetch the official "
          "folder, whose weights have one scale for each 128x128 block",
          quote_name(name), quote_name(name + std::string(kScaleSuffix)),
          other == nullptr ? "" : fmt::format(" (there is {}, of another scheme)", quote_name(other->info.name)));
    }
    const Shape& shape = entry.info.shape;
    if (shape.rank() != 2) {
      return refuse(ErrorCode::kUnsupported, "tensor {} is F8_E4M3 of shape {}, expected a matrix", quote_name(name),
                    shape.to_string());
    }
    if (shape[1] > kMaxRowCodes) {
      return refuse(ErrorCode::kUnsupported, "tensor {} has rows of {} codes, at most {} are supported",
                    quote_name(name), shape[1], kMaxRowCodes);
    }
    ++plan_.num_converted;
    plan_.converted_codes += entry.info.size_bytes();
    const TensorAction action = request_.reverse                             ? TensorAction::kRestoreCodes
                                : request_.method == ConvertMethod::kChannel ? TensorAction::kRowCodes
                                                                             : TensorAction::kMapCodes;
    put({.name = name, .dtype = entry.info.dtype, .shape = shape, .action = action, .source = &entry, .scale = scale});
  }

  void plan_scale(const Checkpoint::Entry& entry, const Checkpoint::Entry& weight) {
    const std::string& name = entry.info.name;
    const Shape& of = weight.info.shape;
    if (of.rank() != 2) return;  // the weight has been refused
    const Shape expected = plan_.layout.scale_shape(of[0], of[1]);
    if (entry.info.dtype != DType::kF32) {
      return refuse(ErrorCode::kUnsupported, "scale {} is {}, expected F32", quote_name(name),
                    dtype_name(entry.info.dtype));
    }
    if (entry.info.shape != expected) {
      const bool by_row = entry.info.shape.num_elements() == of[0];
      return refuse(ErrorCode::kCorrupt, "scale {} has shape {}, expected {} for a weight of {}{}", quote_name(name),
                    entry.info.shape.to_string(), expected.to_string(), of.to_string(),
                    by_row ? ": one scale a row, a per-channel checkpoint; convert from the official folder" : "");
    }
    if (request_.method == ConvertMethod::kChannel) {
      put({.name = name,
           .dtype = DType::kF32,
           .shape = {of[0]},
           .action = TensorAction::kRowScales,
           .source = &weight,
           .scale = &entry});
      return plan_input_scale(weight.info.name);
    }
    const TensorAction action = request_.reverse ? TensorAction::kRestoreScales : TensorAction::kMapScales;
    put({.name = name, .dtype = DType::kF32, .shape = entry.info.shape, .action = action, .source = &entry});
  }

  void plan_input_scale(const std::string& weight_name) {
    if (request_.input_scales == nullptr) return;
    const std::string module = module_of_weight(weight_name);
    const auto at = request_.input_scales->find(module);
    if (at == request_.input_scales->end()) {
      return refuse(ErrorCode::kInvalidArgument, "module {} has no scale in the input scales file", quote_name(module));
    }
    used_modules_.insert(module);
    const auto factor = static_cast<float>(448.0 / static_cast<double>(full_scale(request_.target)));
    put({.name = module + ".input_scale",
         .dtype = DType::kF32,
         .shape = {1},
         .action = TensorAction::kConstant,
         .value = at->second * factor});
  }

  // The peer's rules for "proj" tensors that are not block FP8. False: none applies.
  bool plan_bug(const Checkpoint::Entry& entry) {
    const std::string& name = entry.info.name;
    const bool is_float = entry.info.dtype == DType::kBF16 || entry.info.dtype == DType::kF32;
    const bool is_weight = name.ends_with("weight"), is_scale = name.ends_with("input_scale_inv");
    if (!is_weight && !is_scale) return false;
    if (!is_float) {
      refuse(ErrorCode::kUnsupported, "tensor {} is {}; --bug-compatible converts BF16 and F32", quote_name(name),
             dtype_name(entry.info.dtype));
      return true;
    }
    put({.name = name,
         .dtype = is_weight ? DType::kF8E4M3 : DType::kF32,
         .shape = entry.info.shape,
         .action = is_weight ? TensorAction::kSeedCast : TensorAction::kSeedScales,
         .source = &entry});
    return true;
  }

  void refuse_scale(const Checkpoint::Entry& entry) {
    const std::string& name = entry.info.name;
    const char* hint = name.ends_with(kScaleSuffix) && !name.ends_with("input_scale_inv")
                           ? ": there is no F8_E4M3 weight of that name"
                           : ": only \"<weight>_scale_inv\" of F8_E4M3 weights is known";
    const bool input = name.ends_with("input_scale_inv") && request_.method == ConvertMethod::kSeed;
    refuse(ErrorCode::kUnsupported, "tensor {} ({}, {}) is named like a scale{}{}", quote_name(name),
           dtype_name(entry.info.dtype), entry.info.shape.to_string(), hint,
           input ? "; --bug-compatible converts it as convert_for_g2.py does" : "");
  }

  void put(PlannedOutput output) {
    const auto size = output.shape.checked_size_bytes(output.dtype);
    if (!size) {
      return refuse(ErrorCode::kUnsupported, "tensor {}: shape {} of {} overflows", quote_name(output.name),
                    output.shape.to_string(), dtype_name(output.dtype));
    }
    shard_.output_bytes += *size;
    shard_.work_bytes += *size;
    shard_.outputs.push_back(std::move(output));
  }

  void note_input_scales() {
    if (request_.input_scales == nullptr) return;
    for (const auto& [module, scale] : *request_.input_scales) {
      if (!used_modules_.contains(module)) plan_.unused_input_scales.push_back(module);
    }
  }

  const Checkpoint& checkpoint_;
  const Json& config_;
  const ConvertRequest& request_;
  std::vector<Error> problems_;
  std::set<std::string> used_modules_;
  ShardPlan shard_;
  ConvertPlan plan_;
};

}  // namespace

bool ConvertPlan::converts() const {
  for (const ShardPlan& shard : shards) {
    for (const PlannedOutput& output : shard.outputs) {
      if (output.action != TensorAction::kCopy) return true;
    }
  }
  return !dropped.empty();
}

std::string module_of_weight(const std::string& weight_name) {
  constexpr std::string_view kWeight = ".weight";
  return weight_name.ends_with(kWeight) ? weight_name.substr(0, weight_name.size() - kWeight.size()) : weight_name;
}

Expected<ConvertPlan> make_convert_plan(const Checkpoint& checkpoint, const Json& config,
                                        const ConvertRequest& request) {
  return Planner(checkpoint, config, request).run();
}

}  // namespace hadal
