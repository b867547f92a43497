#include "quant/error_stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace nibble {
namespace {

ErrorStats stats_of(const std::vector<float>& original, const std::vector<float>& decoded) {
  return error_stats(Tensor::from(original), Tensor::from(decoded));
}

TEST(ErrorStats, MeasuresErrors) {
  const std::vector<float> original = {3.0f, -4.0f}, decoded = {3.0f, -3.5f};
  const ErrorStats stats = stats_of(original, decoded);
  EXPECT_DOUBLE_EQ(stats.relative_error, 0.1);
  EXPECT_DOUBLE_EQ(stats.sqnr_db, 20.0);
  EXPECT_DOUBLE_EQ(stats.max_abs_error, 0.5);
  EXPECT_EQ(stats.first_nonfinite, -1);
}

TEST(ErrorStats, CountsNonFiniteValuesAndLeavesThemOut) {
  std::vector<float> original(200'000, 1.0f);
  original[150'000] = NAN;
  original[150'001] = INFINITY;
  original[199'999] = -INFINITY;
  const ErrorStats stats = stats_of(original, std::vector<float>(200'000, 1.0f));
  EXPECT_EQ(stats.nan_count, 1);
  EXPECT_EQ(stats.inf_count, 2);
  EXPECT_EQ(stats.first_nonfinite, 150'000);
  EXPECT_EQ(stats.relative_error, 0.0);
  EXPECT_TRUE(std::isinf(stats.sqnr_db));
}

// Sums of squares in f32 would overflow or vanish.
TEST(ErrorStats, MeasuresValuesOfEverySize) {
  for (const float size : {1e-25f, 1e-8f, 1.0f, 1e8f, 1e25f}) {
    std::vector<float> original(5000), decoded(5000);
    for (size_t i = 0; i < original.size(); ++i) {
      original[i] = size * (i % 2 == 0 ? 1.0f : -1.0f);
      decoded[i] = original[i] * 1.125f;
    }
    const ErrorStats stats = stats_of(original, decoded);
    EXPECT_NEAR(stats.relative_error, 0.125, 1e-6) << size;
    EXPECT_NEAR(stats.max_abs_error / static_cast<double>(size), 0.125, 1e-6) << size;
  }
}

TEST(ErrorStats, MeasuresErrorsFarAboveTheValues) {
  const ErrorStats stats = stats_of({1.0f, -1.0f}, {1e25f, -1e25f});
  EXPECT_NEAR(stats.relative_error / 1e25, 1.0, 1e-6);
}

TEST(ErrorStats, EverythingLostFromZerosIsOne) { EXPECT_EQ(stats_of({0.0f}, {1.0f}).relative_error, 1.0); }

}  // namespace
}  // namespace nibble
