// The page: well-formed, self-contained, and safe whatever the texts and numbers are.
#include "nibble/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <regex>
#include <set>

#include "core/json.h"
#include "support/files.h"

namespace nibble {
namespace {

using namespace nibble::test;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

ReportPage example() {
  ReportPage page = {.title = "a <b> & \"c\"", .headlines = {"x < y"}, .json = R"({"text": "</script><b>", "n": 1.5})"};
  page.parts.push_back(ReportTable{.title = "T", .note = "n&n", .rows = {{"name", "v"}, {"a<b", "+1.5"}, {"c", ""}}});
  page.parts.push_back(
      LinePlot{.title = "L", .lines = {{"one", {{0, 1}, {1, kNan}, {2, 3}}}, {"two", {{0, 2}, {2, 2}}}}});
  page.parts.push_back(
      BarChart{.title = "B", .bars = {{"first<", "0", 2}, {"second", "1", INFINITY}, {"third", "", -1}}});
  page.parts.push_back(ScatterPlot{.title = "S", .dots = {{"d1", 10, 1, 5}, {"d2", 20, 2, 20}, {"d3", kNan, 1, 1}}});
  return page;
}

/// Every element that is opened is closed, in order. @returns how often each occurs.
std::multiset<std::string> elements_of(const std::string& html) {
  std::multiset<std::string> found;
  std::vector<std::string> open;
  const std::regex tag(R"(<(/?)([a-z0-9]+)((?:[^<>"]|"[^"<>]*")*?)(/?)>)");
  std::string body = html;
  body = std::regex_replace(body, std::regex(R"(<style>[^<]*</style>|<!DOCTYPE html>)"), "");
  for (std::sregex_iterator it(body.begin(), body.end(), tag), end; it != end; ++it) {
    const std::string name = (*it)[2];
    if ((*it)[1] == "/") {
      if (open.empty() || open.back() != name) {
        ADD_FAILURE() << "</" << name << "> closes " << (open.empty() ? "nothing" : open.back());
        return found;
      }
      open.pop_back();
      continue;
    }
    found.insert(name);
    if ((*it)[4] != "/" && name != "meta" && name != "wbr") open.push_back(name);
  }
  EXPECT_TRUE(open.empty());
  EXPECT_EQ(std::regex_replace(body, tag, "").find('<'), std::string::npos);
  return found;
}

std::string between(const std::string& text, const std::string& from, const std::string& to) {
  const size_t begin = text.find(from) + from.size();
  return text.substr(begin, text.find(to, begin) - begin);
}

TEST(Report, IsWellFormed) {
  const std::multiset<std::string> elements = elements_of(report_html(example()));
  EXPECT_EQ(elements.count("section"), 4u);
  EXPECT_EQ(elements.count("svg"), 3u);
  EXPECT_EQ(elements.count("table"), 1u);
  EXPECT_EQ(elements.count("polyline"), 2u);
  EXPECT_EQ(elements.count("rect"), 2u);    // no bar for infinity
  EXPECT_EQ(elements.count("circle"), 2u);  // no dot for NaN
  EXPECT_EQ(elements.count("b"), 0u);
}

TEST(Report, NeedsNoNetworkAndNoScript) {
  const std::string html = report_html(example());
  for (const char* outside : {"http:", "https:", "src=", "href=", "@import", "url("}) {
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
  }
  EXPECT_EQ(html.find("<script>"), std::string::npos);
  for (const char* needed : {"prefers-color-scheme: dark", "@media print", "name=\"viewport\"", "charset=\"utf-8\""}) {
    EXPECT_NE(html.find(needed), std::string::npos) << needed;
  }
}

TEST(Report, EscapesTexts) {
  const std::string html = report_html(example());
  EXPECT_NE(html.find("<h1>a &lt;b&gt; &amp; &quot;c&quot;</h1>"), std::string::npos);
  EXPECT_NE(html.find("<td>a&lt;b</td>"), std::string::npos);
  EXPECT_NE(html.find("first&lt;: 2"), std::string::npos);
}

TEST(Report, EmbedsTheJson) {
  const std::string text = between(report_html(example()), "id=\"data\">", "</script>");
  const Json json = Json::parse(text, "page");
  EXPECT_EQ(json.find("text")->as_string("text"), "</script><b>");
  EXPECT_EQ(json.find("n")->as_double("n"), 1.5);
}

TEST(Report, NumbersAreSetToTheRight) {
  const std::string html = report_html(example());
  EXPECT_NE(html.find("<td class=\"number\">+1.5</td>"), std::string::npos);
  EXPECT_NE(html.find("<th class=\"number\">v</th>"), std::string::npos);
  EXPECT_NE(html.find("<td>c</td>"), std::string::npos);
}

TEST(Report, LongNamesMayBeBroken) {
  const std::string html = report_html({.parts = {ReportTable{.rows = {{"name"}, {"model.layers.0"}, {"a. b"}}}}});
  EXPECT_NE(html.find("<td>model.<wbr>layers.<wbr>0</td>"), std::string::npos);
  EXPECT_NE(html.find("<td>a. b</td>"), std::string::npos);
}

TEST(Report, PlacesValuesInProportion) {
  const std::string html = report_html({.parts = {BarChart{.bars = {{"a", "", 4}, {"b", "", 1}, {"c", "", 0}}}}});
  std::vector<double> heights;
  const std::regex height(R"(<rect [^>]*height="([0-9.]+)\")");
  for (std::sregex_iterator it(html.begin(), html.end(), height), end; it != end; ++it) {
    heights.push_back(std::stod((*it)[1]));
  }
  ASSERT_EQ(heights.size(), 3u);
  EXPECT_GT(heights[0], 100);
  EXPECT_NEAR(heights[1], heights[0] / 4, 0.1);
  EXPECT_EQ(heights[2], 0);
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(Report, LinesHaveTheLookTheyAskFor) {
  LinePlot plot = {.lines = {{"average", {{0, 101}, {1, 102}}},
                             {"held out", {{1, 103}, {2, kNan}}, LinePlot::Look::marked},
                             {"steps", {{0, 100}, {2, 104}}, LinePlot::Look::background}}};
  const auto drawn = [&] {
    const std::string html = report_html({.parts = {plot}});
    return html.substr(html.find("<main>"));
  };
  const std::string from_zero = drawn();
  EXPECT_EQ(count_of(from_zero, "<circle"), 1u) << "one point is finite";
  EXPECT_LT(from_zero.find("<polyline"), from_zero.find("class=\"background\"><title>"));
  EXPECT_LT(from_zero.find("class=\"background\"><title>"), from_zero.find("class=\"line c0\"><title>"));
  EXPECT_NE(from_zero.find("class=\"end\">0</text>"), std::string::npos);
  plot.floor = LinePlot::Floor::values;
  const std::string close = drawn();
  EXPECT_EQ(close.find("class=\"end\">0</text>"), std::string::npos);
  EXPECT_NE(close.find("class=\"end\">100</text>"), std::string::npos);
}

TEST(Report, NamesOfFewBarsAreAllShown) {
  BarChart chart = {.bars = {{"a", "int8-dynamic", 1}, {"b", "int8", 2}}};
  const auto drawn = [&] { return report_html({.parts = {chart}}); };
  EXPECT_EQ(count_of(drawn(), "rotate(-25)"), 0u) << "there is room";
  for (int i = 0; i < 8; ++i) chart.bars.push_back({"c", "nf4", 3});
  EXPECT_EQ(count_of(drawn(), "rotate(-25)"), 10u);
  for (int i = 0; i < 30; ++i) chart.bars.push_back({"d", "a-longer-name", 3});
  EXPECT_EQ(count_of(drawn(), "rotate(-25)"), 0u);
  EXPECT_LT(count_of(drawn(), ">a-longer-name</text>"), 10u) << "only those that have room";
}

// Dots at the same place: their names lie one below the other, or on different sides.
TEST(Report, NamesOfDotsDoNotCoverEachOther) {
  ScatterPlot plot;
  for (int i = 0; i < 6; ++i) plot.dots.push_back({.name = "name" + std::to_string(i), .x = 5, .y = 5, .size = 1});
  const std::string html = report_html({.parts = {plot}});
  const std::regex text(R"re(<text x="([0-9.]+)" y="([0-9.]+)" class="(start|end|middle)">name)re");
  std::set<std::string> places;
  for (std::sregex_iterator it(html.begin(), html.end(), text), end; it != end; ++it) places.insert((*it)[0]);
  EXPECT_EQ(places.size(), 6u);
}

TEST(Report, DotsThatAreNeverNegativeBeginAtZero) {
  const ScatterPlot plot = {.dots = {{"exact", 10, 0, 5}, {"lossy", 5, 0.09, 20}}};
  const std::string html = report_html({.parts = {plot}});
  EXPECT_EQ(html.find(">-0"), std::string::npos);
}

// One value, none, all equal, huge, tiny, all infinite: always a page, with finite numbers in it.
TEST(Report, DrawsWhateverTheNumbersAre) {
  for (const std::vector<double>& values : {std::vector<double>{},
                                            {0},
                                            {5, 5, 5},
                                            {1e300, -1e300},
                                            {1e-300, 2e-300},
                                            {kNan, kNan},
                                            {INFINITY, -INFINITY},
                                            {-3, -2},
                                            {1e16, 1e16 + 2},
                                            {0, 1e-9}}) {
    LinePlot plot = {.lines = {{"l", {}}}};
    BarChart chart;
    ScatterPlot dots;
    for (size_t i = 0; i < values.size(); ++i) {
      plot.lines[0].points.emplace_back(static_cast<double>(i), values[i]);
      chart.bars.push_back({.name = "b", .tick = "b", .value = values[i]});
      dots.dots.push_back({.name = "d", .x = values[i], .y = values[i], .size = 1});
    }
    const std::string html = report_html({.parts = {plot, chart, dots}});
    EXPECT_EQ(elements_of(html).count("svg"), 3u);
    const std::string drawings = html.substr(html.find("<main>"));
    EXPECT_EQ(drawings.find("nan"), std::string::npos) << drawings.substr(drawings.find("nan"), 200) << values.size();
    EXPECT_FALSE(std::regex_search(drawings, std::regex(R"(="-?inf)")));
    EXPECT_LT(drawings.size(), 20000u);
  }
}

TEST(Report, IsWrittenWhole) {
  const TempFolder folder;
  const std::string path = (folder / "r.html").string();
  folder.write("r.html", "old");
  write_report(path, example());
  EXPECT_EQ(read_file(path), report_html(example()));
  EXPECT_ANY_THROW(write_report((folder / "none" / "r.html").string(), example()));
}

}  // namespace
}  // namespace nibble
