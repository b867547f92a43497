#pragma once
// How the learning rate goes over the steps, and how large a gradient may be. As in transformers.
#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace nibble {

enum class ScheduleShape { constant, linear, cosine };

/// @throws Error{invalid_argument} unless "constant", "linear" or "cosine".
ScheduleShape parse_schedule(const std::string& name);

struct Schedule {
  ScheduleShape shape = ScheduleShape::linear;
  int64_t warmup = 0;  // steps over which the rate rises from 0
  int64_t steps = 0;   // in all; linear and cosine end at 0
};

/// The part of the learning rate that step 0, 1, ... uses.
double schedule_factor(const Schedule& schedule, int64_t step);

/// The length of all gradients together; one that is empty counts as 0.
double gradient_norm(const std::vector<Tensor>& gradients);

/// Scales gradients of that norm in place so that it is at most max_norm, as torch does: by max_norm / (norm + 1e-6).
void clip_gradients(std::vector<Tensor>& gradients, double norm, double max_norm);

}  // namespace nibble
