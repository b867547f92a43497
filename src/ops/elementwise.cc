#include "ops/elementwise.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "core/error.h"
#include "core/parallel.h"
#include "core/profile.h"
#include "kernels/kernels.h"

namespace nibble {
namespace {

constexpr int64_t kElementGrain = 16 * 1024;

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

float silu_slope(float x) {
  const float s = sigmoid(x);
  return s * (1.0f + x * (1.0f - s));
}

// Phi(x) + x phi(x), the normal distribution and its density.
float gelu_erf_slope(float x) {
  const float distribution = 0.5f * (1.0f + std::erf(x * std::numbers::sqrt2_v<float> / 2.0f));
  return distribution + x * std::exp(-0.5f * x * x) * 0.3989422804f;  // 1 / sqrt(2 pi)
}

// Of x (1 + tanh z) / 2 with z = sqrt(2 / pi) (x + 0.044715 x^3).
float gelu_tanh_slope(float x) {
  const float t = std::tanh(0.7978845608f * (x + 0.044715f * x * x * x));
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.7978845608f * (1.0f + 3.0f * 0.044715f * x * x);
}

float tanh_slope(float x) {
  const float t = std::tanh(x);
  return 1.0f - t * t;
}

struct ActivationRow {
  Activation activation;
  float (*apply)(float);  // null where there is a kernel
  float (*slope)(float);
  decltype(Kernels::gelu_erf) Kernels::*kernel = nullptr;
};
constexpr ActivationRow kActivations[] = {
    {Activation::relu, [](float x) { return x > 0 ? x : 0.0f; }, [](float x) { return x > 0 ? 1.0f : 0.0f; }},
    {Activation::silu, [](float x) { return x / (1.0f + std::exp(-x)); }, silu_slope},
    {Activation::tanh, [](float x) { return std::tanh(x); }, tanh_slope},
    {Activation::gelu_erf, nullptr, gelu_erf_slope, &Kernels::gelu_erf},
    {Activation::gelu_tanh, nullptr, gelu_tanh_slope, &Kernels::gelu_tanh},
};

const ActivationRow& row_of(Activation activation) {
  return *std::find_if(std::begin(kActivations), std::end(kActivations),
                       [&](const ActivationRow& row) { return row.activation == activation; });
}

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

/// fn(a[i], b[i]) for every element.
template <class Fn>
Tensor combine(const Tensor& a, const Tensor& b, Fn fn) {
  Tensor out = Tensor::uninitialized(DType::f32, a.shape);
  parallel_for(a.count(), kElementGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out.f32()[i] = fn(a.f32()[i], b.f32()[i]);
  });
  return out;
}

void apply(const ActivationRow& row, Tensor& x) {
  if (row.kernel == nullptr) return for_each(x, row.apply);
  parallel_for(x.count(), kElementGrain, [&](int64_t begin, int64_t end) {
    (kernels().*row.kernel)(x.f32() + begin, x.f32() + begin, end - begin);
  });
}

Tensor silu_product(const Tensor& gate, const Tensor& up) {
  Tensor y = Tensor::uninitialized(DType::f32, gate.shape);
  parallel_for(gate.count(), kElementGrain, [&](int64_t begin, int64_t end) {
    kernels().silu_mul(gate.f32() + begin, up.f32() + begin, y.f32() + begin, end - begin);
  });
  return y;
}

constexpr auto product_of = [](float a, float b) { return a * b; };

/// x itself, or a copy when the tape may need x later; x stays valid either way.
Tensor result_for(const Tensor& x, Tape* tape) { return may_overwrite(tape) ? x : copy_of(x); }

}  // namespace

Tensor copy_of(const Tensor& x) {
  Tensor y = Tensor::uninitialized(DType::f32, x.shape);
  std::memcpy(y.raw(), x.raw(), x.bytes());
  return y;
}

void add_in_place(Tensor& x, const Tensor& y) {
  parallel_for(x.count(), kElementGrain, [&](int64_t begin, int64_t end) {
    kernels().axpy(1.0f, y.f32() + begin, x.f32() + begin, end - begin);
  });
}

void scale_in_place(Tensor& x, float factor) {
  for_each(x, [factor](float v) { return v * factor; });
}

void softcap_in_place(Tensor& x, float cap) {
  for_each(x, [cap](float v) { return cap * std::tanh(v / cap); });
}

Activation parse_activation(const std::string& name, const std::string& where) {
  std::string known;
  for (const ActivationName& row : kActivationNames) {
    if (row.name == name) return row.activation;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  fail(ErrorCode::unsupported, where + ": activation '" + name + "' is not supported (known: " + known + ")");
}

Tensor activate(Activation activation, Tensor&& x, Tape* tape) {
  const ProfileScope scope("activation");
  const ActivationRow& row = row_of(activation);
  Tensor y = result_for(x, tape);
  apply(row, y);
  if (!is_traced(tape, x)) return y;
  tape->record(
      y,
      [x, slope = row.slope, to = tape->slot(x)](Tape& t, const Tensor& dy) {
        t.add(to, combine(dy, x, [slope](float d, float v) { return d * slope(v); }));
      },
      [x, &row] {
        Tensor again = copy_of(x);
        apply(row, again);
        return again;
      });
  return y;
}

Tensor silu_mul(const Tensor& gate, const Tensor& up, Tape* tape) {
  const ProfileScope scope("activation");
  Tensor y = silu_product(gate, up);
  if (!is_traced(tape, gate, up)) return y;
  const auto backward = [gate, up, to_gate = tape->slot(gate), to_up = tape->slot(up)](Tape& t, const Tensor& dy) {
    Tensor dgate = Tensor::uninitialized(DType::f32, gate.shape), dup = Tensor::uninitialized(DType::f32, gate.shape);
    parallel_for(gate.count(), kElementGrain, [&](int64_t begin, int64_t end) {
      kernels().silu_mul_backward({.gate = gate.f32() + begin,
                                   .up = up.f32() + begin,
                                   .dy = dy.f32() + begin,
                                   .dgate = dgate.f32() + begin,
                                   .dup = dup.f32() + begin},
                                  end - begin);
    });
    t.add(to_gate, std::move(dgate));
    t.add(to_up, std::move(dup));
  };
  tape->record(y, backward, [gate, up] { return silu_product(gate, up); });
  return y;
}

Tensor add(Tensor&& x, const Tensor& y, Tape* tape) {
  const ProfileScope scope("add");
  Tensor out = result_for(x, tape);
  add_in_place(out, y);
  if (is_traced(tape, x, y)) {
    tape->record(out, [to_x = tape->slot(x), to_y = tape->slot(y)](Tape& t, const Tensor& dy) {
      t.add(to_x, dy);
      t.add(to_y, dy);
    });
  }
  return out;
}

Tensor multiply(Tensor&& x, const Tensor& y, Tape* tape) {
  const ProfileScope scope("activation");
  Tensor out = result_for(x, tape);
  parallel_for(out.count(), kElementGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out.f32()[i] *= y.f32()[i];
  });
  if (!is_traced(tape, x, y)) return out;
  const Tape::Kept of_x = tape->kept(x), of_y = tape->kept(y);
  tape->record(
      out,
      [of_x, of_y, to_x = tape->slot(x), to_y = tape->slot(y)](Tape& t, const Tensor& dy) {
        if (to_x != Tape::kNone) t.add(to_x, combine(dy, t.value(of_y), product_of));
        if (to_y != Tape::kNone) t.add(to_y, combine(dy, t.value(of_x), product_of));
      },
      [of_x, of_y] { return combine(of_x.make(), of_y.make(), product_of); });
  return out;
}

Tensor scale(Tensor&& x, float factor, Tape* tape) {
  Tensor y = result_for(x, tape);
  scale_in_place(y, factor);
  if (is_traced(tape, x)) {
    tape->record(y, [factor, to = tape->slot(x)](Tape& t, const Tensor& dy) {
      Tensor dx = copy_of(dy);
      scale_in_place(dx, factor);
      t.add(to, std::move(dx));
    });
  }
  return y;
}

Tensor softcap(Tensor&& x, float cap, Tape* tape) {
  const ProfileScope scope("softcap");
  Tensor y = result_for(x, tape);
  softcap_in_place(y, cap);
  if (is_traced(tape, x)) {
    tape->record(y, [x, cap, to = tape->slot(x)](Tape& t, const Tensor& dy) {
      t.add(to, combine(dy, x, [cap](float d, float v) { return d * tanh_slope(v / cap); }));
    });
  }
  return y;
}

Tensor slice_columns(const Tensor& x, int64_t begin, int64_t end, Tape* tape) {
  const ProfileScope scope("slice");
  const int64_t width = end - begin;
  Tensor y(DType::f32, {x.rows(), width});
  for (int64_t t = 0; t < x.rows(); ++t) std::copy_n(x.f32() + t * x.cols() + begin, width, y.f32() + t * width);
  if (!is_traced(tape, x)) return y;
  tape->record(y, [shape = x.shape, begin, width, to = tape->slot(x)](Tape& t, const Tensor& dy) {
    Tensor& dx = t.sum(to, shape);
    for (int64_t r = 0; r < dy.rows(); ++r) {
      kernels().axpy(1.0f, dy.f32() + r * width, dx.f32() + r * dx.cols() + begin, width);
    }
  });
  return y;
}

Tensor take_rows(const Tensor& x, std::span<const int64_t> rows, Tape* tape) {
  const int64_t cols = x.cols();
  Tensor y(DType::f32, {static_cast<int64_t>(rows.size()), cols});
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(x.f32() + rows[i] * cols, cols, y.f32() + static_cast<int64_t>(i) * cols);
  }
  if (!is_traced(tape, x)) return y;
  const std::vector<int64_t> taken(rows.begin(), rows.end());
  tape->record(y, [shape = x.shape, taken, cols, to = tape->slot(x)](Tape& t, const Tensor& dy) {
    Tensor& dx = t.sum(to, shape);
    for (size_t i = 0; i < taken.size(); ++i) {
      kernels().axpy(1.0f, dy.f32() + static_cast<int64_t>(i) * cols, dx.f32() + taken[i] * cols, cols);
    }
  });
  return y;
}

}  // namespace nibble
