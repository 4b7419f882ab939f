#include "cli/calibrate_report.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace hadal {
namespace {

// Layers that a list names before it only counts.
constexpr size_t kMostLayers = 12;

class ThinExperts {
 public:
  void add(int64_t layer, size_t expert, uint64_t tokens) {
    ++count_;
    if (layers_.empty() || layers_.back().index != layer) layers_.push_back({layer, {}});
    layers_.back().experts.push_back(tokens == 0 ? fmt::format("{}", expert) : fmt::format("{} ({})", expert, tokens));
  }
  bool empty() const { return count_ == 0; }
  std::string text(std::string_view title) const {
    std::string out = fmt::format("  {}: {}\n", title, count_);
    for (size_t i = 0; i < std::min(layers_.size(), kMostLayers); ++i) {
      out += fmt::format("    layer {}: {}\n", layers_[i].index, fmt::join(layers_[i].experts, ", "));
    }
    if (layers_.size() > kMostLayers) {
      out += fmt::format("    and in {} more layers: see expert_tokens in the ranges\n", layers_.size() - kMostLayers);
    }
    return out;
  }

 private:
  struct Layer {
    int64_t index;
    std::vector<std::string> experts;
  };
  size_t count_ = 0;
  std::vector<Layer> layers_;
};

}  // namespace

std::string coverage_text(const RangeSet& ranges) {
  std::vector<uint64_t> all;
  int64_t num_layers = 0;
  ThinExperts unseen, rare;
  for (size_t l = 0; l < ranges.layers.size(); ++l) {
    const std::vector<uint64_t>& tokens = ranges.layers[l].expert_tokens;
    if (tokens.empty()) continue;
    ++num_layers;
    for (size_t expert = 0; expert < tokens.size(); ++expert) {
      all.push_back(tokens[expert]);
      if (tokens[expert] == 0) unseen.add(static_cast<int64_t>(l), expert, 0);
      if (tokens[expert] > 0 && tokens[expert] < kFewExpertTokens) {
        rare.add(static_cast<int64_t>(l), expert, tokens[expert]);
      }
    }
  }
  if (all.empty()) return "";
  std::sort(all.begin(), all.end());
  std::string out =
      fmt::format("coverage: {} MoE layers of {} experts; tokens an expert: least {}, median {}, most {}\n", num_layers,
                  ranges.dims.n_routed_experts, all.front(), all[all.size() / 2], all.back());
  if (!unseen.empty()) {
    out += unseen.text("experts that saw no token (their scale will be the layer's median)");
  }
  if (!rare.empty()) {
    out += rare.text(fmt::format("experts that saw fewer than {} tokens (their count)", kFewExpertTokens));
  }
  if (unseen.empty() && rare.empty()) out += fmt::format("  every expert saw at least {} tokens\n", kFewExpertTokens);
  return out;
}

}  // namespace hadal
