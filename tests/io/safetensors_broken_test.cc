// One broken file per check of the reader, and random damage.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "io/raw_files.h"
#include "io/safetensors.h"
#include "support/files.h"

namespace nibble {
namespace {

using test::bytes_of;
using test::expect_error;
using test::safetensors_bytes;
using test::TempFolder;

void expect_refused(const std::string& bytes, const std::string& fragment) {
  const TempFolder folder;
  const auto path = folder.write("t.safetensors", bytes);
  expect_error(ErrorCode::format, fragment, [&] { SafetensorsFile file(path); });
}

struct BrokenHeader {
  std::string header;
  size_t data_bytes;
  std::string fragment;
};

const std::vector<BrokenHeader> kBrokenHeaders = {
    {"", 0, "does not begin with '{'"},
    {"   ", 0, "does not begin with '{'"},
    {"[]", 0, "does not begin with '{'"},
    {"\xef\xbb\xbf{}", 0, "does not begin with '{'"},
    {std::string("{}\0", 3), 0, "not valid JSON"},
    {"{}x", 0, "not valid JSON"},
    {"{\"a\":\"\xff\"}", 0, "not valid JSON"},
    {R"({"a":)", 0, "not valid JSON"},
    {R"({"a":[[[[[[[[[[1]]]]]]]]]]})", 0, "nested deeper than 8"},
    {R"({"__metadata__":[1]})", 0, "__metadata__: found an array"},
    {R"({"__metadata__":{"a":1}})", 0, "__metadata__ 'a': found an integer, expected a string"},
    {R"({"__metadata__":{"a":"1","a":"1"}})", 0, "duplicate key 'a'"},
    {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
     "duplicate key 'a'"},
    {R"({"a":1})", 0, "tensor 'a': found an integer, expected an object"},
    {R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1, "has no 'dtype'"},
    {R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1, "has no 'shape'"},
    {R"({"a":{"dtype":"U8","shape":[1]}})", 1, "has no 'data_offsets'"},
    {R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,1]}})", 1, "dtype: found an integer"},
    {R"({"a":{"dtype":"F7","shape":[1],"data_offsets":[0,1]}})", 1, "unknown dtype 'F7', known are BOOL, F4"},
    {R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", 1, "shape: found an integer, expected an array"},
    {R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", 1, "shape: found a number, expected an integer"},
    {R"({"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}})", 1, "shape: found a string"},
    {R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1, "shape: is negative (-1)"},
    {R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1, "rank 9, expected at most 8"},
    {R"({"a":{"dtype":"U8","shape":[562949953421312],"data_offsets":[0,1]}})", 1,
     "dimension 562949953421312 is too large"},
    {R"({"a":{"dtype":"U8","shape":[0,9223372036854775808],"data_offsets":[0,0]}})", 0,
     "found a number, expected an integer"},
    {R"({"a":{"dtype":"U8","shape":[4294967296,4294967296,2],"data_offsets":[0,1]}})", 1, "overflows 64 bits"},
    {R"({"a":{"dtype":"U8","shape":[0,4294967296,4294967296,2],"data_offsets":[0,0]}})", 0, "overflows 64 bits"},
    {R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", 2, "12 bits do not end on a byte"},
    {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1, "expected two integers"},
    {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 1, "expected two integers"},
    {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}})", 1, "data_offsets: is negative"},
    {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", 1, "begins at 1 behind its end 0"},
    {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}})", 1, "1 bytes, expected 2 for U8 [2]"},
    {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2, "where the tensor before it ends"},
    {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})", 3,
     "tensor 'b' begins at byte"},
    {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", 3,
     "tensor 'b' begins at byte"},
    {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 1, "the tensors end at byte"},
    {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 3, "the tensors end at byte"},
    {R"({"a":{"dtype":"U8","shape":[9000000000],"data_offsets":[0,9000000000]}})", 3, "the tensors end at byte"},
    {R"({")" + std::string(5000, 'n') + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, "name is too long"},
};

TEST(SafetensorsBroken, EveryRuleOfTheHeaderIsChecked) {
  for (const BrokenHeader& broken : kBrokenHeaders) {
    SCOPED_TRACE(broken.header.substr(0, 200));
    expect_refused(safetensors_bytes(broken.header, broken.data_bytes), broken.fragment);
  }
}

TEST(SafetensorsBroken, LengthsAreCheckedBeforeTheHeaderIsRead) {
  expect_refused("", "0 bytes are too few");
  expect_refused("1234567", "7 bytes are too few");
  expect_refused(bytes_of(uint64_t{3}) + "{}", "header of 3 bytes, the file has 10");
  expect_refused(bytes_of(uint64_t{100'000'001}) + "{}", "at most 100000000");
  expect_refused(bytes_of(~uint64_t{0}) + "{}", "header of 18446744073709551615 bytes");
}

TEST(SafetensorsBroken, WhiteSpaceAroundTheHeaderIsAccepted) {
  const TempFolder folder;
  const auto path = folder.write(
      "t", safetensors_bytes(" \t\r\n{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}\n ", 1));
  EXPECT_EQ(SafetensorsFile(path).load("a").data<uint8_t>()[0], 1);
}

TEST(SafetensorsBroken, OnlyRegularFilesAreOpened) {
  const TempFolder folder;
  const auto pipe = folder / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  expect_error(ErrorCode::io, "is not a regular file", [&] { SafetensorsFile file(pipe); });
  expect_error(ErrorCode::io, "is not a regular file", [&] { SafetensorsFile file(folder.path()); });
  expect_error(ErrorCode::io, "cannot be opened", [&] { SafetensorsFile file(folder / "absent"); });
}

TEST(SafetensorsBroken, FileThatShrinksAfterwardsGivesAnError) {
  const TempFolder folder;
  const auto path = folder.write("t", safetensors_bytes(R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})", 9));
  const SafetensorsFile file(path);
  std::filesystem::resize_file(path, 20);
  expect_error(ErrorCode::format, "became shorter", [&] { file.load("a"); });
}

TEST(SafetensorsBroken, RandomDamageGivesErrorsOnly) {
  const test::MemoryFile damaged;
  const std::string whole = safetensors_bytes(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
      R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]},"c":{"dtype":"U8","shape":[],"data_offsets":[22,23]}})",
      23);
  std::mt19937 random(1);
  int opened = 0;
  for (int i = 0; i < 3000; ++i) {
    damaged.set(test::mutated(whole, random));
    try {
      const SafetensorsFile file(damaged.path());
      for (const SafetensorsEntry& entry : file.entries()) file.load_bytes(entry.name);
      ++opened;
    } catch (const Error& error) {
      ASSERT_TRUE(error.code() == ErrorCode::format || error.code() == ErrorCode::unsupported) << error.what();
    }
  }
  EXPECT_GT(opened, 0);  // damage to the data alone is not noticed
  EXPECT_LT(opened, 2000);
}

}  // namespace
}  // namespace nibble
