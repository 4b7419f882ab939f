#include "formats/inc_measurement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "base/file.h"
#include "support/test_files.h"

namespace hadal {
namespace {

constexpr const char* kSetBase = "inc-ds-r1-0528-g2-tp16/inc_measure_output";

std::string real_file(int rank, const char* extension) { return inc_file_path(kSetBase, rank, 16, extension).string(); }

std::string bytes_of(const std::filesystem::path& path) { return *read_file(path, 64 << 20); }

const IncNode* find_node(const IncMeasurement& measurement, std::string_view name) {
  const auto found = std::find_if(measurement.nodes.begin(), measurement.nodes.end(),
                                  [name](const IncNode& node) { return node.name == name; });
  return found == measurement.nodes.end() ? nullptr : &*found;
}

// The published files of DeepSeek-R1-0528: both forms hold the same, and writing gives back their bytes.
TEST(IncMeasurement, PublishedFilesReadEqualAndAreRewrittenByteForByte) {
  for (const int rank : {0, 5}) {
    HADAL_SPEC_DATA_OR_SKIP(json_path, real_file(rank, ".json"));
    HADAL_SPEC_DATA_OR_SKIP(npz_path, real_file(rank, ".npz"));
    HADAL_SPEC_DATA_OR_SKIP(mod_list_path, real_file(rank, "_mod_list.json"));
    const auto json = read_inc_measurement(json_path);
    const auto npz = read_inc_measurement(npz_path);
    ASSERT_TRUE(json.has_value()) << json.error().message;
    ASSERT_TRUE(npz.has_value()) << npz.error().message;
    EXPECT_EQ(*json, *npz);
    EXPECT_EQ(json->local_rank, rank);
    EXPECT_FALSE(json->global_rank.has_value());
    EXPECT_EQ(json->nodes.size(), 2707u);
    EXPECT_EQ(inc_measurement_json(*npz), bytes_of(json_path));
    EXPECT_EQ(inc_measurement_npz(*json), bytes_of(npz_path));
    const auto modules = parse_inc_mod_list(bytes_of(mod_list_path));
    ASSERT_TRUE(modules.has_value()) << modules.error().message;
    EXPECT_EQ(modules->size(), 2887u);
    EXPECT_EQ(inc_mod_list_json(*modules), bytes_of(mod_list_path));
  }
}

// Rank 0, layer 3, as spec/gaudi-pipeline.md 3.4 prints it.
TEST(IncMeasurement, PublishedExample) {
  HADAL_SPEC_DATA_OR_SKIP(path, real_file(0, ".npz"));
  const auto measurement = read_inc_measurement(path);
  ASSERT_TRUE(measurement.has_value()) << measurement.error().message;
  const std::string layer = "model.layers.3.";
  const IncNode* qk = find_node(*measurement, layer + "self_attn.mla_attn.impl.matmul_qk");
  const IncNode* moe = find_node(*measurement, layer + "mlp.experts.moe_op");
  const IncNode* shared = find_node(*measurement, layer + "mlp.shared_experts.down_proj");
  ASSERT_TRUE(qk && moe && shared);
  EXPECT_EQ(qk->inputs, (std::vector<float>{2.0f, 8.0625f}));
  EXPECT_FALSE(qk->weight.has_value());
  EXPECT_EQ(moe->inputs, std::vector<float>{9.6875f});
  ASSERT_EQ(moe->outputs.size(), 17u);
  EXPECT_EQ(moe->outputs[0], 0.03564453125f);
  EXPECT_EQ(moe->outputs[16], 0.54296875f);
  EXPECT_EQ(shared->weight, 0.2236328125f);
}

IncMeasurement small_measurement() {
  return {.global_rank = std::nullopt,
          .local_rank = 1,
          .nodes = {{"a.linear", {0.1f}, {}, 0.25f},
                    {"a.moe", {3}, {1, 2, 0}, std::nullopt},
                    {"a.matmul", {1, 1e-6f}, {}, std::nullopt}}};
}

TEST(IncMeasurement, RoundTripsBothForms) {
  for (const int64_t rank : {-1, 0, 255, 256, 300}) {
    IncMeasurement measurement = small_measurement();
    measurement.local_rank = rank;
    const auto json = parse_inc_measurement(inc_measurement_json(measurement));
    const auto npz = parse_inc_measurement(inc_measurement_npz(measurement));
    ASSERT_TRUE(json && npz);
    EXPECT_EQ(*json, measurement);
    EXPECT_EQ(*npz, measurement);
  }
}

// NumPy itself opens the written .npz and sees what Python sees in the written .json.
TEST(IncMeasurement, NumPyReadsTheSame) {
  if (std::system("python3 -c 'import numpy' 2>/dev/null") != 0) GTEST_SKIP() << "python3 without numpy";
  const TempDir dir;
  IncMeasurement measurement = small_measurement();
  for (int i = 0; i < 2500; ++i) measurement.nodes.push_back({"n" + std::to_string(i), {1.5f}, {2, 3}, 4.0f});
  const auto base = dir.path() / "m";
  ASSERT_TRUE(write_inc_measurement(base, 1, 2, measurement, {"a.linear", "a.moe"}).has_value());
  const std::string script =
      "import json, pickle, zipfile, warnings, numpy as np\n"
      "warnings.simplefilter('ignore')\n"
      "base = '" +
      base.string() +
      "_hooks_maxabs_1_2'\n"
      "def lists(x):\n"
      "    if isinstance(x, np.ndarray): assert x.dtype == np.float32 and x.shape == (1, 1); return x.tolist()\n"
      "    if isinstance(x, dict): return {k: lists(v) for k, v in x.items()}\n"
      "    return [lists(v) for v in x] if isinstance(x, list) else x\n"
      "npz = np.load(base + '.npz', allow_pickle=True)['arr_0'].item()\n"
      "text = open(base + '.json').read()\n"
      "assert lists(npz) == json.loads(text)\n"
      "assert json.dumps(json.loads(text), indent=4) == text\n"
      "assert json.load(open(base + '_mod_list.json')) == ['a.linear', 'a.moe']\n";
  const auto path = dir.path() / "check.py";
  ASSERT_TRUE(write_file_atomically(path, script).has_value());
  EXPECT_EQ(std::system(("python3 " + path.string()).c_str()), 0);
}

// What is damaged, and what the refusal must name.
TEST(IncMeasurement, RefusalsNameNodeAndField) {
  const auto document = [](const std::string& nodes) {
    return R"({"GlobalRank":null,"LocalRank":0,"Mode":"DynamicRange","Nodes":)" + nodes + "}";
  };
  const auto node = [&](const std::string& fields) { return document(R"({"a.b":)" + fields + "}"); };
  ASSERT_TRUE(parse_inc_measurement(node(R"({"inputs":[[[1]]]})")).has_value());
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "not valid JSON"},
      {"[]", "array at the top"},
      {"{}", "no key Mode"},
      {R"({"Mode":"DynamicRange"})", "no key Nodes"},
      {R"({"Mode":"Scale","Nodes":{}})", "computed scales, not measurements"},
      {R"({"Mode":"Shape","Nodes":{}})", "Mode is \"Shape\""},
      {R"({"Mode":"DynamicRange","Nodes":{},"Extra":1})", "key \"Extra\""},
      {R"({"Mode":"DynamicRange","Nodes":{},"LocalRank":"0"})", "LocalRank is \"0\""},
      {R"({"Mode":"DynamicRange","Nodes":{},"LocalRank":-2})", "LocalRank is -2"},
      {document("[]"), "Nodes is []"},
      {document(R"({"":{"inputs":[]}})"), "a node named \"\""},
      {document(R"({"a.b":{"inputs":[]},"a.b":{"inputs":[]}})"), "key \"a.b\" appears twice"},
      {node("[]"), "\"a.b\": []"},
      {node("{}"), "\"a.b\": no inputs"},
      {node(R"({"inputs":1})"), "\"a.b\", inputs: 1, expected a list"},
      {node(R"({"inputs":[1]})"), "\"a.b\", inputs[0]: 1, expected one number as [[x]]"},
      {node(R"({"inputs":[[[1,2]]]})"), "inputs[0]: [[1,2]]"},
      {node(R"({"inputs":[[[1],[2]]]})"), "inputs[0]: [[1],[2]]"},
      {node(R"({"inputs":[[[null]]]})"), "inputs[0]: [[null]]"},
      {node(R"({"inputs":[[[-1]]]})"), "inputs[0]: largest magnitude is -1"},
      {node(R"({"inputs":[[[1e39]]]})"), "inputs[0]: largest magnitude is 1e+39"},
      {node(R"({"inputs":[[[NaN]]]})"), "not valid JSON"},
      {node(R"({"inputs":[],"outputs":[[[-1]]]})"), "\"a.b\", outputs[0]"},
      {node(R"({"inputs":[],"params":[]})"), "params: []"},
      {node(R"({"inputs":[],"params":{"bias":[[1]]}})"), "parameter \"bias\""},
      {node(R"({"inputs":[],"params":{"weight":1}})"), "params.weight: 1"},
      {node(R"({"inputs":[],"scales":[]})"), "field \"scales\""},
      {"PK", "npz: 2 bytes"},
  };
  for (const auto& [text, expected] : cases) {
    const auto measurement = parse_inc_measurement(text);
    ASSERT_FALSE(measurement.has_value()) << expected;
    EXPECT_NE(measurement.error().message.find(expected), std::string::npos)
        << measurement.error().message << "\nnot " << expected;
  }
}

TEST(IncMeasurement, NaNInsideAnNpzIsRefusedByName) {
  IncMeasurement measurement = small_measurement();
  measurement.nodes[1].outputs[2] = std::numeric_limits<float>::quiet_NaN();
  const auto read = parse_inc_measurement(inc_measurement_npz(measurement));
  ASSERT_FALSE(read.has_value());
  EXPECT_NE(read.error().message.find("\"a.moe\", outputs[2]: largest magnitude is nan"), std::string::npos);
}

TEST(IncFiles, NamesTellRankAndWorldSize) {
  const auto name = parse_inc_file_name("d/inc_measure_output_hooks_maxabs_5_16.npz");
  ASSERT_TRUE(name.has_value());
  EXPECT_EQ(name->base, "d/inc_measure_output");
  EXPECT_EQ(name->rank, 5);
  EXPECT_EQ(name->world_size, 16);
  EXPECT_EQ(parse_inc_file_name("x_hooks_maxabs_0_1_mod_list.json")->extension, "_mod_list.json");
  for (const char* other : {"x_hooks_maxabs_16_16.npz", "x_hooks_maxabs_0_16.txt", "x_hooks_maxabs_0.npz", "x.npz",
                            "x_hooks_maxabs_MAXABS_HW_0_16.npz", "x_hooks_maxabs_-1_16.npz", "x_hooks_maxabs_00_16.npz",
                            "x_hooks_maxabs_0_99999999999999999999.npz"}) {
    EXPECT_FALSE(parse_inc_file_name(other).has_value()) << other;
  }
}

TEST(IncFiles, ASetNeedsEveryRankWithItsOwnNumber) {
  const TempDir dir;
  const auto base = dir.path() / "m";
  IncMeasurement measurement = small_measurement();
  for (const int rank : {0, 1, 3}) {
    measurement.local_rank = rank;
    ASSERT_TRUE(write_inc_measurement(base, rank, 4, measurement, {}).has_value());
  }
  EXPECT_EQ(*list_inc_world_sizes(base), std::vector<int64_t>{4});
  const auto incomplete = read_inc_measurement_set(base, 4);
  ASSERT_FALSE(incomplete.has_value());
  EXPECT_NE(incomplete.error().message.find("1 of 4 measurement files are missing"), std::string::npos);
  EXPECT_NE(incomplete.error().message.find("m_hooks_maxabs_2_4.npz"), std::string::npos);
  EXPECT_NE(read_inc_measurement_set(base, 8).error().message.find("8 of 8"), std::string::npos);

  ASSERT_TRUE(write_inc_measurement(base, 2, 4, measurement, {}).has_value());  // says 3
  const auto wrong = read_inc_measurement_set(base, 4);
  ASSERT_FALSE(wrong.has_value());
  EXPECT_NE(wrong.error().message.find("LocalRank is 3, the file's name says 2"), std::string::npos);

  measurement.local_rank = 2;
  ASSERT_TRUE(write_inc_measurement(base, 2, 4, measurement, {}).has_value());
  EXPECT_EQ(read_inc_measurement_set(base, 4)->size(), 4u);
  EXPECT_EQ(list_inc_world_sizes(dir.path() / "absent" / "m").error().code, ErrorCode::kNotFound);
}

TEST(IncFiles, AReadOnlyFolderIsAnErrorThatNamesTheFile) {
  const auto written = write_inc_measurement("/proc/m", 0, 1, small_measurement(), {});
  ASSERT_FALSE(written.has_value());
  EXPECT_NE(written.error().message.find("/proc/m_hooks_maxabs_0_1.json"), std::string::npos)
      << written.error().message;
}

}  // namespace
}  // namespace hadal
