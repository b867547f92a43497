#include "ops/elementwise.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "core/parallel.h"
#include "kernels/kernels.h"

namespace nibble {
namespace {

constexpr int64_t kElementGrain = 16 * 1024;

float gelu_erf(float x) { return 0.5f * x * (1.0f + std::erf(x * std::numbers::sqrt2_v<float> / 2.0f)); }

// sqrt(2 / pi) * (x + 0.044715 x^3): GELU, arXiv 1606.08415, section 2.
float gelu_tanh(float x) { return 0.5f * x * (1.0f + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x))); }

struct ActivationRow {
  Activation activation;
  float (*apply)(float);
};
constexpr ActivationRow kActivations[] = {
    {Activation::relu, [](float x) { return x > 0 ? x : 0.0f; }},
    {Activation::silu, [](float x) { return x / (1.0f + std::exp(-x)); }},
    {Activation::tanh, [](float x) { return std::tanh(x); }},
    {Activation::gelu_erf, gelu_erf},
    {Activation::gelu_tanh, gelu_tanh},
};

struct ActivationName {
  std::string_view name;
  Activation activation;
};
constexpr ActivationName kActivationNames[] = {
    {"relu", Activation::relu},           {"silu", Activation::silu},
    {"swish", Activation::silu},          {"tanh", Activation::tanh},
    {"gelu", Activation::gelu_erf},       {"gelu_new", Activation::gelu_tanh},
    {"gelu_fast", Activation::gelu_tanh}, {"gelu_pytorch_tanh", Activation::gelu_tanh},
};

/// Calls fn(x[i]) for every element, in place.
template <class Fn>
void for_each(Tensor& x, Fn fn) {
  parallel_for(x.count(), kElementGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) x.f32()[i] = fn(x.f32()[i]);
  });
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, float eps) {
  Tensor y(DType::f32, x.shape);
  const int64_t n = weight.count(), groups = x.count() / n;
  parallel_for(groups, std::max<int64_t>(1, kElementGrain / n), [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      kernels().rms_norm(x.f32() + g * n, weight.f32(), eps, y.f32() + g * n, n);
    }
  });
  return y;
}

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps) {
  Tensor y(DType::f32, x.shape);
  const int64_t n = weight.count();
  parallel_for(x.rows(), std::max<int64_t>(1, kElementGrain / n), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* in = x.f32() + t * n;
      float* out = y.f32() + t * n;
      double sum = 0, squares = 0;
      for (int64_t i = 0; i < n; ++i) sum += in[i];
      const double mean = sum / static_cast<double>(n);
      for (int64_t i = 0; i < n; ++i) squares += (in[i] - mean) * (in[i] - mean);
      const auto scale = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(n) + eps));
      const auto centre = static_cast<float>(mean);
      for (int64_t i = 0; i < n; ++i) out[i] = (in[i] - centre) * scale * weight.f32()[i] + bias.f32()[i];
    }
  });
  return y;
}

Tensor silu_mul(const Tensor& gate, const Tensor& up) {
  Tensor y(DType::f32, gate.shape);
  parallel_for(gate.count(), kElementGrain, [&](int64_t begin, int64_t end) {
    kernels().silu_mul(gate.f32() + begin, up.f32() + begin, y.f32() + begin, end - begin);
  });
  return y;
}

void add_in_place(Tensor& x, const Tensor& y) {
  parallel_for(x.count(), kElementGrain, [&](int64_t begin, int64_t end) {
    kernels().axpy(1.0f, y.f32() + begin, x.f32() + begin, end - begin);
  });
}

Tensor slice_columns(const Tensor& x, int64_t begin, int64_t end) {
  Tensor y(DType::f32, {x.rows(), end - begin});
  for (int64_t t = 0; t < x.rows(); ++t) {
    std::copy_n(x.f32() + t * x.cols() + begin, end - begin, y.f32() + t * (end - begin));
  }
  return y;
}

Activation parse_activation(const std::string& name, const std::string& where) {
  std::string known;
  for (const ActivationName& row : kActivationNames) {
    if (row.name == name) return row.activation;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  fail(ErrorCode::unsupported, where + ": activation '" + name + "' is not supported (known: " + known + ")");
}

void activate(Activation activation, Tensor& x) {
  for (const ActivationRow& row : kActivations) {
    if (row.activation == activation) return for_each(x, row.apply);
  }
}

void multiply_in_place(Tensor& x, const Tensor& y) {
  parallel_for(x.count(), kElementGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) x.f32()[i] *= y.f32()[i];
  });
}

void scale_in_place(Tensor& x, float factor) {
  for_each(x, [factor](float v) { return v * factor; });
}

void softcap_in_place(Tensor& x, float cap) {
  for_each(x, [cap](float v) { return cap * std::tanh(v / cap); });
}

}  // namespace nibble
