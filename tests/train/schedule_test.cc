#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"

namespace nibble {
namespace {

TEST(Schedule, RisesThenFallsAsItsShapeSays) {
  struct Row {
    const char* shape;
    std::vector<double> factors;  // of steps 0, 1, 2, 4, 6
  };
  const Row rows[] = {
      {"constant", {0, 0.5, 1, 1, 1}},
      {"linear", {0, 0.5, 1, 0.5, 0}},
      {"cosine", {0, 0.5, 1, 0.5, 0}},
  };
  for (const Row& row : rows) {
    const Schedule schedule = {.shape = parse_schedule(row.shape), .warmup = 2, .steps = 6};
    size_t i = 0;
    for (const int64_t step : {0, 1, 2, 4, 6}) {
      EXPECT_NEAR(schedule_factor(schedule, step), row.factors[i++], 1e-12) << row.shape << " " << step;
    }
  }
  const Schedule cosine = {.shape = ScheduleShape::cosine, .warmup = 2, .steps = 6};
  EXPECT_NEAR(schedule_factor(cosine, 3), 0.5 * (1 + std::sqrt(0.5)), 1e-12);
  EXPECT_THROW(parse_schedule("exponential"), Error);
}

TEST(Clip, ScalesToTheLargestNormThatIsAllowed) {
  std::vector<Tensor> gradients = {Tensor::from(std::vector<float>{3, 0}), Tensor(),
                                   Tensor::from(std::vector<float>{4})};
  EXPECT_DOUBLE_EQ(gradient_norm(gradients), 5.0);
  clip_gradients(gradients, 5.0, 10.0);
  EXPECT_EQ(gradients[0].f32()[0], 3.0f);
  clip_gradients(gradients, 5.0, 1.0);
  EXPECT_NEAR(gradient_norm(gradients), 1.0, 1e-6);
  EXPECT_NEAR(gradients[2].f32()[0], 0.8, 1e-6);
}

}  // namespace
}  // namespace nibble
