// One broken file per check of the GGUF reader, and random damage.
#include <gtest/gtest.h>

#include "io/gguf.h"
#include "io/raw_files.h"
#include "support/files.h"

namespace nibble {
namespace {

using test::bytes_of;
using test::expect_error;
using test::gguf_string;
using test::GgufBuilder;

void expect_refused(ErrorCode code, const std::string& bytes, const std::string& fragment) {
  SCOPED_TRACE(fragment);
  const test::MemoryFile file;
  file.set(bytes);
  expect_error(code, fragment, [&] { GgufFile opened(file.path()); });
}

void expect_invalid(const std::string& bytes, const std::string& fragment) {
  expect_refused(ErrorCode::format, bytes, fragment);
}

std::string header(uint32_t version, uint64_t tensors, uint64_t keys) {
  return "GGUF" + bytes_of(version) + bytes_of(tensors) + bytes_of(keys) + std::string(64, '\0');
}

TEST(GgufBroken, Header) {
  expect_invalid("", "4 bytes wanted at byte 0, the file has 0");
  expect_invalid("GGML" + std::string(60, '\0'), "does not begin with 'GGUF'");
  expect_invalid("GGUF\3", "4 bytes wanted at byte 4");
  expect_refused(ErrorCode::unsupported, header(1, 0, 0), "GGUF version 1 is not supported");
  expect_refused(ErrorCode::unsupported, header(4, 0, 0), "GGUF version 4 is not supported");
  expect_refused(ErrorCode::unsupported, header(0x03000000, 0, 0), "big-endian");
  expect_invalid(header(3, uint64_t{1} << 60, 0), "tensor count: count 1152921504606846976");
  expect_invalid(header(3, 3, 0), "tensor count: count 3, but only");
  expect_invalid(header(3, 0, ~uint64_t{0}), "metadata count: count 18446744073709551615");
  expect_invalid(header(3, 0, 5), "metadata count: count 5, but only");
}

TEST(GgufBroken, Metadata) {
  const std::string long_text = bytes_of(uint64_t{1} << 40);
  const auto key = [](uint32_t type, const std::string& value) { return GgufBuilder().raw("k", type, value).build(); };
  const auto array = [&](uint32_t type, uint64_t count) { return key(9, bytes_of(type) + bytes_of(count)); };
  expect_invalid(GgufBuilder().u32("", 1).build(), "the key is empty");
  expect_invalid(GgufBuilder().u32(std::string(5000, 'k'), 1).build(), "string of 5000 bytes");
  expect_invalid(GgufBuilder().u32("k", 1).u32("k", 1).build(), "metadata 'k': duplicate key");
  expect_invalid(key(13, bytes_of(uint32_t{0})), "metadata 'k': unknown value type 13");
  expect_invalid(key(7, bytes_of(uint8_t{2})), "metadata 'k': found 2, expected a boolean");
  expect_invalid(key(8, long_text), "metadata 'k': string of 1099511627776 bytes");
  expect_invalid(key(8, bytes_of(~uint64_t{0})), "metadata 'k': string of 18446744073709551615 bytes");
  expect_invalid(array(13, 1), "metadata 'k': unknown value type 13");
  expect_refused(ErrorCode::unsupported, array(9, 1), "arrays of arrays");
  expect_invalid(array(4, ~uint64_t{0}), "metadata 'k': count 18446744073709551615");
  expect_invalid(array(4, uint64_t{1} << 62), "metadata 'k': count");  // times 4 is 0 in 64 bits
  expect_invalid(array(8, 9), "metadata 'k': count 9, but only");
  expect_invalid(array(0, 5'000'000) + std::string(6'000'000, '\0'), "at most 4000000 are allowed");
}

TEST(GgufBroken, Alignment) {
  const auto alignment = [](uint32_t value) { return GgufBuilder().u32("general.alignment", value).build(); };
  expect_invalid(alignment(0), "general.alignment 0 is not a power of two");
  expect_invalid(alignment(24), "general.alignment 24 is not a power of two");
  expect_invalid(alignment(1u << 31), "general.alignment 2147483648 is not a power of two up to");
  expect_invalid(GgufBuilder().text("general.alignment", "32").build(), "value type 8, expected u32");
  expect_invalid(GgufBuilder().raw("general.alignment", 10, bytes_of(uint64_t{32})).build(),
                 "value type 10, expected u32");
}

TEST(GgufBroken, Tensors) {
  const auto one = [](const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset, size_t bytes) {
    return GgufBuilder().tensor_at("t", dims, type, offset, std::string(bytes, '\0')).build();
  };
  expect_invalid(one({}, 0, 0, 64), "tensor 't': rank 0, expected 1 to 4");
  expect_invalid(one({1, 1, 1, 1, 1}, 0, 0, 4), "tensor 't': rank 5, expected 1 to 4");
  expect_invalid(one({4, 0}, 0, 0, 0), "tensor 't': dimension 0");
  expect_invalid(one({uint64_t{1} << 63}, 0, 0, 4), "tensor 't': dimension 9223372036854775808");
  expect_invalid(one({uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0, 4), "overflows 64 bits");
  expect_invalid(one({uint64_t{1} << 32, uint64_t{1} << 30}, 0, 0, 4),
                 "overflows 64 bits");  // the bytes, not the values
  expect_refused(ErrorCode::unsupported, one({256}, 16, 0, 66), "type iq2_xxs are not supported; f32, f16, q4_0");
  expect_refused(ErrorCode::unsupported, one({256}, 4, 0, 66), "type number 4 are not supported");
  expect_refused(ErrorCode::unsupported, one({256}, 4000000000, 0, 66), "type number 4000000000");
  expect_invalid(one({33}, 2, 0, 36), "rows of 33 values, expected a multiple of 32 for q4_0");
  expect_invalid(one({32}, 12, 0, 144), "expected a multiple of 256 for q4_k");
  expect_invalid(one({4}, 0, 32, 64), "tensor 't': offset 32, expected 0");
  expect_invalid(one({4}, 0, ~uint64_t{31}, 64), "offset 18446744073709551584, expected 0");
  expect_invalid(one({100}, 0, 0, 32), "tensor 't': ends at byte");
  expect_invalid(GgufBuilder().zeros("t", {4}).zeros("t", {4}).build(), "tensor 't' is there twice");
  expect_invalid(GgufBuilder().zeros("a", {4}).tensor_at("b", {4}, 0, 16, std::string(16, '\0')).build(),
                 "tensor 'b': offset 16, expected 32");
  expect_invalid(GgufBuilder().zeros(std::string(5000, 'n'), {4}).build(), "name of a tensor: string of 5000 bytes");
}

TEST(GgufBroken, FileCutAtEveryByteIsRefused) {
  const std::string whole = GgufBuilder().u32("a", 1).text("b", "text").zeros("t", {8}).zeros("u", {8}).build();
  const test::MemoryFile file;
  for (size_t length = 0; length < whole.size(); ++length) {
    file.set(whole.substr(0, length));
    expect_error(ErrorCode::format, "byte", [&] { GgufFile opened(file.path()); });
  }
  file.set(whole);
  EXPECT_EQ(GgufFile(file.path()).tensors().size(), 2u);
}

TEST(GgufBroken, RandomDamageGivesErrorsOnly) {
  const std::string tokens =
      bytes_of(uint32_t{8}) + bytes_of(uint64_t{3}) + gguf_string("a") + gguf_string("bc") + gguf_string("");
  const std::string whole = GgufBuilder()
                                .text("general.architecture", "llama")
                                .u32("general.alignment", 32)
                                .raw("tokens", 9, tokens)
                                .zeros("a", {4, 2})
                                .tensor("b", {32}, 2, std::string(18, '\5'))
                                .build();
  const test::MemoryFile file;
  std::mt19937 random(2);
  int opened = 0;
  for (int i = 0; i < 5000; ++i) {
    file.set(test::mutated(whole, random));
    try {
      const GgufFile gguf(file.path());
      for (const GgufTensor& tensor : gguf.tensors()) gguf.load_raw(tensor.name);
      ++opened;
    } catch (const Error& error) {
      ASSERT_TRUE(error.code() == ErrorCode::format || error.code() == ErrorCode::unsupported) << error.what();
    }
  }
  EXPECT_GT(opened, 0);  // damage to the data and to texts is not noticed
  EXPECT_LT(opened, 4000);
}

}  // namespace
}  // namespace nibble
