#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string_view>

#include "core/error.h"
#include "ops/elementwise.h"

namespace nibble {
namespace {

struct ShapeRow {
  std::string_view name;
  ScheduleShape shape;
  double (*factor)(double left);  // left: the share of the steps after the warm-up that is still to come
};
constexpr ShapeRow kShapes[] = {
    {"constant", ScheduleShape::constant, [](double) { return 1.0; }},
    {"linear", ScheduleShape::linear, [](double left) { return left; }},
    {"cosine", ScheduleShape::cosine,
     [](double left) { return 0.5 * (1.0 + std::cos(std::numbers::pi * (1.0 - left))); }},
};

}  // namespace

ScheduleShape parse_schedule(const std::string& name) {
  for (const ShapeRow& row : kShapes) {
    if (row.name == name) return row.shape;
  }
  fail(ErrorCode::invalid_argument, "schedule: found '" + name + "', expected constant, linear or cosine");
}

double schedule_factor(const Schedule& schedule, int64_t step) {
  if (step < schedule.warmup) return static_cast<double>(step) / static_cast<double>(schedule.warmup);
  const auto all = static_cast<double>(std::max<int64_t>(1, schedule.steps - schedule.warmup));
  const double left = std::max(0.0, static_cast<double>(schedule.steps - step) / all);
  for (const ShapeRow& row : kShapes) {
    if (row.shape == schedule.shape) return row.factor(left);
  }
  fail(ErrorCode::internal, "schedule: a shape without a row");
}

double gradient_norm(const std::vector<Tensor>& gradients) {
  double squares = 0;
  for (const Tensor& gradient : gradients) {
    if (gradient.empty()) continue;
    for (int64_t i = 0; i < gradient.count(); ++i) {
      squares += static_cast<double>(gradient.f32()[i]) * gradient.f32()[i];
    }
  }
  return std::sqrt(squares);
}

void clip_gradients(std::vector<Tensor>& gradients, double norm, double max_norm) {
  const double factor = max_norm / (norm + 1e-6);
  if (factor >= 1.0) return;
  for (Tensor& gradient : gradients) {
    if (!gradient.empty()) scale_in_place(gradient, static_cast<float>(factor));
  }
}

}  // namespace nibble
