#include <cstdlib>

#include "kernels/every_isa.h"

namespace nibble {
namespace {

TEST(Dispatch, ScalarIsLastAndNamesAreUnique) {
  const std::vector<Kernels>& tables = supported_kernels();
  EXPECT_EQ(tables.back().isa, "scalar");
  for (size_t i = 0; i < tables.size(); ++i) {
    EXPECT_TRUE(tables[i].supported());
    for (size_t j = 0; j < i; ++j) EXPECT_NE(tables[i].isa, tables[j].isa);
  }
}

TEST(Dispatch, BestTableIsTheDefault) {
  if (std::getenv("NIBBLE_ISA") != nullptr) GTEST_SKIP() << "NIBBLE_ISA is set: the default choice is not in use";
  EXPECT_EQ(kernels().isa, supported_kernels().front().isa);
  EXPECT_EQ(isa_choice_problem(), "");
}

// The choice is made once per process, so each case gets its own.
void exit_with_choice(const char* name) {
  setenv("NIBBLE_ISA", name, 1);
  std::fprintf(stderr, "[%s][%s]", std::string(kernels().isa).c_str(), std::string(isa_choice_problem()).c_str());
  std::exit(0);
}

class DispatchDeathTest : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(DispatchDeathTest, TakesTheTableNamedByTheEnvironment) {
  EXPECT_EXIT(exit_with_choice("scalar"), testing::ExitedWithCode(0), "\\[scalar\\]\\[\\]");
}

TEST_F(DispatchDeathTest, ReportsAnUnknownName) {
  EXPECT_EXIT(exit_with_choice("avx9"), testing::ExitedWithCode(0),
              "\\[NIBBLE_ISA=avx9 is unknown; available here: .*scalar\\]");
}

}  // namespace
}  // namespace nibble
