#pragma once
// What weights are read at when nothing else is done with them: the limit that products are compared with.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace nibble::raw {

/// Four streams of 4 KiB pieces by the absmax kernel.
inline float read_all(const std::byte* w, size_t bytes) {
  constexpr size_t kStreams = 4, kPiece = 1024;
  const auto* x = reinterpret_cast<const float*>(w);
  const size_t count = bytes / sizeof(float) / kStreams;
  float largest = 0;
  for (size_t i = 0; i < count; i += kPiece) {
    const auto piece = static_cast<int64_t>(std::min(kPiece, count - i));
    for (size_t s = 0; s < kStreams; ++s) largest = std::max(largest, kernels().absmax(x + s * count + i, piece));
  }
  return largest;
}

}  // namespace nibble::raw
