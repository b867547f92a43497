#pragma once
// Bytes to take weights of any type from.
#include <cstdint>
#include <memory>
#include <random>

#include "core/buffer.h"

namespace nibble::bench {

/// Whatever they are read as (codes, f16, bf16 or f32), no NaN and no infinity, nor what some processors are slow on,
/// subnormal numbers: the exponent's top bit is 0, another is 1.
inline std::shared_ptr<Buffer> random_weights(size_t bytes) {
  auto memory = Buffer::allocate(bytes);
  std::mt19937 random(1);
  auto* words = reinterpret_cast<uint32_t*>(memory->data());
  for (size_t i = 0; i < bytes / 4; ++i) words[i] = (static_cast<uint32_t>(random()) & 0xbbffbbffu) | 0x08000800u;
  return memory;
}

}  // namespace nibble::bench
