// synth_checkpoint --config CONFIG.json --out DIR: see synth_checkpoint.h.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <string>

#include "synth_checkpoint/synth_checkpoint.h"

int main(int argc, char** argv) {
  hadal::SynthOptions options;
  options.show_progress = true;

  CLI::App app("Writes a model folder with made-up weights in the official layout.");
  app.add_option("--config", options.config_path, "config.json of the model")->required()->check(CLI::ExistingFile);
  app.add_option("--out", options.out_dir, "folder to write; made if absent, must be empty")->required();
  app.add_option("--tokenizer", options.tokenizer_dir, "folder whose tokenizer files are copied")
      ->check(CLI::ExistingDirectory);
  app.add_option("--seed", options.seed, "of the random weights")->capture_default_str();
  const std::map<std::string, hadal::SynthValues> formulas = {{"tiny", hadal::SynthValues::kTinyFormula}};
  app.add_option("--formula", options.values, "closed formula in place of random weights: tiny")
      ->transform(CLI::CheckedTransformer(formulas));
  const std::map<std::string, hadal::SynthWeights> kinds = {{"fp8", hadal::SynthWeights::kFp8},
                                                            {"bf16", hadal::SynthWeights::kBf16}};
  app.add_option("--dtype", options.weights, "fp8 or bf16; default: as config.json says")
      ->transform(CLI::CheckedTransformer(kinds));
  app.add_option("--shard-bytes", options.shard_bytes, "largest shard, with a unit if you like (4G, 64M)")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", options.num_threads, "0: all processors")->check(CLI::NonNegativeNumber);
  CLI11_PARSE(app, argc, argv);

  if (const auto status = hadal::write_synth_checkpoint(options); !status) {
    std::fprintf(stderr, "error: %s\n", status.error().message.c_str());
    return 1;
  }
  return 0;
}
