#include <gtest/gtest.h>

#include "support/files.h"
#include "text/tokenizer_rows.h"

namespace nibble {
namespace {

using test::Ids;
using test::TempFolder;

TEST(TokenizerFolder, PrefersTokenizerJson) {
  const TempFolder folder;
  folder.write("tokenizer.json", test::word_level_json().dump());
  folder.write("tokenizer_config.json", R"({"eos_token": "[SEP]"})");
  folder.write("special_tokens_map.json", R"({"eos_token": "[UNK]", "pad_token": {"content": "a"}})");
  folder.write("vocab.txt", "nothing of use");
  EXPECT_TRUE(Tokenizer::folder_has_tokenizer(folder.path()));
  const Tokenizer tokenizer = Tokenizer::from_folder(folder.path());
  EXPECT_EQ(tokenizer.encode("ab a"), (Ids{5, 3}));
  EXPECT_EQ(tokenizer.special().eos, 1);  // tokenizer_config.json comes first
  EXPECT_EQ(tokenizer.special().pad, 3);
}

TEST(TokenizerFolder, ReadsBertVocabularies) {
  const TempFolder folder;
  const std::string vocab = "[PAD]\r\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##able\nhello\n!\n";
  folder.write("vocab.txt", vocab);
  const Tokenizer lower = Tokenizer::from_folder(folder.path());
  EXPECT_EQ(lower.encode("H\u00e9llo unable! [MASK]"), (Ids{2, 7, 5, 6, 8, 4, 3}));
  EXPECT_EQ(lower.special().cls, 2);
  EXPECT_EQ(lower.special().mask, 4);
  EXPECT_EQ(lower.encode_pair("un", "!").type_ids, (Ids{0, 0, 0, 1, 1}));
  EXPECT_EQ(lower.decode(lower.encode("unable !"), {.skip_special_tokens = true}), "unable!");

  folder.write("tokenizer_config.json", R"({"do_lower_case": false})");
  EXPECT_EQ(Tokenizer::from_folder(folder.path()).encode("Hello"), (Ids{2, 1, 3}));

  folder.write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n");
  test::expect_error(ErrorCode::format, "no token '[SEP]'", [&] { Tokenizer::from_folder(folder.path()); });
  folder.write("vocab.txt", "\xff\n");
  test::expect_error(ErrorCode::format, "vocab.txt: not UTF-8", [&] { Tokenizer::from_folder(folder.path()); });
}

TEST(TokenizerFolder, SaysWhatItLookedFor) {
  const TempFolder folder;
  EXPECT_FALSE(Tokenizer::folder_has_tokenizer(folder.path()));
  test::expect_error(ErrorCode::io, "looked for tokenizer.json, vocab.txt and tokenizer.model",
                     [&] { Tokenizer::from_folder(folder.path()); });
}

}  // namespace
}  // namespace nibble
