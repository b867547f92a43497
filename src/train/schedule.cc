#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <span>
#include <string_view>

#include "core/checked.h"
#include "core/error.h"
#include "core/parallel.h"
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

constexpr int64_t kSquaresTogether = 1 << 15;

/// In pieces of a fixed size, which are added in their order, so that threads change nothing.
double sum_of_squares(std::span<const float> x) {
  const auto count = static_cast<int64_t>(x.size());
  std::vector<double> pieces(static_cast<size_t>(ceil_div(count, kSquaresTogether)));
  parallel_for(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      double squares = 0;
      for (int64_t i = piece * kSquaresTogether; i < std::min(count, (piece + 1) * kSquaresTogether); ++i) {
        squares += double{x[static_cast<size_t>(i)]} * double{x[static_cast<size_t>(i)]};
      }
      pieces[static_cast<size_t>(piece)] = squares;
    }
  });
  return std::accumulate(pieces.begin(), pieces.end(), 0.0);
}

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
    if (!gradient.empty()) squares += sum_of_squares({gradient.f32(), static_cast<size_t>(gradient.count())});
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
