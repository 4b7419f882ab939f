// Comparing and plotting, on JSON as a benchmark writes it and on JSON that nobody wrote.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "bench/compare.h"
#include "bench/plot.h"
#include "bench/report_reader.h"
#include "bench/svg.h"

namespace hadal {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

Json spread(double median, double width) {
  return {{"median", median}, {"min", median - width}, {"max", median + width}};
}

Json row(const std::string& name, const std::string& kind, double tokens_per_s, double width = 1) {
  return {{"name", name},
          {"kind", kind},
          {"tokens_per_s", spread(tokens_per_s, width)},
          {"ceiling_share", 0.5},
          {"target_share", 0.6},
          {"shares", {{"attention", 0.25}, {"experts", 0.5}, {"idle", 0.25}}}};
}

Json report(const std::vector<Json>& rows) {
  return {{"machine", {{"cpu_model", "A CPU"}}},
          {"model", {{"path", "models/x"}}},
          {"flags", {{"threads", 2}, {"isa", "avx2"}}},
          {"rows", rows}};
}

std::string line_with(const std::string& text, const std::string& what) {
  const size_t at = text.find(what);
  if (at == std::string::npos) return "";
  const size_t begin = text.rfind('\n', at) + 1;
  return text.substr(begin, text.find('\n', at) - begin);
}

TEST(Compare, ShowsRatiosAndWhatDiffers) {
  Json b = report({row("decode 1", "decode", 30), row("prefill 128", "prefill", 201, 5), row("new", "decode", 1)});
  b["flags"]["isa"] = "avx512-bf16";
  b["rows"][0]["shares"]["attention"] = 0.05;
  const auto text = compare_reports(
      report({row("decode 1", "decode", 20), row("prefill 128", "prefill", 200, 5), row("old", "decode", 1)}), b);
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_THAT(line_with(*text, "decode 1"), AllOf(HasSubstr("1.500 "), HasSubstr("attention -20.0")));
  EXPECT_THAT(line_with(*text, "prefill 128"), HasSubstr("1.005~")) << "ranges overlap";
  EXPECT_THAT(line_with(*text, "flags.isa"), AllOf(HasSubstr("avx2"), HasSubstr("avx512-bf16")));
  EXPECT_THAT(*text, AllOf(HasSubstr("only in A: old"), HasSubstr("only in B: new"), Not(HasSubstr("flags.threads"))));
}

TEST(Compare, RowsWithoutTokensAreComparedByTheirTime) {
  const auto kernel = [](double seconds, double gflops) {
    return Json{{"name", "q_a"}, {"kind", "q_a"}, {"seconds", spread(seconds, 0)}, {"gflops", gflops}};
  };
  const auto text = compare_reports(report({kernel(0.2, 100)}), report({kernel(0.1, 200)}));
  ASSERT_TRUE(text);
  EXPECT_THAT(line_with(*text, "q_a"), AllOf(HasSubstr("100.00"), HasSubstr("200.00"), HasSubstr("2.000")));
}

TEST(Compare, RefusesWhatIsNoReport) {
  const Json good = report({row("decode 1", "decode", 20)});
  std::vector<Json> broken = {Json::array(), Json(3), Json{{"rows", 3}}, Json{{"rows", {{{"name", 3}}}}}};
  for (const Json& value :
       {Json("fast"), Json(-1), Json({{"median", 1}}), Json({{"median", "x"}, {"min", 1}, {"max", 1}})}) {
    broken.push_back(good);
    broken.back()["rows"][0]["tokens_per_s"] = value;
  }
  for (const Json& json : broken) {
    const auto text = compare_reports(good, json);
    ASSERT_FALSE(text) << json.dump();
    EXPECT_EQ(text.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(text.error().message, HasSubstr("B: "));
  }
}

// Whether tags are closed in order, attributes are quoted and no bare '<' or '&' is in the text.
bool is_well_formed(const std::string& xml) {
  std::vector<std::string> open;
  for (size_t at = 0; at < xml.size(); ++at) {
    if (xml[at] == '&') {
      const size_t end = xml.find(';', at);
      if (end == std::string::npos || end - at > 6) return false;
    }
    if (xml[at] == '>') return false;
    if (xml[at] != '<') continue;
    size_t end = at + 1;
    for (bool quoted = false; end < xml.size() && (quoted || xml[end] != '>'); ++end) {
      if (xml[end] == '"') quoted = !quoted;
      if (xml[end] == '<') return false;
    }
    if (end == xml.size()) return false;
    const std::string tag = xml.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(0, tag.find_first_of(" /", 1));
    if (tag.front() == '/') {
      if (open.empty() || "/" + open.back() != tag) return false;
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(name);
    }
    at = end;
  }
  return open.empty();
}

size_t count(const std::string& text, const std::string& what) {
  size_t found = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

TEST(WellFormed, TheCheckNoticesMistakes) {
  EXPECT_TRUE(is_well_formed("<a b=\"1 > 0\"><c/>x &amp; y</a>"));
  for (const char* bad : {"<a>", "<a></b>", "</a>", "<a>x & y</a>", "<a>1 > 0</a>", "<a", "<a><b></a></b>"}) {
    EXPECT_FALSE(is_well_formed(bad)) << bad;
  }
}

TEST(Plot, DrawsEveryRowOnItsGroupsScale) {
  const auto svg = plot_report(report({row("prefill 128", "prefill", 300), row("prefill 512", "prefill", 280),
                                       row("decode 1", "decode", 20), row("decode 8", "decode", 90)}));
  ASSERT_TRUE(svg) << svg.error().message;
  EXPECT_TRUE(is_well_formed(*svg));
  EXPECT_EQ(svg->rfind("<svg ", 0), 0u);
  for (const char* text : {"prefill 128", "decode 8", ">tokens per second<", "models/x", "A CPU, 2 threads, avx2",
                           ">attention<", ">idle<", "range"}) {
    EXPECT_THAT(*svg, HasSubstr(text));
  }
  EXPECT_EQ(count(*svg, ">tokens per second<"), 2u) << "an axis for prefill and one for decode";
  EXPECT_EQ(count(*svg, ": experts 50.0 %"), 4u);
  // A legend entry and a ceiling mark in each row.
  EXPECT_EQ(count(*svg, "#b40426"), 5u);
  EXPECT_THAT(*svg, Not(HasSubstr("nan")));
}

TEST(Plot, NamesCannotBreakTheDocument) {
  Json json = report({row("<script>\"&'\x01", "a<b&c", 3)});
  json["model"]["path"] = "</svg><!--";
  const auto svg = plot_report(json);
  ASSERT_TRUE(svg);
  EXPECT_TRUE(is_well_formed(*svg)) << *svg;
  EXPECT_THAT(*svg, Not(HasSubstr("<script")));
}

TEST(Plot, CopesWithZeros) {
  Json json = report({row("decode 1", "decode", 0, 0)});
  json["rows"][0]["ceiling_share"] = 0;
  const auto svg = plot_report(json);
  ASSERT_TRUE(svg);
  EXPECT_TRUE(is_well_formed(*svg));
  EXPECT_THAT(*svg, AllOf(Not(HasSubstr("nan")), Not(HasSubstr("inf"))));
}

TEST(Plot, RefusesReportsWithoutSpeed) {
  EXPECT_FALSE(plot_report(report({})));
  EXPECT_FALSE(plot_report(Json::object()));
}

TEST(Plot, TicksAreRound) {
  EXPECT_DOUBLE_EQ(tick_step(100, 6), 20);
  EXPECT_DOUBLE_EQ(tick_step(7, 6), 2);
  EXPECT_DOUBLE_EQ(tick_step(0.5, 6), 0.1);
  EXPECT_DOUBLE_EQ(tick_step(31'000, 6), 10'000);
}

}  // namespace
}  // namespace hadal
