#include "io/gguf.h"

#include <gtest/gtest.h>

#include "io/raw_files.h"
#include "support/files.h"

namespace nibble {
namespace {

using test::bytes_of;
using test::expect_error;
using test::gguf_string;
using test::GgufBuilder;
using test::TempFolder;

TEST(Gguf, ReadsEveryTypeOfValue) {
  const TempFolder folder;
  const std::string strings =
      bytes_of(uint32_t{8}) + bytes_of(uint64_t{2}) + gguf_string("a") + gguf_string("\xff\xfe");
  const auto path = folder.write("t.gguf", GgufBuilder()
                                               .raw("u8", 0, bytes_of(uint8_t{200}))
                                               .raw("i8", 1, bytes_of(int8_t{-5}))
                                               .raw("u16", 2, bytes_of(uint16_t{60000}))
                                               .raw("i16", 3, bytes_of(int16_t{-300}))
                                               .u32("u32", 4'000'000'000u)
                                               .raw("i32", 5, bytes_of(int32_t{-70000}))
                                               .f32("f32", 0.1f)
                                               .raw("bool", 7, bytes_of(uint8_t{1}))
                                               .text("text", "bytes \xc3\xa9")
                                               .raw("strings", 9, strings)
                                               .raw("u64", 10, bytes_of(uint64_t{1} << 62))
                                               .raw("i64", 11, bytes_of(int64_t{INT64_MIN}))
                                               .raw("f64", 12, bytes_of(0.1))
                                               .build());
  const GgufFile file(path);
  const Json& metadata = file.metadata();
  EXPECT_EQ(metadata.find("u8")->as_int(""), 200);
  EXPECT_EQ(metadata.find("i8")->as_int(""), -5);
  EXPECT_EQ(metadata.find("u16")->as_int(""), 60000);
  EXPECT_EQ(metadata.find("i16")->as_int(""), -300);
  EXPECT_EQ(metadata.find("u32")->as_int(""), 4'000'000'000);
  EXPECT_EQ(metadata.find("i32")->as_int(""), -70000);
  EXPECT_EQ(metadata.find("f32")->as_double(""), static_cast<double>(0.1f));
  EXPECT_TRUE(metadata.find("bool")->as_bool(""));
  EXPECT_EQ(metadata.find("text")->as_string(""), "bytes \xc3\xa9");
  EXPECT_EQ(metadata.find("strings")->as_array("")[1].as_string(""), "\xff\xfe");
  EXPECT_EQ(metadata.find("u64")->as_int(""), int64_t{1} << 62);
  EXPECT_EQ(metadata.find("i64")->as_int(""), INT64_MIN);
  EXPECT_EQ(metadata.find("f64")->as_double(""), 0.1);
  EXPECT_EQ(metadata.as_object("").front().first, "u8");
}

TEST(Gguf, ReadsTensorsInTorchsOrderOfDimensions) {
  const TempFolder folder;
  std::string floats;
  for (int i = 0; i < 6; ++i) floats += bytes_of(static_cast<float>(i));
  const auto path = folder.write("t.gguf", GgufBuilder()
                                               .tensor("dense", {3, 2}, 0, floats)
                                               .tensor("blocks", {64, 3}, 2, std::string(6 * 18, '\2'))
                                               .tensor("ints", {4}, 26, std::string(16, '\0'))
                                               .build());
  const GgufFile file(path);
  EXPECT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.find("dense")->shape, (Shape{2, 3}));
  EXPECT_EQ(file.find("dense")->format_name(), "fp32");
  EXPECT_EQ(file.load_raw("dense").f32()[5], 5.0f);
  EXPECT_EQ(file.find("blocks")->format_name(), "q4_0");
  EXPECT_EQ(file.load_raw("blocks").shape, (Shape{3, 36}));
  EXPECT_EQ(file.load_raw("ints").dtype, DType::i32);
  EXPECT_EQ(file.find("absent"), nullptr);
  expect_error(ErrorCode::format, "has no tensor 'absent'", [&] { file.load_raw("absent"); });
}

TEST(Gguf, ManyTokensAreReadFast) {
  const TempFolder folder;
  std::string tokens = bytes_of(uint32_t{8}) + bytes_of(uint64_t{150'000});
  for (int i = 0; i < 150'000; ++i) tokens += gguf_string("token " + std::to_string(i));
  const auto path = folder.write("t.gguf", GgufBuilder().raw("tokens", 9, tokens).build());
  const auto begin = std::chrono::steady_clock::now();
  const GgufFile file(path);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(file.metadata().find("tokens")->as_array("").back().as_string(""), "token 149999");
  EXPECT_LT(seconds.count(), 2.0);
}

TEST(Gguf, ReadsVersion2) {
  const TempFolder folder;
  std::string bytes = GgufBuilder().u32("a", 1).build();
  bytes[4] = 2;
  EXPECT_EQ(GgufFile(folder.write("t.gguf", bytes)).metadata().find("a")->as_int(""), 1);
}

std::string part(uint16_t number, uint16_t count, const std::string& tensor) {
  return GgufBuilder()
      .raw("split.no", 2, bytes_of(number))
      .raw("split.count", 2, bytes_of(count))
      .raw("split.tensors.count", 5, bytes_of(int32_t{2}))
      .zeros(tensor, {4})
      .build();
}

TEST(Gguf, OpensAllPartsOfASplitModel) {
  const TempFolder folder;
  const auto first = folder.write("m-00001-of-00002.gguf", part(0, 2, "a"));
  folder.write("m-00002-of-00002.gguf", part(1, 2, "b"));
  const std::vector<GgufFile> parts = open_gguf_parts(first);
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_NE(parts[1].find("b"), nullptr);
}

TEST(Gguf, PartsThatDoNotBelongTogetherAreRefused) {
  const TempFolder folder;
  const auto first = folder.write("m-00001-of-00002.gguf", part(0, 2, "a"));
  expect_error(ErrorCode::io, "m-00002-of-00002.gguf: cannot be opened", [&] { open_gguf_parts(first); });
  const auto second = folder.write("m-00002-of-00002.gguf", part(0, 2, "b"));
  expect_error(ErrorCode::format, "is not part 2 of 2", [&] { open_gguf_parts(first); });
  expect_error(ErrorCode::format, "open the one that ends with -00001-of-00002.gguf", [&] { open_gguf_parts(second); });
  folder.write(
      "m-00002-of-00002.gguf",
      GgufBuilder().raw("split.no", 2, bytes_of(uint16_t{1})).raw("split.count", 2, bytes_of(uint16_t{2})).build());
  expect_error(ErrorCode::format, "the parts hold 1 tensors, expected 2", [&] { open_gguf_parts(first); });
}

TEST(Gguf, RealVocabulariesOpen) {
  NIBBLE_NEED_SHARED("real/gguf-vocab");
  struct Row {
    const char* file;
    size_t tokens;
  };
  for (const Row& row : {Row{"ggml-vocab-gpt-2.gguf", 50257}, Row{"ggml-vocab-llama-spm.gguf", 32000},
                         Row{"ggml-vocab-bert-bge.gguf", 30522}}) {
    const GgufFile file(test::shared_folder() / "real/gguf-vocab" / row.file);
    EXPECT_EQ(file.metadata().find("tokenizer.ggml.tokens")->as_array("").size(), row.tokens) << row.file;
  }
}

}  // namespace
}  // namespace nibble
