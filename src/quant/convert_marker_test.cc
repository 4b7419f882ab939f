#include "quant/convert_marker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/hf_config.h"

namespace hadal {
namespace {

using ::testing::HasSubstr;

const ConvertMarker kMarker = {ConvertMethod::kSeed, FpRange::kGaudi2, true};

TEST(ConvertMarker, KeepsEveryOtherByteOfTheConfig) {
  const std::string end =
      "\n  \"hadal_convert\": {\"version\":1,\"method\":\"seed\",\"target\":\"gaudi2\",\"bug_compatible\":true}\n}";
  EXPECT_EQ(add_marker_to_config("{\n  \"a\": {\"b\": 1e-06}\n}\n", kMarker),
            "{\n  \"a\": {\"b\": 1e-06}," + end + "\n");
  EXPECT_EQ(add_marker_to_config("{}", kMarker), "{" + end);
  EXPECT_EQ(add_marker_to_config("{ } \n\n", kMarker), "{" + end + " \n\n");
}

TEST(ConvertMarker, IsReadBack) {
  const auto config = parse_json(add_marker_to_config("{\"a\": [1, 2]}", kMarker));
  ASSERT_TRUE(config);
  const auto marker = marker_of_config(*config);
  ASSERT_TRUE(marker && *marker);
  EXPECT_EQ((*marker)->method, ConvertMethod::kSeed);
  EXPECT_EQ((*marker)->target, FpRange::kGaudi2);
  EXPECT_TRUE((*marker)->bug_compatible);
  EXPECT_FALSE(marker_of_config(Json::object())->has_value());
}

// The key belongs to none of the settings where an unknown key stops the model from being served.
TEST(ConvertMarker, OurOwnConfigReaderTakesIt) {
  const auto config = parse_hf_config(add_marker_to_config("{\"vocab_size\": 8}", kMarker));
  EXPECT_TRUE(config) << config.error().message;
}

TEST(ConvertMarker, UnknownOnesAreRefused) {
  for (const char* text : {"{\"hadal_convert\": 1}", "{\"hadal_convert\": {}}", "{\"hadal_convert\": {\"version\": 2}}",
                           "{\"hadal_convert\": {\"version\": 1, \"method\": \"halve\", \"target\": \"gaudi2\"}}",
                           "{\"hadal_convert\": {\"version\": 1, \"method\": \"exact\", \"target\": 2}}"}) {
    const auto marker = marker_of_config(*parse_json(text));
    ASSERT_FALSE(marker) << text;
    EXPECT_THAT(marker.error().message, HasSubstr("hadal_convert"));
  }
}

}  // namespace
}  // namespace hadal
