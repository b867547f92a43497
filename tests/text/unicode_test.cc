#include "text/unicode.h"

#include <gtest/gtest.h>

#include "support/files.h"
#include "text/byte_level.h"
#include "text/text_file.h"

namespace nibble {
namespace {

TEST(Unicode, ReplacesBrokenCharactersByMaximalSubparts) {
  const std::pair<std::string, std::string> rows[] = {
      {"plain", "plain"},
      {"\xe2\x96\x81", "\u2581"},
      {"\xe2\x96", "\uFFFD"},  // cut off: one replacement
      {"\xe2\x96g", "\uFFFDg"},
      {"\xff\xfe", "\uFFFD\uFFFD"},                      // never part of a character: one each
      {"\xc0\xaf", "\uFFFD\uFFFD"},                      // overlong slash
      {"\xed\xa0\x80", "\uFFFD\uFFFD\uFFFD"},            // surrogate
      {"\xf4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},  // above U+10FFFF
      {"\xf0\x9f\x99"
       "a",
       "\uFFFDa"},
  };
  for (const auto& [bytes, text] : rows) {
    EXPECT_EQ(to_valid_utf8(bytes), text);
    EXPECT_EQ(is_valid_utf8(bytes), bytes == text);
  }
}

TEST(Unicode, FilesOfTextAreUtf8WithoutTheirByteOrderMark) {
  const test::TempFolder folder;
  const auto read = [&](const std::string& bytes) { return read_utf8_file(folder.write("a.txt", bytes), 100); };
  EXPECT_EQ(read(""), "");
  EXPECT_EQ(read("\xef\xbb\xbfgr\u00fc\u00df"), "gr\u00fc\u00df");
  EXPECT_EQ(read("a\xef\xbb\xbf"), "a\xef\xbb\xbf");
  const std::pair<std::string, const char*> rows[] = {{"\xff\xfe\xfa", "1: byte 1"},
                                                      {"\xef\xbb\xbfgr\u00fc\xff", "1: byte 5"},
                                                      {"a\n\u00fc\ncut \xe2\x96", "3: byte 5"}};
  for (const auto& [bytes, where] : rows) {
    test::expect_error(ErrorCode::format, std::string("a.txt:") + where + " of the line is not UTF-8",
                       [&] { read(bytes); });
  }
}

TEST(Unicode, IncompleteTailCountsOnlyTheBeginningOfACharacter) {
  EXPECT_EQ(incomplete_tail("abc"), 0u);
  EXPECT_EQ(incomplete_tail("a\xe2"), 1u);
  EXPECT_EQ(incomplete_tail("a\xf0\x9f\x99"), 3u);
  EXPECT_EQ(incomplete_tail("a\xf0\x9f\x99\x82"), 0u);
  EXPECT_EQ(incomplete_tail("\x96"), 0u);  // not the beginning of anything
  EXPECT_EQ(incomplete_tail(""), 0u);
}

TEST(Unicode, NormalForms) {
  EXPECT_EQ(normalize("e\u0301a", NormalForm::nfc), "\u00e9a");
  EXPECT_EQ(normalize("\u00e9", NormalForm::nfd), "e\u0301");
  EXPECT_EQ(normalize("\ufb01\u00bd", NormalForm::nfkc), "fi1\u20442");
  EXPECT_EQ(normalize("\uac01", NormalForm::nfkd), "\u1100\u1161\u11a8");
  EXPECT_EQ(normalize("\u0958", NormalForm::nfc), "\u0915\u093c");          // excluded from composition
  EXPECT_EQ(normalize("a\u0315\u0300", NormalForm::nfd), "a\u0300\u0315");  // marks in canonical order
  EXPECT_EQ(normalize("q\u0307\u0323", NormalForm::nfc), "q\u0323\u0307");
  EXPECT_EQ(normalize("plain", NormalForm::nfkc), "plain");
}

TEST(Unicode, NormalizingAMillionMarksIsNotQuadratic) {
  std::string text = "a";
  for (int i = 0; i < 500'000; ++i) text += i % 2 == 0 ? "\u0301" : "\u0323";
  EXPECT_EQ(normalize(text, NormalForm::nfd).size(), text.size());
}

TEST(Unicode, LowercaseKeepsTheDotOfTheTurkishI) {
  EXPECT_EQ(lowercase("\u00c4B\u0130\u03a3"), "\u00e4bi\u0307\u03c3");
}

TEST(Unicode, Properties) {
  for (const char32_t c : {U' ', U'\t', U'\x85', U'\u00a0', U'\u2003', U'\u3000'}) EXPECT_TRUE(is_whitespace(c));
  for (const char32_t c : {U'a', U'\u200b', U'\u180e'}) EXPECT_FALSE(is_whitespace(c));
  for (const char32_t c : {U'7', U'\u00bd', U'\u2167', U'\u0665'}) EXPECT_TRUE(is_numeric(c));
  for (const char32_t c : {U'!', U'$', U'_', U'\u00bf', U'\u3002'}) EXPECT_TRUE(is_punctuation(c));
  for (const char32_t c : {U'a', U'\u20ac', U'\u00b4'}) EXPECT_FALSE(is_punctuation(c));
  for (const char32_t c : {U'a', U'_', U'\u0301', U'\u24d0', U'\u2167'}) EXPECT_TRUE(is_word(c));
  for (const char32_t c : {U'-', U'\u00b2', U' '}) EXPECT_FALSE(is_word(c));
  EXPECT_TRUE(is_nonspacing_mark(U'\u0301'));
  EXPECT_TRUE(is_mark(U'\u0903'));
  EXPECT_FALSE(is_nonspacing_mark(U'\u0903'));
  EXPECT_TRUE(is_control_or_private(U'\u200d'));
}

TEST(Unicode, GraphemesKeepFamiliesTogether) {
  const std::string family = "\U0001F469\u200d\U0001F467";
  EXPECT_EQ(grapheme_bytes("x" + family + "y", 1), family.size());
  EXPECT_EQ(grapheme_bytes("e\u0301x", 0), 3u);
}

TEST(ByteLevel, MapsAllBytesBothWays) {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes.push_back(static_cast<char>(byte));
  const std::string chars = bytes_to_chars(bytes);
  EXPECT_TRUE(is_valid_utf8(chars));
  EXPECT_EQ(chars_to_bytes(chars), bytes);
  EXPECT_EQ(bytes_to_chars(" a\n"), "\u0120a\u010a");
  EXPECT_EQ(chars_to_bytes("<| x |>"), "<| x |>");  // the space is not in the alphabet
}

}  // namespace
}  // namespace nibble
