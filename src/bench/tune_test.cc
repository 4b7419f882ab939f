#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "base/file.h"
#include "base/json.h"
#include "bench/host.h"
#include "bench/kernel_cases.h"
#include "bench/loaded_model.h"
#include "bench/tune.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using ::testing::HasSubstr;

const KernelTable& portable() { return kernels_for(Isa::kPortable); }

bool is_default(const MachineTuning& tuning) {
  const KernelTuning defaults;
  return tuning.num_threads == 0 && tuning.kernels.max_group_tokens == defaults.max_group_tokens &&
         tuning.kernels.prefetch_bytes == defaults.prefetch_bytes;
}

class TuningCache : public ::testing::Test {
 protected:
  void write(const std::string& text) { std::ofstream(path_) << text; }
  Json entry() const {
    const HostFacts host = host_facts();
    return {{"cpu_model", host.cpu_model}, {"num_cores", host.num_cores}, {"isa", portable().name},
            {"max_group_tokens", 8},       {"prefetch_bytes", 1024},      {"num_threads", 1}};
  }
  static std::string file_of(const Json& entry) { return Json{{"version", 1}, {"entries", {entry}}}.dump(); }

  TempDir dir_;
  std::filesystem::path path_ = dir_.path() / "tuning.json";
};

TEST_F(TuningCache, KeepsWhatWasSavedForEachTable) {
  const auto nested = dir_.path() / "a" / "b" / "tuning.json";
  EXPECT_TRUE(is_default(load_tuning(nested, portable()))) << "no file is no warning";
  const MachineTuning first = {.kernels = {.max_group_tokens = 8, .prefetch_bytes = 0}, .num_threads = 3};
  ASSERT_TRUE(save_tuning(nested, portable(), {.kernels = {.max_group_tokens = 6}}));
  ASSERT_TRUE(save_tuning(nested, kernels_for(Isa::kReference), {.kernels = {.max_group_tokens = 10}}));
  ASSERT_TRUE(save_tuning(nested, portable(), first));
  const MachineTuning loaded = load_tuning(nested, portable());
  EXPECT_EQ(loaded.kernels.max_group_tokens, 8);
  EXPECT_EQ(loaded.kernels.prefetch_bytes, 0);
  EXPECT_EQ(loaded.num_threads, 3);
  EXPECT_EQ(load_tuning(nested, kernels_for(Isa::kReference)).kernels.max_group_tokens, 10);
  EXPECT_EQ(parse_json(*read_file(nested, 10'000)).value()["entries"].size(), 2u);
}

TEST_F(TuningCache, EntriesOfOtherMachinesAreNotForThisOne) {
  write(file_of(entry()));
  ASSERT_EQ(load_tuning(path_, portable()).num_threads, 1) << "the entry is read when it fits";
  for (const char* key : {"cpu_model", "num_cores", "isa"}) {
    Json other = entry();
    other[key] = "another";
    write(file_of(other));
    EXPECT_TRUE(is_default(load_tuning(path_, portable()))) << key;
  }
}

TEST_F(TuningCache, BrokenFilesMeanDefaultsAndAreReplaced) {
  std::vector<std::string> broken = {"",
                                     "{",
                                     "[]",
                                     "3",
                                     "{\"version\": 2, \"entries\": []}",
                                     "{\"version\": 1, \"entries\": 3}",
                                     "{\"version\": 1, \"entries\": [3, null, []]}"};
  for (const char* key : {"max_group_tokens", "prefetch_bytes", "num_threads"}) {
    for (const Json& value : {Json("8"), Json(-1), Json(1e300), Json(8.5), Json(nullptr), Json(int64_t{1} << 62)}) {
      Json bad = entry();
      bad[key] = value;
      broken.push_back(file_of(bad));
    }
  }
  for (const std::string& text : broken) {
    write(text);
    EXPECT_TRUE(is_default(load_tuning(path_, portable()))) << text;
    ASSERT_TRUE(save_tuning(path_, portable(), {.num_threads = 5})) << text;
    EXPECT_EQ(load_tuning(path_, portable()).num_threads, 5) << text;
  }
}

TEST_F(TuningCache, SettingsThatKernelsRefuseAreNotUsed) {
  ASSERT_EQ(setenv("XDG_CACHE_HOME", dir_.path().c_str(), 1), 0);
  ASSERT_EQ(tuning_cache_path(), dir_.path() / "hadal/tuning.json");
  ASSERT_TRUE(save_tuning(*tuning_cache_path(), portable(), {.kernels = {.max_group_tokens = 1000}, .num_threads = 1}));
  apply_tuning(portable(), 0);
  EXPECT_EQ(kernel_tuning().max_group_tokens, KernelTuning().max_group_tokens);
  ASSERT_TRUE(save_tuning(*tuning_cache_path(), portable(), {.kernels = {.max_group_tokens = 6}, .num_threads = 1}));
  EXPECT_EQ(apply_tuning(portable(), 0), 1);
  EXPECT_EQ(kernel_tuning().max_group_tokens, 6);
  EXPECT_EQ(apply_tuning(portable(), 2), 2) << "the command line wins";
  ASSERT_EQ(setenv("XDG_CACHE_HOME", "relative", 1), 0);
  ASSERT_EQ(setenv("HOME", "/home/x", 1), 0);
  EXPECT_EQ(tuning_cache_path(), "/home/x/.cache/hadal/tuning.json");
  ASSERT_TRUE(set_kernel_tuning({}));
}

// Small: bits do not depend on where matrices lie.
constexpr uint64_t kMemoryBytes = uint64_t{1} << 19;

// The reference has nothing to tune.
std::vector<Isa> tuned_isas() {
  std::vector<Isa> isas = available_isas();
  std::erase(isas, Isa::kReference);
  return isas;
}

class TuningBits : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Tables, TuningBits, ::testing::ValuesIn(tuned_isas()), [](const auto& info) {
  std::string name = isa_name(info.param);
  std::erase(name, '-');
  return name;
});

TEST_P(TuningBits, NoSettingChangesABit) {
  const auto config = read_config(source_dir() / "models/nano");
  ASSERT_TRUE(config);
  auto runner = KernelRunner::create(*config, kernels_for(GetParam()), kMemoryBytes);
  ASSERT_TRUE(runner);
  std::vector<KernelCase> cases = matrix_cases(*config);
  cases.push_back({.op = KernelOp::kAbsorbed, .name = "absorbed"});
  cases.push_back({.op = KernelOp::kExpanded, .name = "expanded"});
  ThreadPool pool(1);
  for (KernelCase& what : cases) {
    for (const int64_t tokens : {1, 7, 29}) {
      what.tokens = tokens;
      ASSERT_TRUE(set_kernel_tuning({}));
      runner->run(what, pool);
      const std::vector<std::byte> expected = runner->output();
      for (const int64_t group : group_candidates()) {
        for (const int64_t prefetch : prefetch_candidates()) {
          ASSERT_TRUE(set_kernel_tuning({.max_group_tokens = group, .prefetch_bytes = prefetch}));
          runner->run(what, pool);
          EXPECT_EQ(expected, runner->output())
              << what.name << ", " << tokens << " tokens, groups of " << group << ", prefetch " << prefetch;
        }
      }
    }
  }
  ASSERT_TRUE(set_kernel_tuning({}));
}

TEST(Tune, TriesTheDefaultsAndSetsUpTheBest) {
  const auto report = run_tune({.model = source_dir() / "models/nano/config.json",
                                .isa = "portable",
                                .num_threads = 1,
                                .rounds = 1,
                                .memory_bytes = 1 << 20});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->tried.size(), prefetch_candidates().size() + group_candidates().size());
  EXPECT_EQ(kernel_tuning().max_group_tokens, report->best.kernels.max_group_tokens);
  EXPECT_EQ(kernel_tuning().prefetch_bytes, report->best.kernels.prefetch_bytes);
  EXPECT_EQ(report->best.num_threads, 1);
  EXPECT_THAT(tune_text(*report), HasSubstr("best for portable"));
  EXPECT_FALSE(run_tune({.model = source_dir() / "models/absent"}));
  ASSERT_TRUE(set_kernel_tuning({}));
}

}  // namespace
}  // namespace hadal
