#include "bench/ceilings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>

#include "base/topology.h"
#include "bench/disk_probe.h"
#include "bench/probe_team.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using ::testing::HasSubstr;

Ceilings some_ceilings() {
  Ceilings ceilings;
  ceilings.num_threads = 2;
  ceilings.read_bytes_per_s = 34.5e9;
  ceilings.read_median_bytes_per_s = 33e9;
  ceilings.memcpy_bytes_per_s = 18e9;
  ceilings.first_touch_bytes_per_s = 1.2e9;
  ceilings.bf16_flops = 456e9;
  ceilings.fp32_flops = 228e9;
  ceilings.int8_ops = 911e9;
  ceilings.disk_read_bytes_per_s = 1.37e9;
  ceilings.barrier_s = 158e-9;
  ceilings.l3_bytes = 32 << 20;
  ceilings.cpu = "AMD EPYC";
  return ceilings;
}

TEST(Ceilings, EveryValueSurvivesJson) {
  const Ceilings before = some_ceilings();
  const auto text = parse_json(dump_json(ceilings_to_json(before)));
  ASSERT_TRUE(text);
  const auto after = ceilings_from_json(*text);
  ASSERT_TRUE(after) << after.error().message;
  EXPECT_EQ(ceilings_to_json(*after), ceilings_to_json(before));
  EXPECT_EQ(after->barrier_s, 158e-9);
  EXPECT_EQ(after->cpu, "AMD EPYC");
}

TEST(Ceilings, BadJsonNamesTheField) {
  const auto error_with = [](const char* field, const Json& value) {
    Json json = ceilings_to_json(some_ceilings());
    json[field] = value;
    const auto result = ceilings_from_json(json);
    return result ? std::string("accepted") : result.error().message;
  };
  EXPECT_THAT(error_with("memcpy_bytes_per_s", "fast"), HasSubstr("memcpy_bytes_per_s"));
  EXPECT_THAT(error_with("memcpy_bytes_per_s", -1), HasSubstr("memcpy_bytes_per_s"));
  EXPECT_THAT(error_with("num_threads", 1.5), HasSubstr("num_threads"));
  EXPECT_THAT(error_with("read_bytes_per_s", 0), HasSubstr("read_bytes_per_s"));
  EXPECT_EQ(error_with("bf16_flops", 0), "accepted");  // no such instructions
  Json without = ceilings_to_json(some_ceilings());
  without.erase("fp32_flops");
  EXPECT_THAT(ceilings_from_json(without).error().message, HasSubstr("fp32_flops is missing"));
  EXPECT_FALSE(ceilings_from_json(Json::array()));
}

// The smallest run: one sample of everything. Checks relations, not speeds.
TEST(Ceilings, MeasuresEveryKindAndTakesTheBest) {
  const TempDir dir;
  const std::string path = dir.path() / "disk";
  std::ofstream(path) << std::string(3 << 20, 'x');
  const auto ceilings = measure_ceilings({.num_threads = 2, .seconds = 0, .disk = dir.path()});
  if (!ceilings && ceilings.error().code == ErrorCode::kUnsupported) GTEST_SKIP() << ceilings.error().message;
  ASSERT_TRUE(ceilings) << ceilings.error().message;
  EXPECT_EQ(ceilings->num_threads, 2);
  EXPECT_GT(ceilings->read_bytes_per_s, 0);
  EXPECT_GT(ceilings->memcpy_bytes_per_s, 0);
  EXPECT_GT(ceilings->first_touch_bytes_per_s, 0);
  EXPECT_GT(ceilings->fp32_flops, 0);
  EXPECT_GT(ceilings->disk_read_bytes_per_s, 0);
  EXPECT_GT(ceilings->barrier_s, 0);
  std::set<std::string> kinds;
  for (const ProbeResult& probe : ceilings->probes) {
    kinds.insert(probe.what);
    EXPECT_GE(probe.num_samples, 1) << probe.what << " " << probe.variant;
    EXPECT_LE(probe.min, probe.median);
    EXPECT_LE(probe.median, probe.max);
    if (probe.what == "read") {
      EXPECT_LE(probe.best, ceilings->read_bytes_per_s);
    }
    if (probe.what == "fp32") {
      EXPECT_LE(probe.best, ceilings->fp32_flops);
    }
    if (probe.what == "barrier") {
      EXPECT_GE(probe.best, ceilings->barrier_s);
    }
  }
  EXPECT_EQ(kinds.count("read") + kinds.count("fp32") + kinds.count("first_touch") + kinds.count("disk"), 4U);
}

TEST(Ceilings, RefusesSenselessOptions) {
  EXPECT_EQ(measure_ceilings({.num_threads = -1}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(measure_ceilings({.seconds = -1}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(measure_ceilings({.seconds = 0, .disk = "/does/not/exist"}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(ReadProbe::create(0).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(ReadProbe::create(1, 1024).error().code, ErrorCode::kInvalidArgument);
}

TEST(ReadProbe, SamplesArePositive) {
  const auto probe = ReadProbe::create(2, uint64_t{16} << 20);
  ASSERT_TRUE(probe) << probe.error().message;
  EXPECT_GT((*probe)->sample(), 0);
}

// A loop that skips memory would report a rate above the ceiling: each must see every byte.
TEST(ProbeLoops, ReadsDependOnEveryWord) {
  alignas(64) static char data[1024];
  for (const ProbeLoops* loops : usable_probe_loops()) {
    for (const ReadLoop* loop = loops->reads; loop->run != nullptr; ++loop) {
      std::fill(std::begin(data), std::end(data), 0);
      const uint64_t blank = loop->run(data, sizeof(data));
      for (size_t at = 0; at < sizeof(data); at += 8) {
        data[at] = 1;
        EXPECT_NE(loop->run(data, sizeof(data)), blank) << loop->variant << " misses byte " << at;
        data[at] = 0;
      }
    }
  }
}

// Every chain takes part in every round: the result is what the arithmetic says.
TEST(ProbeLoops, MultipliesAreDone) {
  for (const ProbeLoops* loops : usable_probe_loops()) {
    for (const MultiplyLoop* loop = loops->multiplies; loop->run != nullptr; ++loop) {
      const float one = loop->run(1), many = loop->run(100);
      EXPECT_NE(one, many) << loop->variant;
      EXPECT_GT(many, 0) << loop->variant;
      EXPECT_GT(loop->ops_per_round, 0);
    }
  }
}

// Two NUMA nodes of one processor each, whatever this machine has.
TEST(ProbeTeam, NodesOwnTheirWorkers) {
  const int cpu = detect_topology().cores.front();
  const CpuTopology topology = {.cpus = {cpu, cpu + 1000},
                                .cores = {cpu, cpu + 1000},
                                .nodes = {{.os_idx = 0, .cpus = {cpu}}, {.os_idx = 1, .cpus = {cpu + 1000}}}};
  ProbeTeam team(topology, 3);  // worker 2 shares the first processor
  EXPECT_EQ(team.on(topology.nodes[0]), (ProbeTeam::Workers{0, 2}));
  EXPECT_EQ(team.on(topology.nodes[1]), (ProbeTeam::Workers{1}));
  const auto memory = ProbeMemory::create(4 << 20, Pages::kSmall);
  ASSERT_TRUE(memory);
  team.touch(*memory);
  for (int64_t i = 0; i < memory->size_bytes(); ++i) ASSERT_EQ(memory->data()[i], 1) << i;  // parts leave no gap
  EXPECT_GT(team.read(kBaselineProbes.reads[0], *memory, {1}), 0);
}

TEST(DiskProbe, ReadsOnPastTheEnd) {
  const TempDir dir;
  const std::string path = dir.path() / "file";
  std::ofstream(path) << std::string((2 << 20) + 5, 'x');
  auto probe = DiskProbe::open(path);
  if (!probe && probe.error().code == ErrorCode::kUnsupported) GTEST_SKIP() << probe.error().message;
  ASSERT_TRUE(probe) << probe.error().message;
  for (int i = 0; i < 3; ++i) {
    const auto rate = probe->sample(2);
    ASSERT_TRUE(rate) << rate.error().message;
    EXPECT_GT(*rate, 0);
  }
}

TEST(DiskProbe, RefusesWhatItCannotMeasure) {
  const TempDir dir;
  EXPECT_EQ(DiskProbe::open(dir.path()).error().code, ErrorCode::kNotFound);
  std::ofstream(dir.path() / "small") << "x";
  EXPECT_EQ(DiskProbe::open(dir.path()).error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace hadal
