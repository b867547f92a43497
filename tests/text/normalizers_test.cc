#include "text/normalizers.h"

#include <gtest/gtest.h>

#include "support/files.h"
#include "text/charsmap.h"

namespace nibble {
namespace {

std::string normalized(const std::string& json, const std::string& text) {
  return parse_normalizer(Json::parse(json, "test"), "test")(text);
}

// The expected texts are those of the tokenizers library 0.23.
TEST(Normalizers, EveryType) {
  struct Row {
    const char* json;
    const char* text;
    const char* expected;
  };
  const Row rows[] = {
      {"null", " A\u00e9", " A\u00e9"},
      {R"({"type": "NFC"})", "e\u0301", "\u00e9"},
      {R"({"type": "NFD"})", "\u00e9", "e\u0301"},
      {R"({"type": "NFKC"})", "\ufb01", "fi"},
      {R"({"type": "NFKD"})", "\u00bd", "1\u20442"},
      {R"({"type": "Lowercase"})", "\u00c4B", "\u00e4b"},
      {R"({"type": "StripAccents"})", "e\u0301\u0903o", "eo"},
      {R"({"type": "Strip", "strip_left": true, "strip_right": true})", "\t a b\u3000", "a b"},
      {R"({"type": "Strip", "strip_left": false, "strip_right": true})", " a ", " a"},
      {R"({"type": "Strip", "strip_left": true, "strip_right": false})", " a ", "a "},
      {R"({"type": "Strip", "strip_left": true, "strip_right": true})", "  ", ""},
      {R"({"type": "Prepend", "prepend": "_"})", "a", "_a"},
      {R"({"type": "Prepend", "prepend": "_"})", "", ""},
      {R"({"type": "Replace", "pattern": {"String": " "}, "content": "_"})", "a b ", "a_b_"},
      {R"({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "$0"})", "a   b c", "a$0b c"},
      {R"({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
           "lowercase": true})",
       "H\u00c9\tl\u0001l\ufffd\u65e5\u00a0o", "he ll \u65e5  o"},
      {R"({"type": "BertNormalizer", "clean_text": false, "handle_chinese_chars": false, "strip_accents": null,
           "lowercase": false})",
       "H\u00c9\u0001\u65e5", "H\u00c9\u0001\u65e5"},
      {R"({"type": "BertNormalizer", "strip_accents": false})", "\u00c9", "\u00e9"},
      // Marks and controls that came after Unicode 8 stay.
      {R"({"type": "BertNormalizer"})", "a\u09fe\u0890b\u00ad\u0301\u1734", "a\u09fe\u0890b"},
      {R"({"type": "Nmt"})", "a\u0001\tb\u200bc\ufeff", "a b c "},
      {R"({"type": "ByteLevel"})", " \u00e9", "\u0120\u00c3\u00a9"},
      {R"({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]})", "\u00e9", "e"},
      {R"({"type": "Precompiled", "precompiled_charsmap": ""})", "a", "a"},
  };
  for (const Row& row : rows) EXPECT_EQ(normalized(row.json, row.text), row.expected) << row.json;
}

// A double array that maps "A" to "aa": root offset 1, so "A" leads to unit 1 ^ 'A' = 64, whose leaf (offset 1) is unit
// 65 with value 0.
std::string charsmap_of_a() {
  std::vector<uint32_t> units(66, 0);
  units[0] = 1u << 10;
  units[64] = 1u << 10 | 1u << 8 | 'A';
  units[65] = 1u << 31;
  std::string bytes;
  const auto put = [&](uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(value >> shift & 0xff));
  };
  put(static_cast<uint32_t>(units.size() * 4));
  for (const uint32_t unit : units) put(unit);
  return bytes + std::string("aa\0", 3);
}

TEST(Normalizers, PrecompiledTable) {
  const std::string json =
      R"({"type": "Precompiled", "precompiled_charsmap": ")" + base64_encode(charsmap_of_a()) + "\"}";
  EXPECT_EQ(normalized(json, "xAyB"), "xaayB");
  EXPECT_EQ(normalized(json, "A\u0301"), "aa");  // a cluster is replaced by its shortest entry
  EXPECT_EQ(normalized(json, "A\u0301\u0301\u0301"), "aa\u0301\u0301\u0301");  // but not one of more than five bytes
}

TEST(Normalizers, BrokenTables) {
  using test::expect_error;
  expect_error(ErrorCode::format, "where: the trie's size 0 does not fit", [] { Charsmap("", "where"); });
  expect_error(ErrorCode::format, "does not fit the table of 8 bytes",
               [] { Charsmap(std::string("\x08\0\0\0abcd", 8), "w"); });
  expect_error(ErrorCode::format, "does not fit", [] { Charsmap(std::string("\x03\0\0\0abcd", 8), "w"); });
  expect_error(ErrorCode::format, "not UTF-8", [] { Charsmap(std::string("\x04\0\0\0abcd\xff", 9), "w"); });
  expect_error(ErrorCode::format, "not base64", [] { base64_decode("a*b", "w"); });
  // Offsets and values that point out of the table find nothing.
  std::string wild = charsmap_of_a();
  wild[4 + 64 * 4 + 3] = '\x7f';
  EXPECT_EQ(Charsmap(wild, "w").normalize("A"), "A");
}

TEST(Normalizers, Base64) {
  for (const char* text : {"", "a", "ab", "abc", "abcd", "\xff\xfe\xfd"}) {
    EXPECT_EQ(base64_decode(base64_encode(text), "test"), text);
  }
  EXPECT_EQ(base64_encode("Man"), "TWFu");
  EXPECT_EQ(base64_encode("Ma"), "TWE=");
}

TEST(Normalizers, UnknownTypesAreNamedWithTheKnownOnes) {
  test::expect_error(ErrorCode::unsupported, "test: unknown type 'Shout'. Known: NFC, NFD,",
                     [] { normalized(R"({"type": "Shout"})", ""); });
  test::expect_error(ErrorCode::format, "test.normalizers[1]: no member 'type'",
                     [] { normalized(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {}]})", ""); });
  test::expect_error(ErrorCode::format, "test.pattern: expected",
                     [] { normalized(R"({"type": "Replace", "pattern": {"Glob": "*"}, "content": ""})", ""); });
  test::expect_error(ErrorCode::format, "test.pattern.String: empty",
                     [] { normalized(R"({"type": "Replace", "pattern": {"String": ""}, "content": ""})", ""); });
}

}  // namespace
}  // namespace nibble
