#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "core/checked.h"
#include "core/error.h"
#include "core/parallel.h"
#include "quant/dynamic_map.h"

namespace nibble {
namespace {

constexpr int64_t kBlock = 256;          // moments under one scale
constexpr int64_t kSmallest8Bit = 4096;  // values; smaller tensors keep f32 moments
constexpr int64_t kElementGrain = 4096;  // a multiple of kBlock

struct StepContext {
  const OptimizerOptions& options;
  double rate;
  int64_t step;  // 1, 2, ...
};

/// A run of elements of one parameter. first and second are changed in place.
struct Run {
  float* value;
  const float* gradient;
  float *first, *second;
  int64_t count;
  float decays_to = 0.0f;
};

// torch.optim.AdamW, single tensor: decay, moments, then value -= rate / c1 * m / (sqrt(v) / sqrt(c2) + eps).
void update_adamw(const StepContext& c, const Run& r) {
  const OptimizerOptions& o = c.options;
  const auto decay = static_cast<float>(1.0 - c.rate * o.weight_decay);
  const auto rest = static_cast<float>(c.rate * o.weight_decay * static_cast<double>(r.decays_to));
  const auto step = static_cast<double>(c.step);
  const auto size = static_cast<float>(c.rate / (1.0 - std::pow(o.beta1, step)));
  const auto correction = static_cast<float>(std::sqrt(1.0 - std::pow(o.beta2, step)));
  const auto beta2 = static_cast<float>(o.beta2), eps = static_cast<float>(o.eps);
  const auto fresh1 = static_cast<float>(1.0 - o.beta1), fresh2 = static_cast<float>(1.0 - o.beta2);
  for (int64_t i = 0; i < r.count; ++i) {
    const float g = r.gradient[i];
    r.first[i] += fresh1 * (g - r.first[i]);
    r.second[i] = beta2 * r.second[i] + fresh2 * g * g;
    const float kept = r.value[i] * decay + rest;
    r.value[i] = kept - size * (r.first[i] / (std::sqrt(r.second[i]) / correction + eps));
  }
}

// torch.optim.SGD without dampening. The first step's momentum is the gradient itself, as from zeros. Without momentum
// there is nothing to remember.
void update_sgd(const StepContext& c, const Run& r) {
  const auto decay = static_cast<float>(c.options.weight_decay), momentum = static_cast<float>(c.options.momentum);
  const auto rate = static_cast<float>(c.rate);
  for (int64_t i = 0; i < r.count; ++i) {
    float change = r.gradient[i] + decay * (r.value[i] - r.decays_to);
    if (r.first) change = r.first[i] = momentum * r.first[i] + change;
    r.value[i] -= rate * change;
  }
}

struct OptimizerRow {
  std::string_view name;
  void (*update)(const StepContext&, const Run&);
  bool has_second;
  bool eight_bit;
};
constexpr OptimizerRow kOptimizers[] = {
    {.name = "adamw", .update = update_adamw, .has_second = true, .eight_bit = false},
    {.name = "adamw8bit", .update = update_adamw, .has_second = true, .eight_bit = true},
    {.name = "sgd", .update = update_sgd, .has_second = false, .eight_bit = false},
};

const OptimizerRow& row_of(const std::string& name) {
  std::string known;
  for (const OptimizerRow& row : kOptimizers) {
    if (row.name == name) return row;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  fail(ErrorCode::invalid_argument, "optimizer: found '" + name + "', expected one of " + known);
}

OptimizerState new_state(const OptimizerRow& row, const OptimizerOptions& options, int64_t count) {
  if (!row.has_second && options.momentum == 0) return {};
  const bool coded = row.eight_bit && count >= kSmallest8Bit;
  const DType dtype = coded ? DType::u8 : DType::f32;
  OptimizerState state = {.first = Tensor(dtype, {count}), .second = {}, .first_scale = {}, .second_scale = {}};
  if (row.has_second) state.second = Tensor(dtype, {count});
  if (!coded) return state;
  state.first_scale = Tensor(DType::f32, {ceil_div(count, kBlock)});
  state.second_scale = Tensor(DType::f32, {ceil_div(count, kBlock)});
  return state;
}

/// A moment of one block, decoded for an update and encoded again after it.
class CodedMoment {
 public:
  CodedMoment(DynamicMap map, Tensor& codes, Tensor& scales, int64_t first, int64_t count)
      : map_(map), codes_(codes.data<uint8_t>() + first), scale_(scales.f32() + first / kBlock), count_(count) {
    const auto& levels = dynamic_map_levels(map);
    for (int64_t i = 0; i < count; ++i) values[i] = levels[codes_[i]] * *scale_;
  }
  void encode() { *scale_ = quantize_dynamic_block(map_, {values, static_cast<size_t>(count_)}, codes_); }

  float values[kBlock];

 private:
  DynamicMap map_;
  uint8_t* codes_;
  float* scale_;
  int64_t count_;
};

void update_coded(const OptimizerRow& row, const StepContext& context, OptimizerState& state, const Run& run) {
  parallel_for(ceil_div(run.count, kBlock), kElementGrain / kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t at = b * kBlock, count = std::min(kBlock, run.count - at);
      CodedMoment first(DynamicMap::with_sign, state.first, state.first_scale, at, count);
      CodedMoment second(DynamicMap::without_sign, state.second, state.second_scale, at, count);
      row.update(context, {run.value + at, run.gradient + at, first.values, second.values, count, run.decays_to});
      first.encode();
      second.encode();
    }
  });
}

void update(const OptimizerRow& row, const StepContext& context, OptimizerState& state, const Run& run) {
  if (!state.first_scale.empty()) return update_coded(row, context, state, run);
  const auto from = [](Tensor& moment, int64_t begin) { return moment.empty() ? nullptr : moment.f32() + begin; };
  parallel_for(run.count, kElementGrain, [&](int64_t begin, int64_t end) {
    row.update(context, {run.value + begin, run.gradient + begin, from(state.first, begin), from(state.second, begin),
                         end - begin, run.decays_to});
  });
}

void check(const OptimizerOptions& o) {
  const auto require = [](bool good, const char* what, double value) {
    if (!good) fail(ErrorCode::invalid_argument, std::string(what) + ", found " + std::to_string(value));
  };
  require(o.beta1 >= 0 && o.beta1 < 1, "optimizer: beta1 must be at least 0 and below 1", o.beta1);
  require(o.beta2 >= 0 && o.beta2 < 1, "optimizer: beta2 must be at least 0 and below 1", o.beta2);
  require(o.eps > 0, "optimizer: eps must be above 0", o.eps);
  require(o.weight_decay >= 0, "optimizer: weight_decay must be at least 0", o.weight_decay);
  require(o.momentum >= 0 && o.momentum < 1, "optimizer: momentum must be at least 0 and below 1", o.momentum);
}

/// fn(suffix, tensor) for the parts that a state has.
template <class State, class Fn>
void for_parts(State& state, Fn fn) {
  if (!state.first.empty()) fn("first", state.first);
  if (!state.second.empty()) fn("second", state.second);
  if (!state.first_scale.empty()) fn("first_scale", state.first_scale);
  if (!state.second_scale.empty()) fn("second_scale", state.second_scale);
}

}  // namespace

void check_optimizer_name(const std::string& name) { row_of(name); }

Optimizer::Optimizer(std::vector<TrainedParameter> parameters, OptimizerOptions options)
    : parameters_(std::move(parameters)), options_(std::move(options)) {
  check(options_);
  for (const TrainedParameter& p : parameters_)
    states_.push_back(new_state(row_of(options_.name), options_, p.value.count()));
}

void Optimizer::step(const std::vector<Tensor>& gradients, double rate) {
  if (gradients.size() != parameters_.size()) fail(ErrorCode::internal, "optimizer: one gradient for each parameter");
  ++steps_;
  const OptimizerRow& row = row_of(options_.name);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (gradients[i].empty()) continue;
    Tensor& value = parameters_[i].value;
    update(row, {options_, rate, steps_}, states_[i],
           {.value = value.f32(),
            .gradient = gradients[i].f32(),
            .first = nullptr,
            .second = nullptr,
            .count = value.count(),
            .decays_to = parameters_[i].decays_to});
  }
}

std::vector<std::pair<std::string, Tensor>> Optimizer::state() const {
  std::vector<std::pair<std::string, Tensor>> parts;
  for (size_t i = 0; i < states_.size(); ++i) {
    for_parts(states_[i],
              [&](const char* part, const Tensor& t) { parts.emplace_back(parameters_[i].name + "." + part, t); });
  }
  return parts;
}

void Optimizer::restore(int64_t steps, const std::vector<std::pair<std::string, Tensor>>& state) {
  size_t next = 0;
  for (size_t i = 0; i < states_.size(); ++i) {
    for_parts(states_[i], [&](const char* part, Tensor& t) {
      const std::string name = parameters_[i].name + "." + part;
      const bool fits = next < state.size() && state[next].first == name && state[next].second.dtype == t.dtype &&
                        state[next].second.shape == t.shape;
      if (!fits) fail(ErrorCode::format, "optimizer state: " + name + " is missing or has another shape or dtype");
      std::memcpy(t.raw(), state[next].second.raw(), t.bytes());
      ++next;
    });
  }
  if (next != state.size()) fail(ErrorCode::format, "optimizer state: has tensors of parameters that are not trained");
  steps_ = steps;
}

}  // namespace nibble
