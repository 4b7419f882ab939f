#include "quant/input_scales.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using ::testing::HasSubstr;

TEST(InputScales, TakesEverySpelling) {
  const auto scales = parse_input_scales(R"({"a.b": 1, "c.input_scale_inv": [0.5], "d.input_scale": 2e-3})");
  ASSERT_TRUE(scales) << scales.error().message;
  EXPECT_EQ(*scales, (InputScales{{"a.b", 1.0f}, {"c", 0.5f}, {"d", 2e-3f}}));
}

TEST(InputScales, DamagedInputIsNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"", ""},
      {"[]", "array, expected an object"},
      {R"({"a": 0})", "\"a\" is 0"},
      {R"({"a": -1})", "above 0"},
      {R"({"a": null})", "\"a\" is null"},
      {R"({"a": [1, 2]})", "\"a\" is [1,2]"},
      {R"({"a": 1e300})", "finite"},
      {R"({"a": 1e-300})", "above 0"},
      {R"({"a": 1, "a": 2})", ""},
      {R"({"a": 1, "a.input_scale_inv": 2})", "\"a\" is given twice"},
  };
  for (const auto& [text, fragment] : cases) {
    const auto scales = parse_input_scales(text);
    ASSERT_FALSE(scales) << text;
    EXPECT_THAT(scales.error().message, HasSubstr(fragment));
  }
}

TEST(InputScales, ThePeersFilesAreRefusedWithTheWayOut) {
  const TempDir dir;
  const auto path = dir.path() / "scales.pkl.gz";
  for (const auto& [start, fragment] : {std::pair("\x1f\x8b\x08", "gzip.open('scales.pkl.gz'"),
                                        std::pair("\x80\x04\x95", "pickle.load(open('scales.pkl.gz'")}) {
    ASSERT_TRUE(write_file_atomically(path, start));
    const auto scales = load_input_scales(path);
    ASSERT_FALSE(scales);
    EXPECT_EQ(scales.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(scales.error().message, HasSubstr(fragment));
  }
}

}  // namespace
}  // namespace hadal
