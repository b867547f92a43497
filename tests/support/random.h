#pragma once
// Tensors of random numbers, the same on every run.
#include <random>

#include "core/tensor.h"

namespace nibble::test {

inline Tensor gaussian(const Shape& shape, unsigned seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Tensor t(DType::f32, shape);
  for (int64_t i = 0; i < t.count(); ++i) t.f32()[i] = scale * normal(random);
  return t;
}

}  // namespace nibble::test
