#include "bench/machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "support/test_files.h"

namespace hadal {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

Json minimal() { return {{"memory_bytes", 96e9}, {"read_bytes_per_s", 2e12}, {"bf16_flops", 4e14}}; }

std::string error_of(const Json& json) {
  const auto machine = machine_from_json(json);
  return machine ? "accepted" : machine.error().message;
}

std::string error_with(const char* field, const Json& value) {
  Json json = minimal();
  json[field] = value;
  return error_of(json);
}

TEST(Machine, TableSurvivesJson) {
  std::set<std::string> names;
  for (const Machine& machine : machine_table()) {
    EXPECT_TRUE(names.insert(machine.name).second) << machine.name;
    EXPECT_FALSE(machine.sources.empty());
    const auto again = machine_from_json(machine_to_json(machine));
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(machine_to_json(*again), machine_to_json(machine));
    EXPECT_TRUE(machine_by_name(machine.name));
  }
  EXPECT_EQ(names.size(), 5U);
}

TEST(Machine, UnknownNameGetsTheNearest) {
  EXPECT_THAT(machine_by_name("8x-gaudi").error().message, HasSubstr("did you mean 8x-gaudi2?"));
  EXPECT_THAT(machine_by_name("2x_EPYC_9005").error().message, HasSubstr("did you mean 2x-epyc-9005?"));
  EXPECT_THAT(machine_by_name("abacus").error().message,
              AllOf(HasSubstr("8x-h200"), ::testing::Not(HasSubstr("did you mean"))));
}

TEST(Machine, BadFilesNameTheField) {
  EXPECT_EQ(error_of(minimal()), "accepted");
  EXPECT_THAT(error_with("memory_bytes", "96 GB"), HasSubstr("memory_bytes"));
  EXPECT_THAT(error_with("memory_bytes", nullptr), HasSubstr("memory_bytes"));
  EXPECT_THAT(error_with("read_bytes_per_s", -1), HasSubstr("read_bytes_per_s"));
  EXPECT_THAT(error_with("num_devices", 0), HasSubstr("num_devices"));
  EXPECT_THAT(error_with("num_devices", 2.5), HasSubstr("whole number"));
  EXPECT_THAT(error_with("num_devices", 1e300), HasSubstr("num_devices"));
  EXPECT_THAT(error_with("dense_efficiency", 1.5), HasSubstr("dense_efficiency"));
  EXPECT_THAT(error_with("expert_parallel", 1), HasSubstr("expert_parallel"));
  EXPECT_THAT(error_with("title", 1), HasSubstr("title"));
  EXPECT_THAT(error_with("bf16_flop", 1), HasSubstr("bf16_flop (did you mean bf16_flops?)"));
  Json json = minimal();
  json.erase("bf16_flops");
  EXPECT_THAT(error_of(json), HasSubstr("bf16_flops is missing"));
  EXPECT_EQ(error_of(Json::array()), "not a JSON object");
}

TEST(Machine, FilesAreNamedInErrors) {
  const TempDir dir;
  const std::string path = dir.path() / "box.json";
  std::ofstream(path) << "{\"memory_bytes\": 1e9}";
  EXPECT_THAT(load_machine(path).error().message, AllOf(StartsWith(path), HasSubstr("read_bytes_per_s is missing")));
  std::ofstream(path) << "{";
  EXPECT_THAT(load_machine(path).error().message, StartsWith(path));
  std::ofstream(path) << minimal().dump();
  const auto machine = load_machine(path);
  ASSERT_TRUE(machine) << machine.error().message;
  EXPECT_EQ(machine->name, "box");
  EXPECT_EQ(machine->num_devices, 1);
}

TEST(Machine, FromCeilings) {
  Ceilings ceilings;
  ceilings.num_threads = 2;
  ceilings.read_bytes_per_s = 52e9;
  ceilings.read_median_bytes_per_s = 34e9;
  ceilings.fp32_flops = 228e9;
  ceilings.first_touch_bytes_per_s = 3e9;
  Machine machine = machine_from_ceilings(ceilings, 20e9);
  EXPECT_EQ(machine.read_bytes_per_s, 34e9);
  ceilings.read_median_bytes_per_s = 60e9;  // more than two threads take through the kernels
  EXPECT_EQ(machine_from_ceilings(ceilings, 20e9).read_bytes_per_s, 54e9);
  EXPECT_EQ(machine.bf16_flops, 228e9);
  EXPECT_EQ(machine.load_bytes_per_s, 3e9);
  ceilings.bf16_flops = 456e9;
  ceilings.disk_read_bytes_per_s = 1.3e9;
  machine = machine_from_ceilings(ceilings, 20e9);
  EXPECT_EQ(machine.bf16_flops, 456e9);
  EXPECT_EQ(machine.load_bytes_per_s, 1.3e9);
}

}  // namespace
}  // namespace hadal
