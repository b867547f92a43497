#include "core/json.h"

#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/json_text.h"
#include "support/files.h"

namespace nibble {
namespace {

Json parsed(const std::string& text) { return Json::parse(text, "config.json"); }

TEST(Json, ReadsEveryTypeAndKeepsTheOrderOfKeys) {
  const Json json = parsed(R"({"z": null, "b": true, "i": -3, "d": 2.5, "s": "\u00e9\n", "a": [1, {}], "e": 1e3})");
  EXPECT_TRUE(json.find("z")->is_null());
  EXPECT_TRUE(json.find("b")->as_bool("b"));
  EXPECT_EQ(json.find("i")->as_int("i"), -3);
  EXPECT_EQ(json.find("d")->as_double("d"), 2.5);
  EXPECT_EQ(json.find("s")->as_string("s"), "\xc3\xa9\n");
  EXPECT_EQ(json.find("a")->as_array("a").size(), 2u);
  EXPECT_EQ(json.find("e")->as_int("e"), 1000);
  EXPECT_EQ(json.as_object("root").front().first, "z");
  EXPECT_EQ(json.find("missing"), nullptr);
  EXPECT_EQ(json.find_value("z"), nullptr);
  EXPECT_EQ(Json(3).find("x"), nullptr);
}

TEST(Json, ErrorsNameThePlaceAndBothTypes) {
  const Json json = parsed(R"({"s": "x", "d": 2.5})");
  test::expect_error(ErrorCode::format, "config.json: s: found a string, expected an integer",
                     [&] { json.find("s")->as_int("config.json: s"); });
  test::expect_error(ErrorCode::format, "found a number, expected an integer", [&] { json.find("d")->as_int("d"); });
  test::expect_error(ErrorCode::format, "expected an array", [&] { json.as_array("x"); });
  test::expect_error(ErrorCode::format, "expected an object", [&] { Json(1).as_object("x"); });
  test::expect_error(ErrorCode::format, "expected a boolean", [&] { Json(1).as_bool("x"); });
  test::expect_error(ErrorCode::format, "expected a string", [&] { Json(1).as_string("x"); });
  test::expect_error(ErrorCode::format, "expected a number", [&] { Json("1").as_double("x"); });
}

TEST(Json, IntegersBeyond64BitsAreNumbers) {
  const Json json = parsed(R"({"\"m": 1000000000000000019884624838656, "t": "\\100000000000000000000", "e": [],
    "n":-18446744073709551616, "u": 18446744073709551615, "i": 9223372036854775807, "d": 100000000000000000000.5})");
  EXPECT_EQ(json.find("\"m")->as_double("m"), 1e30);
  EXPECT_EQ(json.find("t")->as_string("t"), "\\100000000000000000000");
  EXPECT_EQ(json.find("n")->as_double("n"), -0x1p64);
  EXPECT_EQ(json.find("u")->as_double("u"), 0x1p64);
  EXPECT_EQ(json.find("i")->as_int("i"), INT64_MAX);
  EXPECT_EQ(json.find("d")->as_double("d"), 1e20);
  EXPECT_EQ(parsed("100000000000000000000").as_double("root"), 1e20);
  const std::string longest(400, '9');
  for (const std::string& bad : {longest, "0" + longest.substr(0, 20), "[" + longest.substr(0, 20) + "x]"}) {
    test::expect_error(ErrorCode::format, "config.json: not valid JSON", [&] { parsed(bad); });
  }
}

TEST(Json, RejectsMalformedText) {
  for (const char* bad : {"", "{", "[1,]", "{\"a\" 1}", "nul", "{} {}", "\"\xff\"", "[1e999]", "01"}) {
    test::expect_error(ErrorCode::format, "config.json", [&] { parsed(bad); });
  }
}

TEST(Json, RejectsDuplicateKeys) {
  test::expect_error(ErrorCode::format, "duplicate key 'a'", [] { parsed(R"({"a": 1, "a": 2})"); });
  test::expect_error(ErrorCode::format, "duplicate key 'a'", [] { parsed(R"([{"x": {"a": 1, "a": 1}}])"); });
}

TEST(Json, LimitsTheDepth) {
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') + std::string(static_cast<size_t>(depth), ']');
  };
  EXPECT_TRUE(parsed(nested(60)).is_array());
  test::expect_error(ErrorCode::format, "deeper than 64", [&] { parsed(nested(100)); });
  test::expect_error(ErrorCode::format, "deeper than 64", [&] { parsed(nested(100'000)); });
  test::expect_error(ErrorCode::format, "deeper than 8", [&] { Json::parse(nested(20), "x", 8); });
}

TEST(Json, IntegersKeepTheirValueOrBecomeDoubles) {
  EXPECT_EQ(parsed("9223372036854775807").as_int("x"), INT64_MAX);
  EXPECT_EQ(parsed("-9223372036854775808").as_int("x"), INT64_MIN);
  EXPECT_EQ(parsed("18446744073709551615").as_double("x"), 0x1p64);
  test::expect_error(ErrorCode::format, "expected an integer", [] { parsed("18446744073709551615").as_int("x"); });
}

TEST(Json, SetsErasesAndAppends) {
  Json json;
  json.set("a", 1);
  json.set("b", "x");
  json.set("a", 2);
  json.erase("b");
  Json list;
  list.push_back(true);
  list.push_back(nullptr);
  json.set("l", list);
  EXPECT_EQ(json.dump(), R"({"a":2,"l":[true,null]})");
}

TEST(Json, DumpsWhatItReads) {
  const std::string text = R"({"b":[1,-2.5,"\"\\\n",false,null],"a":{"x":{}}})";
  EXPECT_EQ(parsed(text).dump(), text);
  EXPECT_EQ(parsed(parsed(text).dump(2)).dump(), text);
  EXPECT_EQ(parsed(Json(0.1).dump()).as_double("x"), 0.1);
}

TEST(Json, DumpsWhatJsonCannotHoldAsItsNearest) {
  EXPECT_EQ(Json(std::numeric_limits<double>::infinity()).dump(), "null");
  EXPECT_EQ(Json(std::nan("")).dump(), "null");
  EXPECT_EQ(Json("a\xff").dump(), "\"a\xef\xbf\xbd\"");
}

TEST(Json, FilesAreLimitedInSize) {
  const test::TempFolder folder;
  const auto path = folder.write("a.json", "{\"x\": 1}");
  EXPECT_EQ(Json::parse_file(path.string()).find("x")->as_int("x"), 1);
  test::expect_error(ErrorCode::format, "at most 3", [&] { Json::parse_file(path.string(), 3); });
}

TEST(JsonText, IsReadInPlace) {
  const JsonText text = JsonText::parse(R"({"s": "a\u00e9", "n": [1, 2.5, null], "o": {"x": 1, "y": 2}})", "t");
  const JsonText::Value root = text.root();
  EXPECT_EQ(root.size(), 3u);
  EXPECT_EQ(root.find("s")->as_string("t"), "a\u00e9");
  EXPECT_FALSE(root.find("z"));
  EXPECT_FALSE(root.find("s")->find("x"));
  std::string seen;
  root.find("n")->for_each_item("t", [&](JsonText::Value item) { seen += item.json("t").dump() + ";"; });
  root.find("o")->for_each_member("t", [&](std::string_view key, JsonText::Value value) {
    seen.append(key).append(std::to_string(value.as_int("t")));
  });
  EXPECT_EQ(seen, "1;2.5;null;x1y2");
  constexpr std::string_view kBut[] = {"n", "s"};
  EXPECT_EQ(root.json("t", kBut).dump(), R"({"o":{"x":1,"y":2}})");
  EXPECT_EQ(JsonText::parse("18446744073709551616", "t").root().as_double("t"), 0x1p64);
}

TEST(JsonText, SaysWhatIsWrongAsJsonDoes) {
  const JsonText text = JsonText::parse(R"({"s": "a", "d": {"k": 1, "k": 2}})", "t");
  const JsonText::Value root = text.root(), string = *root.find("s");
  test::expect_error(ErrorCode::format, "w: found a string, expected an integer", [&] { string.as_int("w"); });
  test::expect_error(ErrorCode::format, "w: found a string, expected an array",
                     [&] { string.for_each_item("w", [](JsonText::Value) {}); });
  test::expect_error(ErrorCode::format, "w: found a string, expected an object",
                     [&] { string.for_each_member("w", [](std::string_view, JsonText::Value) {}); });
  test::expect_error(ErrorCode::format, "w: found an object, expected a string",
                     [&] { JsonText::parse("{}", "t").root().as_string("w"); });
  test::expect_error(ErrorCode::format, "w: duplicate key 'k'", [&] { root.json("w"); });
  constexpr std::string_view kTwice[] = {"k"};
  test::expect_error(ErrorCode::format, "w: duplicate key 'k'", [&] { root.find("d")->json("w", kTwice); });
}

}  // namespace
}  // namespace nibble
