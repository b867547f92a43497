#include "ops/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "core/parallel.h"
#include "core/profile.h"
#include "ops/elementwise.h"

namespace nibble {
namespace {

/// Rotations per position of each of the head_dim / 2 components.
std::vector<double> base_frequencies(double theta, int64_t head_dim) {
  std::vector<double> f(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < f.size(); ++i) {
    f[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
  }
  return f;
}

std::vector<double> dynamic_frequencies(const RopeConfig& c, int64_t length) {
  const double trained = static_cast<double>(c.original_context);
  if (length <= c.original_context) return base_frequencies(c.theta, c.head_dim);
  const double stretch = c.factor * static_cast<double>(length) / trained - (c.factor - 1.0);
  const auto dim = static_cast<double>(c.head_dim);
  return base_frequencies(c.theta * std::pow(stretch, dim / (dim - 2.0)), c.head_dim);
}

// Long wavelengths are divided by factor, short ones kept, those between blended. Llama 3.1's rule.
void scale_llama3(const RopeConfig& c, std::vector<double>& f) {
  const double trained = static_cast<double>(c.original_context);
  for (double& frequency : f) {
    const double wavelength = 2.0 * std::numbers::pi / frequency;
    const double smooth = (trained / wavelength - c.low_freq_factor) / (c.high_freq_factor - c.low_freq_factor);
    if (wavelength > trained / c.low_freq_factor) {
      frequency /= c.factor;
    } else if (wavelength >= trained / c.high_freq_factor) {
      frequency = (1.0 - smooth) * frequency / c.factor + smooth * frequency;
    }
  }
}

/// The component that makes `rotations` turns over the trained context. YaRN, section 3.2.
double yarn_dimension(const RopeConfig& c, double rotations) {
  return static_cast<double>(c.head_dim) *
         std::log(static_cast<double>(c.original_context) / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(c.theta));
}

void scale_yarn(const RopeConfig& c, std::vector<double>& f) {
  double low = yarn_dimension(c, c.beta_fast), high = yarn_dimension(c, c.beta_slow);
  if (c.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(c.head_dim - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < f.size(); ++i) {
    const double interpolated = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    f[i] = f[i] / c.factor * interpolated + f[i] * (1.0 - interpolated);
  }
}

double yarn_mscale(double factor, double mscale) { return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

/// LongRoPE, section 3.3: larger contexts need sharper attention.
double longrope_attention(const RopeConfig& c) {
  if (c.factor <= 1.0) return 1.0;
  return std::sqrt(1.0 + std::log(c.factor) / std::log(static_cast<double>(c.original_context)));
}

double attention_factor(const RopeConfig& c) {
  if (c.scaling != RopeScaling::yarn && c.scaling != RopeScaling::longrope) return 1.0;
  if (c.attention_factor != 0.0) return c.attention_factor;
  if (c.scaling == RopeScaling::longrope) return longrope_attention(c);
  if (c.mscale != 0.0 && c.mscale_all_dim != 0.0) {
    return yarn_mscale(c.factor, c.mscale) / yarn_mscale(c.factor, c.mscale_all_dim);
  }
  return yarn_mscale(c.factor, 1.0);
}

std::vector<double> frequencies(const RopeConfig& c, int64_t length, int64_t capacity) {
  if (c.scaling == RopeScaling::dynamic) return dynamic_frequencies(c, length);
  std::vector<double> f = base_frequencies(c.theta, c.head_dim);
  if (c.scaling == RopeScaling::linear) {
    for (double& frequency : f) frequency /= c.factor;
  }
  if (c.scaling == RopeScaling::llama3) scale_llama3(c, f);
  if (c.scaling == RopeScaling::yarn) scale_yarn(c, f);
  if (c.scaling == RopeScaling::longrope) {
    const std::vector<double>& divisors = capacity > c.original_context ? c.long_factors : c.short_factors;
    for (size_t i = 0; i < f.size(); ++i) f[i] /= divisors[i];
  }
  return f;
}

enum class Turn { forward, back };

/// In place. The gradient of a rotation is rotated back, and stretched by the same attention factor.
void rotate(Tensor& x, int64_t head_dim, const RopeTable& table, Turn turn) {
  const int64_t heads = x.cols() / head_dim, half = table.cos.cols();
  const float sign = turn == Turn::forward ? 1.0f : -1.0f;
  parallel_for(x.rows(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* cos = table.cos.f32() + t * half;
      const float* sin = table.sin.f32() + t * half;
      for (int64_t h = 0; h < heads; ++h) {
        float* head = x.f32() + (t * heads + h) * head_dim;
        for (int64_t i = 0; i < half; ++i) {
          const float a = head[i], b = head[i + half], s = sign * sin[i];
          head[i] = a * cos[i] - b * s;
          head[i + half] = b * cos[i] + a * s;
        }
      }
    }
  });
}

}  // namespace

RopeTable rope_table(const RopeConfig& config, int64_t first, int64_t tokens, int64_t capacity) {
  const int64_t half = config.head_dim / 2;
  const bool apart = config.scaling == RopeScaling::dynamic && first > 0;
  std::vector<double> f = frequencies(config, first + tokens, capacity);
  const double factor = attention_factor(config);
  RopeTable table = {Tensor(DType::f32, {tokens, half}), Tensor(DType::f32, {tokens, half})};
  for (int64_t t = 0; t < tokens; ++t) {
    if (apart) f = frequencies(config, first + t + 1, capacity);
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(first + t) * f[static_cast<size_t>(i)];
      table.cos.f32()[t * half + i] = static_cast<float>(std::cos(angle) * factor);
      table.sin.f32()[t * half + i] = static_cast<float>(std::sin(angle) * factor);
    }
  }
  return table;
}

RopeTable rope_table(const RopeConfig& config, int64_t first, int64_t tokens) {
  return rope_table(config, first, tokens, first + tokens);
}

RopeTable rope_table(const RopeConfig& config, std::span<const int64_t> lengths) {
  const int64_t half = config.head_dim / 2, tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  RopeTable all = {Tensor(DType::f32, {tokens, half}), Tensor(DType::f32, {tokens, half})};
  int64_t row = 0;
  for (const int64_t length : lengths) {
    const RopeTable one = rope_table(config, 0, length);
    std::copy_n(one.cos.f32(), length * half, all.cos.f32() + row * half);
    std::copy_n(one.sin.f32(), length * half, all.sin.f32() + row * half);
    row += length;
  }
  return all;
}

Tensor apply_rope(Tensor&& x, int64_t head_dim, const RopeTable& table, Tape* tape) {
  const ProfileScope scope("rope");
  Tensor y = may_overwrite(tape) ? x : copy_of(x);
  rotate(y, head_dim, table, Turn::forward);
  if (is_traced(tape, x)) {
    tape->record(y, [table, head_dim, to = tape->slot(x)](Tape& t, const Tensor& dy) {
      Tensor dx = copy_of(dy);
      rotate(dx, head_dim, table, Turn::back);
      t.add(to, std::move(dx));
    });
  }
  return y;
}

}  // namespace nibble
