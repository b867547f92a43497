#include "core/error.h"

#include <vector>

#include "core/checked.h"
#include "core/progress.h"
#include "support/files.h"

namespace nibble {
namespace {

TEST(Error, EscapesControlBytesOfUntrustedText) {
  EXPECT_EQ(printable("a\nb\x1b[31m\x7f"), "a\\x0ab\\x1b[31m\\x7f");
  EXPECT_EQ(printable("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f");
  test::expect_error(ErrorCode::format, "name 'x\\x00y'",
                     [] { fail(ErrorCode::format, std::string("name 'x\0y'", 10)); });
}

TEST(Error, CutsLongMessages) {
  const Error error(ErrorCode::io, std::string(10'000, 'x'));
  EXPECT_EQ(std::string(error.what()).size(), 4096u);
  EXPECT_EQ(std::string(error.what()).substr(4093), "...");
  EXPECT_EQ(printable("\n\n\n\n", 8).size(), 8u);
}

TEST(Error, FindsTheNearestName) {
  const std::vector<std::string> known = {"nf4", "fp4", "int8-dynamic", "q8_0"};
  EXPECT_EQ(nearest_name("nf5", known), "nf4");
  EXPECT_EQ(nearest_name("int8dynamic", known), "int8-dynamic");
  EXPECT_EQ(nearest_name("NF4", known), "nf4");
  EXPECT_EQ(nearest_name("something-else", known), "");
}

TEST(Error, SuggestsNoOptionThatHasLittleToDoWithIt) {
  const std::vector<std::string> known = {"-n",         "--max-tokens", "-o",          "--out",    "--lora-r",
                                          "--task",     "--lora-alpha", "--dropout",   "--resume", "--report",
                                          "--stop",     "--text",       "--text-pair", "--help",   "--top-k",
                                          "--kv-dtype", "-p",           "merge",       "quantize", "--temperature"};
  const struct {
    const char *name, *nearest;
  } rows[] = {{"--n", "-n"},
              {"--lora_r", "--lora-r"},
              {"--LoRA-R", "--lora-r"},
              {"--temp", "--temperature"},
              {"--tex", "--text"},
              {"quant", "quantize"},
              {"--ouput", "--out"},
              {"--output", "--out"},
              {"--lora-rank", "--lora-r"},
              {"--r", "--lora-r"},
              {"--dtype", "--kv-dtype"},
              {"--txet-pair", "--text-pair"},
              {"--rank", ""},
              {"--lora", ""},
              {"-q", ""},
              {"-t", ""},
              {"--x", ""},
              {"serve", ""},
              {"--", ""},
              {"", ""}};
  for (const auto& row : rows) EXPECT_EQ(nearest_name(row.name, known), row.nearest) << row.name;
}

TEST(Checked, ReportsOverflowInsteadOfWrapping) {
  EXPECT_EQ(checked_mul(1u << 31, 2, "x"), uint64_t{1} << 32);
  EXPECT_EQ(checked_add(UINT64_MAX - 1, 1, "x"), UINT64_MAX);
  test::expect_error(ErrorCode::format, "tensor 'a'",
                     [] { checked_mul(uint64_t{1} << 33, uint64_t{1} << 31, "tensor 'a'"); });
  test::expect_error(ErrorCode::format, "tensor 'a'", [] { checked_add(UINT64_MAX, 1, "tensor 'a'"); });
}

TEST(Checked, NarrowsOnlyWhatFits) {
  EXPECT_EQ(narrow<int8_t>(int64_t{-128}, "x"), -128);
  test::expect_error(ErrorCode::format, "128", [] { narrow<int8_t>(int64_t{128}, "x"); });
  test::expect_error(ErrorCode::format, "-1", [] { narrow<uint64_t>(int64_t{-1}, "x"); });
  test::expect_error(ErrorCode::format, "x:", [] { narrow<int64_t>(UINT64_MAX, "x"); });
  EXPECT_EQ(ceil_div(65, 64), 2);
  EXPECT_EQ(round_up(64, 64), 64);
}

TEST(Progress, InterruptIsSeenUntilCleared) {
  check_interrupt();
  request_interrupt();
  EXPECT_TRUE(interrupt_requested());
  test::expect_error(ErrorCode::interrupted, "interrupted", [] { check_interrupt(); });
  clear_interrupt();
  check_interrupt();
  EXPECT_FALSE(interrupt_requested());
}

}  // namespace
}  // namespace nibble
